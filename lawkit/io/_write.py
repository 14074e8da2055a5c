"""Tables written as CSV, Parquet and JSON lines: whole or not at all, and read back bit for bit."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lawkit.errors import RunsError
from lawkit.io._tables import SUFFIXES, read_table

__all__ = ["UMASK", "check_output", "replace_file", "write_bytes", "write_table"]

#: The process's file mode mask. It can only be read by setting it, for all threads, so it is read once, at import.
UMASK = os.umask(0o077)
os.umask(UMASK)


def write_table(columns: Mapping[str, Sequence[object]], path: str | os.PathLike[str]) -> None:
    """Write columns as CSV, Parquet or JSON lines, by suffix, beside the target and renamed over it.

    Numbers are written so that they read back to the same bits. None is an empty cell.

    Raises
    ------
    RunsError
        When the suffix is none of ours or the file cannot be written; an older file is then untouched.
    """
    target = os.fspath(path)
    lower = target.lower()
    if target == "-":
        sys.stdout.write(_csv_text(columns, ","))
    elif lower.endswith(".parquet"):
        write_bytes(_parquet_bytes(columns, target), target)
    elif lower.endswith((".jsonl", ".ndjson")):
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in _records(columns))
        write_bytes(_encode("".join(lines), target), target)
    elif lower.endswith((".csv", ".tsv", ".csv.gz")):
        content = _encode(_csv_text(columns, "\t" if lower.endswith(".tsv") else ","), target)
        # mtime=0: the same runs give the same bytes.
        write_bytes(gzip.compress(content, mtime=0) if lower.endswith(".gz") else content, target)
    else:
        raise RunsError(
            f"{target}: cannot tell the format to write; end the name with one of {', '.join(SUFFIXES)}."
        )


def check_output(
    path: str | os.PathLike[str], inputs: Sequence[str | os.PathLike[str]] = (), measured: bool = False
) -> None:
    """Refuse an output before the work is done for it.

    Parameters
    ----------
    path
        Where a table is to be written.
    inputs
        Files that it must not replace.
    measured
        Whether it must not replace a table that holds losses either.

    Raises
    ------
    RunsError
        When the suffix is none of ours, the folder cannot be written to, or a file would be lost.
    """
    target = Path(path)
    if str(path) == "-":
        return
    if not str(path).lower().endswith(SUFFIXES):
        raise RunsError(
            f"{target}: cannot tell the format to write; end the name with one of {', '.join(SUFFIXES)}."
        )
    if target.is_dir() or not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        what = (
            "is a folder"
            if target.is_dir()
            else f"cannot be written: {target.parent} is no folder to write in"
        )
        raise RunsError(f"{target} {what}; name another file.")
    if not target.exists():
        return
    if any(Path(i).exists() and target.samefile(i) for i in inputs if str(i) != "-"):
        raise RunsError(f"{target} is the table that is read, and would be replaced; name another file.")
    if measured:
        try:
            losses = [name for name in read_table(target).names if name.startswith("loss_")]
        except RunsError:
            return  # no table, so no losses to lose
        if losses:
            raise RunsError(
                f"{target} holds measured losses ({losses[0]} ...), which would be lost; name another file."
            )


def _records(columns: Mapping[str, Sequence[object]]) -> Iterator[dict[str, object]]:
    for cells in zip(*columns.values(), strict=True):
        yield dict(zip(columns, cells, strict=True))


def _csv_text(columns: Mapping[str, Sequence[object]], delimiter: str) -> str:
    # csv.writer leaves a lone carriage return unquoted (before Python 3.13), which then reads as a new row.
    special = ("\r", "\n", '"', delimiter)

    def plain(cell: object) -> str:
        if cell is None:
            return ""
        if isinstance(cell, bool):
            return "true" if cell else "false"
        text = repr(cell) if isinstance(cell, float) else str(cell)
        return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in special) else text

    records = [list(columns), *zip(*columns.values(), strict=True)]
    return "".join(delimiter.join(map(plain, record)) + "\n" for record in records)


def _parquet_bytes(columns: Mapping[str, Sequence[object]], target: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    arrays = {name: pa.array([_widened(cell) for cell in cells]) for name, cells in columns.items()}
    pq.write_table(pa.table(arrays), buffer)
    return buffer.getvalue()


def _widened(cell: object) -> object:
    # One Parquet type a column: sizes come as int where they are whole, so a mixed column is made float.
    return float(cell) if isinstance(cell, int) and not isinstance(cell, bool) else cell


def _encode(text: str, target: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RunsError(
            f"{target}: {text[error.start]!r} in a name cannot be written as UTF-8. Rename it."
        ) from None


def write_bytes(content: bytes, path: str | os.PathLike[str]) -> None:
    """Write a file whole or not at all; see `replace_file`.

    Raises
    ------
    RunsError
        When the file cannot be written; an older file is then untouched.
    """
    try:
        replace_file(content, path)
    except OSError as error:
        raise RunsError(
            f"{os.fspath(path)}: cannot be written ({error.strerror or error}). Nothing was changed; choose a folder "
            "that exists, is writable and has space."
        ) from None


def replace_file(content: bytes, path: str | os.PathLike[str]) -> None:
    """Write a file beside its target, flush it to disk and rename it over, so that no half file is ever seen.

    The file beside is called `.<name>.<random>.part`; an error or an interrupt removes it.

    Raises
    ------
    OSError
        When the file cannot be written; an older file is then untouched.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:80]}.", suffix=".part", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
