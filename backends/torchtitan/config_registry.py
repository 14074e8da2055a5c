"""A run as torchtitan's own command line finds it.

``LAWKIT_RUN=folder torchrun ... -m torchtitan.train --module lawkit.backends.torchtitan --config run``
trains the run that is specified in the folder, and takes torchtitan's own options after it, but for those that would
train another run.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from lawkit.errors import BackendError

#: Keeps the folder of the run until this process ends.
_held = contextlib.ExitStack()


def run() -> Any:
    """Return the configuration of the run whose folder the environment variable LAWKIT_RUN names.

    The first rank holds the folder from then on, as a worker does.

    Raises
    ------
    BackendError
        When none is named, another process trains the run, or it is done.
    """
    folder = os.environ.get("LAWKIT_RUN")
    if not folder:
        raise BackendError("LAWKIT_RUN is not set: name the folder of a run, which holds its spec.json")
    from lawkit.backends.torchtitan.device import prepare
    from lawkit.backends.torchtitan.process import alone
    from lawkit.backends.torchtitan.records import Records
    from lawkit.backends.torchtitan.spec import read_spec

    read_spec(folder)
    if os.environ.get("RANK", "0") == "0":
        _held.close()  # where it is asked for twice
        _held.enter_context(alone(Path(folder)))
    if Records(folder).last("done"):
        raise BackendError(f"{folder}: this run is done; remove its records.jsonl to train it once more")
    prepare()
    from lawkit.backends.torchtitan.trainer import configuration

    return configuration(folder)
