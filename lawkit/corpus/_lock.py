"""The folder in which a corpus is built: one builder at a time, kept for the next one when a builder dies."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lawkit.errors import CorpusError

__all__ = ["clean_abandoned", "working_folder"]

_SUFFIX = ".building"
_ABANDONED_S = 24 * 3600.0
_POLL_S = 0.2


def _try_lock(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:
        raise CorpusError(
            "building a corpus needs a POSIX system (file locks); reading one does not."
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def working_folder(out: Path, key: str, waiting: Callable[[], None]) -> Iterator[Path | None]:
    """Hold the folder in which the corpus `key` is built; None once another builder has finished it.

    The lock is on the folder itself: it goes with its process, however that dies, and no lock file stays behind.

    Parameters
    ----------
    out : Path
        The folder of all corpora.
    key : str
        The corpus's name there.
    waiting : callable
        Called once if another process holds the folder.
    """
    folder, final = out / f".{key}{_SUFFIX}", out / key
    told = False
    while True:
        if final.is_dir():
            yield None
            return
        folder.mkdir(exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # renamed between the two lines
            continue
        try:
            if _try_lock(handle):
                # The lock is worth something only if the folder still has its name.
                if _same(folder, handle):
                    yield None if final.is_dir() else folder
                    return
            elif not told:
                told = True
                waiting()
        finally:
            os.close(handle)
        time.sleep(_POLL_S)


def _same(folder: Path, handle: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def clean_abandoned(out: Path) -> None:
    """Remove what builders of other corpora left unfinished and nobody has touched for a day."""
    for folder in out.glob(f".*{_SUFFIX}"):
        try:
            handle = os.open(folder, os.O_RDONLY)
        except OSError:
            continue
        try:
            newest = max((p.stat().st_mtime for p in (folder, *folder.rglob("*"))), default=0.0)
            if time.time() - newest > _ABANDONED_S and _try_lock(handle):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(handle)
