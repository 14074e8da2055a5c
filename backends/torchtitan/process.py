"""A process that dies with the one that started it, so that a killed study leaves nothing running."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lawkit.errors import BackendError

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


@contextlib.contextmanager
def alone(folder: Path, patience: float = 10.0) -> Iterator[None]:
    """Hold the folder of a run, which one process trains at a time.

    A killed study lets go of its own lock a moment before its workers are gone; that moment is waited for.

    Raises
    ------
    BackendError
        When another process still holds it after `patience` seconds.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    end = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise BackendError(
                        f"{folder}: another process trains this run: wait for it or stop it"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)
