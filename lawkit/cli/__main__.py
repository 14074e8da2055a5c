"""Run the command line as ``python -m lawkit.cli``."""

import sys

from lawkit.cli import main

sys.exit(main())
