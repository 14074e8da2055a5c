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


def group(leader: int | None) -> set[int]:
    """Processes of a group. vLLM's engine overwrites its own environment, so that `started_by` misses it."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, _, pgid = (entry / "stat").read_text().rsplit(") ", 1)[1].split()[:3]
            if int(pgid) == leader and state != "Z":
                found.add(int(entry.name))
    return found


def gone(started: Path | int | None, within: float = 20.0) -> bool:
    """Whether the processes that `started_by` or `group` finds end in time."""
    find = started_by if isinstance(started, Path) else group
    end = time.monotonic() + within
    while find(started) and time.monotonic() < end:  # pyright: ignore
        time.sleep(0.05)
    return not find(started)  # pyright: ignore
