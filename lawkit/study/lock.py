"""One process at a time runs a study."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from lawkit.errors import StudyError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_FILE = "study.lock"


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the study of a folder; the system lets go of it when this process ends, however it ends.

    Raises
    ------
    StudyError
        When another process holds it; the message says which.
    """
    if fcntl is None:
        raise StudyError("running a study needs a POSIX system, which can lock a file")
    path = folder / _FILE
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written ({error.strerror}): choose a writable folder") from None
    try:
        if not _locked(handle):
            raise StudyError(
                f"the study {folder} is being run by another process ({_said(handle)}): wait for it or stop it"
            )
        os.truncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
        os.truncate(handle, 0)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Whether the file could be locked; it is tried again, as `holder` locks it too for a moment."""
    assert fcntl is not None
    for attempt in range(3):
        time.sleep(0.05 * attempt)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def holder(folder: Path) -> str | None:
    """Who runs the study of a folder; None when nobody does."""
    path = folder / _FILE
    if fcntl is None or not path.is_file():
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _said(handle)
    finally:
        os.close(handle)
    return None


def _said(handle: int) -> str:
    return os.pread(handle, 200, 0).decode(errors="replace") or "unknown"
