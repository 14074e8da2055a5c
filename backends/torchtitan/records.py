"""What a run writes down: one JSON object a line, appended as it trains."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lawkit.io._json import finite
from lawkit.io._write import replace_file

SPEC, RECORDS, LOG = "spec.json", "records.jsonl", "log.txt"


class Records:
    """The records of one run, of the kinds train, eval, start, done and failed.

    Each is written to the disk before the run goes on. A line that a killed process left half written is not read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / RECORDS

    def add(self, kind: str, **values: Any) -> None:
        """Append one record."""
        line = json.dumps({"kind": kind, **finite(values)}, allow_nan=False) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            if kind != "train":
                os.fsync(file.fileno())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        for line in self.path.read_bytes().split(b"\n")[:-1]:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # half a line, and what was written behind it
            if isinstance(record, dict):
                yield record

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind, in order."""
        return [record for record in self if record.get("kind") == kind]

    def last(self, kind: str) -> dict[str, Any] | None:
        """The last record of a kind; None where there is none."""
        found = self.of(kind)
        return found[-1] if found else None

    def forget_failure(self) -> None:
        """Forget why an earlier attempt failed."""
        if self.last("failed"):
            self.rewind(float("inf"))

    def rewind(self, step: float) -> None:
        """Forget what came after `step`: a run that resumes there will write it again."""
        kept = [r for r in self if r.get("step", 0) <= step and r["kind"] in ("train", "eval", "start")]
        replace_file("".join(json.dumps(r) + "\n" for r in kept).encode(), self.path)
