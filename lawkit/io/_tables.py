"""Tables as files: CSV, Parquet and JSON lines, read without guessing.

The reader hands out cells as they stand in the file (text from CSV, typed values from Parquet and
JSON lines) and leaves their meaning to :mod:`lawkit.io._cells`. A general data-frame reader is not
used here because it renames duplicate columns, pads short rows and guesses types in silence.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.errors import RunsError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES", "Table", "read_table"]

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".parquet", ".jsonl", ".ndjson")
_LONGEST_CELL = 10 * 1024 * 1024


@dataclass(frozen=True)
class Table:
    """Named columns of cells.

    Attributes
    ----------
    names : tuple of str
        The header, in the file's order, without duplicates; a column without a name is left out.
    n_rows : int
        Number of data rows.
    where : str
        How messages call the table: its path, "standard input" or "the table".
    labels : mapping of str to str
        What the user's file calls a column, where an importer renamed it; messages use that name.
    """

    names: tuple[str, ...]
    n_rows: int
    where: str
    _cells: Callable[[str], Sequence[object]]
    labels: Mapping[str, str] = field(default_factory=dict)

    def cells(self, name: str) -> Sequence[object]:
        """Return the cells of one column, length `n_rows`."""
        return self._cells(name)

    def label(self, name: str) -> str:
        """Return the name that the user knows a column by."""
        return self.labels.get(name, name)


def read_table(source: str | os.PathLike[str] | pd.DataFrame) -> Table:
    """Read a table; its format follows from the suffix, and ``-`` is CSV on standard input.

    Raises
    ------
    RunsError
        When the file is missing, unreadable, of another kind, damaged, or names a column twice.
    """
    if not isinstance(source, str | os.PathLike):
        return _from_frame(source)
    path = os.fspath(source)
    if path == "-":
        return _read_csv(sys.stdin.buffer.read(), "standard input", ",")
    lower = path.lower()
    if not lower.endswith(SUFFIXES):
        raise RunsError(
            f"{path}: the kind of table is told by the file's suffix, which must be one of "
            f"{', '.join(SUFFIXES)}. Rename or convert the file."
        )
    try:
        if lower.endswith(".parquet"):
            return _read_parquet(path)
        content = Path(path).read_bytes()
        if lower.endswith(".gz"):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise RunsError(f"{path}: no such file. Check the path{_nearby(path)}.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunsError(f"{path}: cannot be read ({reason}). Check the file and its permissions.") from None
    if lower.endswith((".jsonl", ".ndjson")):
        return _read_jsonl(content, path)
    return _read_csv(content, path, "\t" if lower.endswith(".tsv") else ",")


def _nearby(path: str) -> str:
    import difflib

    try:
        names = [entry.name for entry in Path(path).parent.iterdir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(Path(path).name, names, n=1)
    return f"; {close[0]!r} stands in the same folder" if close else ""


def _decode(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise RunsError(
            f"{where}: line {row} is not UTF-8 text ({error.reason}). Save the table as UTF-8."
        ) from None


def _header(names: Iterable[object], where: str) -> list[str]:
    """Strip the column names; refuse a name that is used twice."""
    header = [str(name).strip() for name in names]
    seen: dict[str, int] = {}
    for position, name in enumerate(header, start=1):
        if name and name in seen:
            raise RunsError(
                f"{where}: column {name!r} occurs twice (columns {seen[name]} and {position}). "
                "Remove or rename one of them."
            )
        seen[name] = position
    return header


def _check_delimiter(header: list[str], where: str, delimiter: str) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t,"):
        raise RunsError(
            f"{where}: the header is one column, {header[0][:60]!r}: its columns are not separated by "
            f"{'commas' if delimiter == ',' else 'tabs'}. Write .csv with commas or .tsv with tabs."
        )


def _read_csv(content: bytes, where: str, delimiter: str) -> Table:
    text = _decode(content, where)
    csv.field_size_limit(_LONGEST_CELL)
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    try:
        for record in records:
            if not header:
                if not any(cell.strip() for cell in record):
                    continue
                header = _header(record, where)
                _check_delimiter(header, where, delimiter)
                continue
            if not record:
                continue  # a blank line
            if len(record) != len(header):
                raise RunsError(
                    f"{where}: row {len(rows) + 1} (line {records.line_num}) has {len(record)} cells "
                    f"where the header has {len(header)}. The file may be cut short, or a cell with a comma "
                    "lacks its quotes."
                )
            rows.append(record)
    except csv.Error as error:
        raise RunsError(
            f"{where}: line {records.line_num} is not CSV ({error}). Repair the line or export it again."
        ) from None
    if not header:
        raise RunsError(f"{where}: the file is empty. A runs table has a header and one row a trained model.")
    position = {name: i for i, name in enumerate(header) if name}
    return Table(tuple(position), len(rows), where, lambda name: [row[position[name]] for row in rows])


def _pairs(where: str, row: int) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise RunsError(f"{where}: row {row} names {twice!r} twice. Remove one of them.")
        return built

    return build


def _read_jsonl(content: bytes, where: str) -> Table:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_decode(content, where).split("\n"), start=1):
        if not line.strip():
            continue
        row = len(rows) + 1
        try:
            record = json.loads(line, object_pairs_hook=_pairs(where, row))
        except (ValueError, RecursionError) as error:
            raise RunsError(
                f"{where}: row {row} (line {number}) is not JSON ({error}). Repair the line."
            ) from None
        if not isinstance(record, dict):
            raise RunsError(
                f"{where}: row {row} (line {number}) is a {type(record).__name__}, not an object. "
                "Write one JSON object a line, with the columns as its keys."
            )
        rows.append(record)
    names = _header(dict.fromkeys(name for record in rows for name in record), where)
    if not rows:
        raise RunsError(
            f"{where}: the file is empty. A runs table has one JSON object a line, one a trained model."
        )
    stripped = [{str(name).strip(): value for name, value in record.items()} for record in rows]
    return Table(
        tuple(name for name in names if name),
        len(rows),
        where,
        lambda name: [row.get(name) for row in stripped],
    )


def _read_parquet(path: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Read whole, so that a missing or forbidden file is told apart from a damaged one.
    content = Path(path).read_bytes()
    try:
        table = pq.ParquetFile(io.BytesIO(content)).read()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunsError(f"{path}: is not a readable Parquet file ({reason}). Write it again.") from None
    header = _header(table.column_names, path)
    position = {name: i for i, name in enumerate(header) if name}

    def cells(name: str) -> Sequence[object]:
        try:
            return table.column(position[name]).to_pylist()
        except (pa.ArrowException, ValueError) as error:
            raise RunsError(
                f"{path}: column {name!r} cannot be read ({error}). Convert it to numbers."
            ) from None

    return Table(tuple(position), table.num_rows, path, cells)


def _from_frame(frame: Any) -> Table:
    where = "the table"
    if not hasattr(frame, "columns") or not hasattr(frame, "iloc"):
        raise RunsError(
            f"runs must be a path or a pandas DataFrame, not {type(frame).__name__}. "
            "Pass the path of a runs table."
        )
    position = {name: i for i, name in enumerate(_header(frame.columns, where)) if name}
    return Table(tuple(position), len(frame), where, lambda name: frame.iloc[:, position[name]].tolist())
