"""A run as torchtitan's own command line finds it.

``LAWKIT_RUN=folder torchrun ... -m torchtitan.train --module lawkit.backends.torchtitan --config run``
trains the run that is specified in the folder, and takes torchtitan's own options after it.
"""

from __future__ import annotations

import os
from typing import Any

from lawkit.errors import BackendError


def run() -> Any:
    """Return the configuration of the run whose folder the environment variable LAWKIT_RUN names."""
    folder = os.environ.get("LAWKIT_RUN")
    if not folder:
        raise BackendError("LAWKIT_RUN is not set: name the folder of a run, which holds its spec.json")
    from lawkit.backends.torchtitan.device import prepare

    prepare()
    from lawkit.backends.torchtitan.trainer import configuration

    return configuration(folder)
