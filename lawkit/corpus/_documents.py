"""Documents out of files: text, JSON lines and Parquet, compressed or not, in memory that does not grow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lawkit.corpus._cuts import CUT, LONGEST, parts
from lawkit.corpus._options import Options, SourceFile
from lawkit.errors import CorpusError

__all__ = ["Document", "documents"]

_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"
#: Rows of a Parquet file are read in batches of about this many bytes.
_BATCH = 8 << 20


class Document(NamedTuple):
    """One document, as UTF-8 and as text."""

    raw: bytes
    text: str


class _Place(NamedTuple):
    """Where in a file; spelt out only for a message."""

    path: Path
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.number}"


def documents(files: Sequence[SourceFile], options: Options) -> Iterator[Document]:
    """Read the documents of a source, in the order of its files; those of white space alone are left out.

    Parameters
    ----------
    files : sequence of SourceFile
        The source's files. A line of jsonl and a row of parquet is a document. A text file is one document, or
        several where a separator is given; a text of more than `LONGEST` bytes, and a source's only file, is cut
        at paragraphs into documents of at most `CUT` bytes.
    options : Options
        The rules of reading.

    Raises
    ------
    CorpusError
        When a file cannot be read, is binary, broken or not UTF-8, changed since the build began, has no column
        of text, or a row is longer than `max_document_bytes`.
    """
    for file in files:
        file.unchanged()
        read = {"text": _text, "jsonl": _jsonl, "parquet": _parquet}[file.kind]
        for document in read(file, options):
            if document.raw and not document.text.isspace():
                yield document


def _blocks(file: SourceFile) -> Iterator[bytes]:
    """Read a file in blocks, decompressed."""
    import pyarrow as pa

    try:
        with (
            pa.OSFile(os.fsencode(file.path)) as plain,  # bytes: a name may be no UTF-8
            pa.CompressedInputStream(plain, file.compression) if file.compression else plain as stream,
        ):
            while block := stream.read(_BLOCK):
                yield block
    except OSError as error:
        if not file.compression or error.errno:
            raise CorpusError(f"{file.path}: cannot be read ({error.strerror or error}).") from None
        raise CorpusError(
            f"{file.path}: is no whole {file.compression} file ({error}). Fetch or compress it again, or name it "
            "without the suffix if it is not compressed."
        ) from None


def _text(file: SourceFile, options: Options) -> Iterator[Document]:
    separator = None if options.document_separator is None else options.document_separator.encode()
    longest = CUT if file.alone and separator is None else LONGEST
    for offset, raw in parts(_blocks(file), separator, longest):
        if offset == 0 and raw.startswith(_BOM):
            raw = raw[len(_BOM) :]
            offset = len(_BOM)
        yield _decoded(raw, offset, file.path, options)


def _decoded(raw: bytes, offset: int, path: Path, options: Options) -> Document:
    zero = raw.find(b"\0")
    if zero >= 0:
        raise CorpusError(
            f"{path}: is binary, not text (a zero byte at byte {offset + zero}). Leave it out, or convert it to "
            "UTF-8 text; compressed text must be named .gz or .zst."
        )
    try:
        return Document(raw, raw.decode())
    except UnicodeDecodeError as error:
        if options.encoding_errors == "replace":
            text = raw.decode(errors="replace")
            return Document(text.encode(), text)
        raise CorpusError(
            f"{path}: is not UTF-8 (byte {offset + error.start} is 0x{raw[error.start]:02x}). Convert it, or read "
            "bad bytes as U+FFFD with --encoding-errors replace."
        ) from None


def _jsonl(file: SourceFile, options: Options) -> Iterator[Document]:
    offset = 0
    for number, line in enumerate(_lines(file, options), 1):
        if line and not line.isspace():
            found = _decoded(line, offset, file.path, options)
            text = _field(found.text.removeprefix("\ufeff"), _Place(file.path, "line", number), options)
            if text:
                yield _encoded(text, _Place(file.path, "line", number), options)
        offset += len(line) + 1


def _lines(file: SourceFile, options: Options) -> Iterator[bytes]:
    begun: list[bytes] = []  # the blocks of a line that has not ended
    size, number = 0, 1
    for block in _blocks(file):
        first, newline, others = block.partition(b"\n")
        begun.append(first)
        size += len(first)
        _check_length(size, _Place(file.path, "line", number), options)
        if newline:
            lines = [b"".join(begun), *others.split(b"\n")]
            begun = [lines.pop()]
            size = len(begun[0])
            for line in lines:
                _check_length(len(line), _Place(file.path, "line", number), options)
                yield line
                number += 1
            _check_length(size, _Place(file.path, "line", number), options)
    if size:
        yield b"".join(begun)


def _check_length(n_bytes: int, where: _Place, options: Options) -> None:
    if n_bytes > options.max_document_bytes:
        raise CorpusError(
            f"{where}: a document of more than {options.max_document_bytes:,} bytes, the most that is read at once. "
            "Split it, or raise --max-document if there is memory for it."
        )


def _field(line: str, where: _Place, options: Options) -> str | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: is not JSON ({error}). Each line must be one JSON object.") from None
    if not isinstance(row, dict):
        raise CorpusError(
            f"{where}: is a {type(row).__name__}, not an object with the key {options.text_column!r}."
        )
    if options.text_column not in row:
        raise CorpusError(_no_column(where, "key", options.text_column, list(row)))
    text = row[options.text_column]
    if text is not None and not isinstance(text, str):
        raise CorpusError(
            f"{where}: {options.text_column!r} holds a {type(text).__name__}, not text. Name the key of the text with "
            "--text-column."
        )
    return text


def _no_column(where: object, what: str, name: str, known: list[str]) -> str:
    from lawkit.io._patterns import did_you_mean

    listed = ", ".join(map(repr, known[:20])) + (", ..." if len(known) > 20 else "")
    return (
        f"{where}: there is no {what} {name!r}; there are {listed or 'none'}.{did_you_mean(name, known)} Name the "
        "one that holds the text with --text-column."
    )


def _encoded(text: str, where: _Place, options: Options) -> Document:
    try:
        return Document(text.encode(), text)
    except UnicodeEncodeError as error:
        # JSON can spell half a character: \ud800.
        if options.encoding_errors == "replace":
            raw = text.encode(errors="replace")
            return Document(raw, raw.decode())
        raise CorpusError(
            f"{where}: the text holds half a character ({text[error.start]!r} at character {error.start}). Correct "
            "it, or use --encoding-errors replace."
        ) from None


def _parquet(file: SourceFile, options: Options) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with (
            pa.OSFile(os.fsencode(file.path)) as plain,
            pq.ParquetFile(plain, buffer_size=_BLOCK, pre_buffer=False) as table,
        ):
            schema = table.schema_arrow
            if options.text_column not in schema.names:
                raise CorpusError(_no_column(file.path, "column", options.text_column, schema.names))
            kind: Any = schema.field(options.text_column).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (
                pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
            ):
                raise CorpusError(
                    f"{file.path}: column {options.text_column!r} holds {kind}, not text. Name the column of the text "
                    "with --text-column."
                )
            yield from _rows(table, file.path, options)
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(
            f"{file.path}: cannot be read as parquet ({' '.join(str(error).split())[:200]}). Write it again, or name "
            "it by what it is."
        ) from None


def _rows(table: Any, path: Path, options: Options) -> Iterator[Document]:
    column = table.schema_arrow.names.index(options.text_column)
    row = 0
    for group in range(table.num_row_groups):
        about = table.metadata.row_group(group)
        mean = _column_bytes(about, options.text_column) / max(about.num_rows, 1)
        size = int(min(max(_BATCH / max(mean, 1), 1), 65536))
        for batch in table.iter_batches(size, row_groups=[group], columns=[table.schema_arrow.names[column]]):
            for text in batch.column(0):
                row += 1
                value = text.as_py()
                if value:
                    document = _encoded(value, _Place(path, "row", row), options)
                    _check_length(len(document.raw), _Place(path, "row", row), options)
                    yield document


def _column_bytes(group: Any, name: str) -> int:
    for i in range(group.num_columns):
        if group.column(i).path_in_schema == name:
            return group.column(i).total_uncompressed_size
    return group.total_byte_size
