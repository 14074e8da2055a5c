"""Builds a corpus, or finds it built: a folder named by the content of its sources, tokenizer and options."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lawkit.corpus import _tokenizer
from lawkit.corpus._job import Job
from lawkit.corpus._lock import clean_abandoned, working_folder
from lawkit.corpus._options import Options, SourceFile, check_options, find_files
from lawkit.corpus._progress import Progress, Ticks
from lawkit.corpus.reader import FORMAT, Corpus, open_corpus
from lawkit.errors import CorpusError

__all__ = ["Progress", "build"]

#: Held-out text of all sources together: their runs of words are all kept in memory.
_MOST_HELDOUT = 32 << 20


def build(
    sources: Mapping[str, str | Path | Sequence[str | Path]],
    out: str | Path,
    *,
    tokenizer: str | Path | None = None,
    vocab_size: int = 4096,
    holdout: float = 0.02,
    seed: int = 0,
    text_column: str = "text",
    document_separator: str | None = None,
    encoding_errors: str = "strict",
    max_document_bytes: int = 64 << 20,
    max_heldout_bytes: int = 4 << 20,
    sample_bytes: int = 8 << 20,
    bos: str | None = None,
    eos: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Corpus:
    """Build a corpus, or find it built.

    Parameters
    ----------
    sources : mapping of str to path, pattern or sequence of them
        Each source's files: text, .jsonl or .parquet; text and .jsonl also as .gz or .zst.
    out : path
        The folder of all corpora; the corpus is a folder in it, named by the content of files, tokenizer and options.
    tokenizer : path, optional
        A tokenizer.json. None: a byte-level BPE is trained on a sample of the sources.
    vocab_size : int
        Tokens of that BPE.
    holdout : float
        Fraction of each source's documents that is held out, chosen by their hashes. What repeats a held-out
        document, of whatever source, is left out of the training side.
    seed : int
        Chooses another set of held-out documents.
    text_column : str
        Where the text is in jsonl and parquet.
    document_separator : str, optional
        What stands between documents in a text file. None: each file is one document, but a source's only file, and
        what is longer than 1 MiB, is cut at paragraphs into documents of at most 16 KiB.
    encoding_errors : {"strict", "replace"}
        What to do about invalid UTF-8.
    max_document_bytes : int
        A longer line of jsonl or row of parquet is refused. Text files are cut and need no limit.
    max_heldout_bytes : int
        Most text held out of one source; of all together it is 32 MiB.
    sample_bytes : int
        Most text that trains the BPE, in equal shares of the sources.
    bos, eos : str, optional
        The special tokens that begin and end a document, where the tokenizer's are not found by their usual names.
    progress : callable, optional
        Told how far the build is, some times a second at most.

    Returns
    -------
    Corpus
        Opened. Files, tokenizer and options that are the same give the same folder, whoever built it.

    Raises
    ------
    CorpusError
        When text cannot be read, a source is too small to be split, or the folder cannot be written or is full.
        What was finished is kept, and the same call goes on from there.

    Examples
    --------
    >>> import sysconfig, tempfile
    >>> out = tempfile.mkdtemp()
    >>> corpus = build({"json": f"{sysconfig.get_path('stdlib')}/json/*.py"}, out, vocab_size=512, holdout=0.1)
    >>> corpus.sources, corpus.vocab_size
    (('json',), 512)
    """
    options = Options(
        vocab_size=vocab_size,
        holdout=float(holdout),
        seed=int(seed),
        text_column=text_column,
        document_separator=document_separator,
        encoding_errors=encoding_errors,
        max_document_bytes=max_document_bytes,
        max_heldout_bytes=min(max_heldout_bytes, _MOST_HELDOUT // max(len(sources), 1)),
        sample_bytes=sample_bytes,
    )
    check_options(options)
    if tokenizer is None and (bos is not None or eos is not None):
        raise CorpusError(
            "bos and eos name tokens of a tokenizer, and none is given; the one that is trained has its own. Give a "
            "tokenizer, or leave them out."
        )
    given = None if tokenizer is None else Path(tokenizer)
    # Before the work, which would be for nothing if there is no tokenizer.
    marks = (
        None if given is None else _tokenizer.special_ids(_tokenizer.load_tokenizer(given), given, bos, eos)
    )
    tell = progress or (lambda _: None)
    warnings: list[str] = []
    files = find_files(sources, warnings)
    folder = Path(out)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        hashes = _hash(files, tell)
        tokenizer_hash = given and hashlib.sha256(given.read_bytes()).hexdigest()
        key = _key(files, hashes, options, tokenizer_hash, marks)
        clean_abandoned(folder)
        with working_folder(folder, key, lambda: tell(Progress("wait", "", 0, None))) as work:
            if work is None:
                tell(Progress("reuse", "", 0, None))
            else:
                job = Job(work, files, hashes, options, tell, warnings)
                job.run(given, marks)
                work.rename(folder / key)
                _sync(folder)
    return open_corpus(folder / key)


def _hash(files: dict[str, list[SourceFile]], tell: Callable[[Progress], None]) -> dict[str, list[str]]:
    total, done = sum(file.n_bytes for found in files.values() for file in found), 0
    hashes: dict[str, list[str]] = {}
    for name, found in files.items():
        ticks = Ticks(tell, "hash", name, done, total)
        hashes[name] = []
        for file in found:
            hashes[name].append(file.sha256())
            ticks.advance(file.n_bytes)
            done += file.n_bytes
    return hashes


def _key(
    files: dict[str, list[SourceFile]],
    hashes: dict[str, list[str]],
    options: Options,
    tokenizer: str | None,
    marks: tuple[int, int] | None,
) -> str:
    made_of = {
        "format": FORMAT,
        "options": options.as_dict(),
        "tokenizer": tokenizer,
        "marks": marks,
        "sources": {
            name: [[f.kind, f.compression, h] for f, h in zip(found, hashes[name], strict=True)]
            for name, found in files.items()
        },
    }
    # Not sorted: the order of the sources is the order in the corpus.
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the system refuses into a message that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CorpusError(
                f"{folder}: the disk is full ({reason}). What was written is kept: free some space and build "
                "again, it goes on from there."
            ) from None
        raise CorpusError(
            f"{error.filename or folder}: cannot be written ({reason}). Choose a folder you may write to."
        ) from None
