"""Taking turns: one process at a time writes into a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from lawkit.errors import FitError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: Seconds to wait for another process, which needs well under one to save a fit.
PATIENCE = 10.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def exclusive(path: Path, what: str) -> Iterator[bool]:
    """Holds the lock file `path`, which is there only while somebody does; the system frees it if the holder dies.

    Yields
    ------
    bool
        Whether the lock is held; False where the system or the file system has none, so that nobody
        can be known to be alone.

    Raises
    ------
    FitError
        If another process still holds it after `PATIENCE` seconds; the message calls what is locked `what`.
    """
    if fcntl is None:
        yield False
        return
    handle = _acquire(path, what)
    if handle is None:
        yield False
        return
    try:
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()} on {socket.gethostname()}".encode())
        yield True
    finally:
        path.unlink(
            missing_ok=True
        )  # while it is still held: who waits for it finds it gone and makes another
        os.close(handle)


def _acquire(path: Path, what: str) -> int | None:
    assert fcntl is not None
    until = time.monotonic() + PATIENCE
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BlockingIOError:
            if time.monotonic() > until:
                holder = os.pread(handle, 200, 0).decode(errors="replace")
                os.close(handle)
                raise FitError(
                    f"{what} is being written by another process ({holder or 'unknown'}): wait for it, or name another "
                    "folder with -o"
                ) from None
            time.sleep(0.02)
        except OSError as error:
            os.close(handle)
            if error.errno in _NO_LOCKS:
                path.unlink(missing_ok=True)
                return None
            raise
        os.close(handle)
