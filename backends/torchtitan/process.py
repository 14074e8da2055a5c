"""A process that dies with the one that started it, so that a killed study leaves nothing running."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

#: Environment variable that names the parent whose death a worker follows.
PARENT = "LAWKIT_PARENT"
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have this process killed when its parent dies, however it dies.

    Linux does it itself; elsewhere a thread looks once a second whether the parent is still there.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    # It may have died before we asked.
    named = os.environ.pop(PARENT, None)
    if os.getppid() != (int(named) if named else parent):
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
