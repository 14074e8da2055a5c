"""A source's tokens on disk: appended, safe at any instant, and continued where a killed build stopped."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.io._write import replace_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["JOURNAL", "Done", "TokenFile", "file_sha256"]

#: What is added to a token file's name for its journal.
JOURNAL = ".progress.json"
_HASH_BLOCK = 1 << 22


@dataclass
class Done:
    """What a token file holds so far."""

    n_read: int = 0
    """Documents of the source that were looked at, in its order."""
    bytes_read: int = 0
    n_documents: int = 0
    """Documents written."""
    n_tokens: int = 0
    n_bytes: int = 0
    """Text written, in bytes."""
    n_heldout: int = 0
    """Documents left out because they, or exact copies, are held out."""
    n_near: int = 0
    """Documents left out because they repeat a held-out one."""
    near_bytes: int = 0


class TokenFile:
    """Appends tokens to a file beside a journal of what it holds.

    The journal is replaced, whole, after the tokens it speaks of are on disk. What the file has beyond it is a
    killed build's half-written end, and is cut off.

    Parameters
    ----------
    path : Path
        The file.
    dtype : numpy dtype
        Of the ids, little-endian.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.path, self._dtype = path, dtype
        self._journal = path.with_name(path.name + JOURNAL)
        self.done = Done()
        if self._journal.is_file() and path.is_file():
            done = Done(**json.loads(self._journal.read_text(encoding="utf-8")))
            if path.stat().st_size >= done.n_tokens * dtype.itemsize:
                self.done = done
        self._file = path.open("ab", buffering=0)
        self._file.truncate(self.done.n_tokens * dtype.itemsize)
        self._pending: list[NDArray[Any]] = []

    def append(self, ids: NDArray[Any]) -> None:
        """Add tokens; they are written by `commit`."""
        self._pending.append(ids)

    def commit(self) -> None:
        """Write what was added since the last time, then the journal.

        Raises
        ------
        OSError
            When the disk is full; the journal then still tells of the last commit.
        """
        if self._pending:
            content = memoryview(np.concatenate(self._pending).astype(self._dtype, copy=False).tobytes())
            while content:  # a disk that fills up takes the first part only, without an error
                content = content[self._file.write(content) :]
            os.fsync(self._file.fileno())
            self._pending.clear()
        replace_file(json.dumps(asdict(self.done)).encode(), self._journal)

    def finish(self) -> dict[str, Any]:
        """Commit, and return what a manifest says of the file."""
        self.commit()
        return {
            "documents": self.done.n_documents,
            "tokens": self.done.n_tokens,
            "bytes": self.done.n_bytes,
            "sha256": file_sha256(self.path),
        }

    def __enter__(self) -> TokenFile:
        return self

    def __exit__(self, *_: object) -> None:
        # What is pending is not written: an error belongs to the commit that met it.
        self._file.close()


def file_sha256(path: Path) -> str:
    """The hash of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
