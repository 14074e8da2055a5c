"""What tests of generators share: documents, what became of them, and the processes that were started for it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path


def documents(path: Path, count: int, first: int = 0) -> Path:
    """Append `count` distinct documents to a jsonl file."""
    with path.open("a", encoding="utf-8") as file:
        for i in range(first, first + count):
            file.write(
                json.dumps({"text": f"Hive {i} has {i * i} bees, and each of them can fly. " * 4}) + "\n"
            )
    return path


def records(folder: Path) -> list[dict]:
    """The texts of a folder with what names them, in order."""
    files = sorted(folder.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def content(folder: Path) -> dict[str, bytes]:
    """The texts, byte for byte."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.jsonl"))}


def started_by(mark: Path) -> set[int]:
    """Processes that have this path in their environment, by their numbers."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            if str(mark).encode() in (entry / "environ").read_bytes() and pid != os.getpid():
                found.add(pid)
    return found


def gone(mark: Path, within: float = 20.0) -> bool:
    """Whether those processes end in time."""
    end = time.monotonic() + within
    while started_by(mark) and time.monotonic() < end:
        time.sleep(0.05)
    return not started_by(mark)
