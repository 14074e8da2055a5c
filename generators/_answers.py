"""The answers of one shard, each written down when it comes: what a killed job does not have to ask again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lawkit.generators._generator import Answer

__all__ = ["FOLDER", "AnswerLog"]

#: Where the logs lie in the folder of a job.
FOLDER = "answers"


class AnswerLog:
    """A file to which answers are appended, one JSON object a line.

    What stands behind the last end of line is a killed process's half-written answer, and is cut off.

    Parameters
    ----------
    path : Path
        The file; it is made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self._known: dict[str, Answer] = {}
        whole = 0
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    whole += len(line)
                    read = _parsed(line)
                    if read is not None:
                        self._known[read[0]] = read[1]
        self._file = path.open("ab", buffering=0)
        self._file.truncate(whole)

    def get(self, key: str) -> Answer | None:
        """The answer to a request, where it is known."""
        return self._known.get(key)

    def add(self, key: str, answer: Answer) -> None:
        """Write down the answer to a request.

        Raises
        ------
        OSError
            When the disk is full.
        """
        left = memoryview((json.dumps({"key": key, **asdict(answer)}, ensure_ascii=False) + "\n").encode())
        while left:  # a disk that fills up takes the first part only, without an error
            left = left[self._file.write(left) :]
        self._known[key] = answer

    def close(self) -> None:
        """Put it on the disk."""
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    @staticmethod
    def places(path: Path) -> Iterator[tuple[str, int]]:
        """The keys of a file's lines, and where each line begins."""
        at = 0
        with path.open("rb") as file:
            for line in file:
                read = _parsed(line)
                if read is not None:
                    yield read[0], at
                at += len(line)

    @staticmethod
    def read_at(path: Path, at: int) -> Answer:
        """What the line that begins at a place says."""
        with path.open("rb") as file:
            file.seek(at)
            read = _parsed(file.readline())
        assert read is not None
        return read[1]


def _parsed(line: bytes) -> tuple[str, Answer] | None:
    """Key and answer of a line; None where a crash of the machine left something else."""
    try:
        value: dict[str, Any] = json.loads(line)
        return value.pop("key"), Answer(**value)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
