"""What a corpus is built from, fixed before anything is read: the sources' files and the rules of reading them."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lawkit.corpus.reader import MANIFEST, TOKENIZER
from lawkit.errors import CorpusError

__all__ = ["Options", "SourceFile", "check_options", "find_files", "reading_options"]

#: A source names a folder and the columns weight_<source> and loss_<source>.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_COMPRESSED = {".gz": "gzip", ".gzip": "gzip", ".dz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Options:
    """The rules that, with the files' contents, decide every token of a corpus."""

    vocab_size: int
    """Tokens of the byte-level BPE, where one is trained."""
    holdout: float
    """Fraction of each source's documents that is held out."""
    seed: int
    """Chooses which documents are held out and which train the tokenizer."""
    text_column: str
    """The column or key of the text in parquet and jsonl."""
    document_separator: str | None
    """What stands between the documents of a text file; None: a file is one document."""
    encoding_errors: str
    """`strict` refuses invalid UTF-8, `replace` reads each bad sequence as U+FFFD."""
    max_document_bytes: int
    """A longer jsonl line or parquet row is refused; text files have no limit, they are cut."""
    max_heldout_bytes: int
    """Most text held out of one source."""
    sample_bytes: int
    """Most text, of all sources together, that trains the tokenizer."""

    def as_dict(self) -> dict[str, object]:
        """The options as JSON knows them."""
        return asdict(self)


@dataclass(frozen=True)
class SourceFile:
    """One file of a source as it was when the build began."""

    path: Path
    kind: str
    """`text`, `jsonl` or `parquet`."""
    compression: str | None
    """`gzip`, `zstd` or None."""
    n_bytes: int
    """On disk."""
    mtime_ns: int
    alone: bool
    """Whether it is the source's only file."""

    def unchanged(self) -> None:
        """Refuse a file that is not the one seen at the start.

        Raises
        ------
        CorpusError
            When its size or time of change is another, or it is gone.
        """
        try:
            stat = self.path.stat()
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read ({error.strerror}).") from None
        if (stat.st_size, stat.st_mtime_ns) != (self.n_bytes, self.mtime_ns):
            raise CorpusError(
                f"{self.path} changed while the corpus was being built. Build again when it is complete."
            )

    def sha256(self) -> str:
        """The hash of the file as it lies on disk.

        Raises
        ------
        CorpusError
            When it cannot be read.
        """
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read ({error.strerror}).") from None
        return digest.hexdigest()


def check_options(options: Options) -> None:
    """Refuse options that make no sense.

    Raises
    ------
    CorpusError
        With the option, its value and what it may be.
    """
    if not 0 <= options.holdout < 1:
        raise CorpusError(
            f"holdout is {options.holdout!r}: a fraction of at least 0 and below 1, such as .02."
        )
    if not 258 <= options.vocab_size <= 1 << 24:
        raise CorpusError(f"vocab_size is {options.vocab_size!r}: at least 258 (256 bytes, BOS and EOS).")
    if not -(2**63) <= options.seed < 2**63:
        raise CorpusError(f"seed is {options.seed!r}: a whole number from -2**63 to 2**63 - 1.")
    if options.document_separator is not None and not options.document_separator:
        raise CorpusError(
            "document_separator is empty: write what stands between documents, such as '\\n\\n'."
        )
    if options.encoding_errors not in ("strict", "replace"):
        raise CorpusError(f"encoding_errors is {options.encoding_errors!r}: 'strict' or 'replace'.")
    for name in ("max_document_bytes", "max_heldout_bytes", "sample_bytes"):
        if getattr(options, name) < 1:
            raise CorpusError(f"{name} is {getattr(options, name)!r}: a number of bytes, at least 1.")


def reading_options(
    text_column: str = "text",
    document_separator: str | None = None,
    encoding_errors: str = "strict",
    max_document_bytes: int = 64 << 20,
) -> Options:
    """The rules of reading alone, for documents of which no corpus is built.

    Raises
    ------
    CorpusError
        As `check_options`.
    """
    options = Options(
        text_column=text_column,
        document_separator=document_separator,
        encoding_errors=encoding_errors,
        max_document_bytes=max_document_bytes,
        vocab_size=4096,
        holdout=0.0,
        seed=0,
        max_heldout_bytes=1,
        sample_bytes=1,
    )
    check_options(options)
    return options


def find_files(
    sources: Mapping[str, str | Path | Sequence[str | Path]], warnings: list[str]
) -> dict[str, list[SourceFile]]:
    """Find the files of each source; patterns with `*`, `?` or `[` are searched, `**` through folders.

    Files found by a pattern come sorted by path. Empty ones among them are left out with a warning; an empty
    file that was named is refused.

    Raises
    ------
    CorpusError
        When there is no source, a name cannot be a folder's, one is another's with _se behind it, a pattern finds
        nothing, or a file is empty, missing or a folder.
    """
    if not sources:
        raise CorpusError("no sources: give at least one name with its files, such as code='src/**/*.py'.")
    for name in sources:
        if f"{name}_se" in sources:
            raise CorpusError(
                f"the sources {name!r} and {name + '_se'!r} cannot stand together: loss_{name}_se of a runs table is "
                f"the standard error of loss_{name}. Give one of them another name."
            )
    found: dict[str, list[SourceFile]] = {}
    for name, patterns in sources.items():
        if not _NAME.fullmatch(name):
            raise CorpusError(
                f"{name!r} cannot name a source, whose folder it becomes: use at most 100 letters, digits and _ . + -, "
                "beginning with a letter, a digit or _."
            )
        if name in (MANIFEST, TOKENIZER):
            raise CorpusError(
                f"{name!r} cannot name a source: a file of the corpus is called so. Give it another name."
            )
        listed = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
        paths: dict[Path, None] = {}
        empty = 0
        for pattern in listed:
            text = str(pattern)
            if not glob.has_magic(text) or Path(text).exists():
                paths[_named(Path(text), name)] = None
                continue
            matches = [Path(p) for p in sorted(glob.glob(text, recursive=True)) if Path(p).is_file()]  # noqa: PTH207 (absolute patterns too)
            if not matches:
                raise CorpusError(f"source {name!r}: no file matches {text!r} (in {Path.cwd()}).")
            for path in matches:
                if path.stat().st_size:
                    paths[path] = None
                else:
                    empty += 1
        if empty:
            warnings.append(f"source {name!r}: {empty} empty files were left out")
        if not paths:
            raise CorpusError(
                f"source {name!r} has no text: every file of {', '.join(map(str, listed))} is empty."
            )
        found[name] = [_source_file(path, len(paths) == 1) for path in paths]
    return found


def _named(path: Path, source: str) -> Path:
    if not path.exists():
        raise CorpusError(f"source {source!r}: there is no file {str(path)!r} (in {Path.cwd()}).")
    if not path.is_file():
        raise CorpusError(
            f"source {source!r}: {path} is no file; name files, or a pattern such as {path}/**/*.txt."
        )
    if not path.stat().st_size:
        raise CorpusError(f"source {source!r}: {path} is empty. Leave it out, or check how it was written.")
    return path


def _source_file(path: Path, alone: bool) -> SourceFile:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = _COMPRESSED.get(suffixes[-1]) if suffixes else None
    kind_suffix = suffixes[-2:-1] if compression else suffixes[-1:]
    kind = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}.get("".join(kind_suffix), "text")
    if kind == "parquet" and compression:
        raise CorpusError(f"{path}: a compressed parquet file cannot be read in pieces; decompress it first.")
    stat = path.stat()
    return SourceFile(path, kind, compression, stat.st_size, stat.st_mtime_ns, alone)
