"""A finished corpus: its sources' tokens, mapped from disk."""

from __future__ import annotations

import hashlib
import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from lawkit.errors import CorpusError

__all__ = ["FORMAT", "Corpus", "content_digest", "open_corpus"]

#: Of the files; raised when an older lawkit could not read them.
FORMAT = 1
MANIFEST = "corpus.json"
TOKENIZER = "tokenizer.json"


def content_digest(manifest: dict[str, Any]) -> str:
    """The hash over all that a run can see of a corpus: tokens and tokenizer, not where the files came from."""
    seen = {
        "format": manifest["format"],
        "dtype": manifest["dtype"],
        "tokenizer": manifest["tokenizer"],
        "sources": {
            name: {split: source[split] for split in ("train", "heldout")}
            for name, source in manifest["sources"].items()
        },
    }
    return hashlib.sha256(json.dumps(seen, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Corpus:
    """Tokens of several sources, each with a training and a held-out side; made by `open_corpus`.

    A side is one flat array of ids in which each document stands as BOS, its tokens, EOS (EOS alone where the
    tokenizer has no BOS of its own). Held-out documents come in the order of a hash, so that the first n tokens
    are a random sample.

    Parameters
    ----------
    path : Path
        Its folder.
    manifest : dict
        What `corpus.json` says.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources, in the order in which they were given."""
        return tuple(self.manifest["sources"])

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return self.manifest["tokenizer"]["vocab_size"]

    @property
    def bos(self) -> int:
        """The id of BOS; that of EOS where the tokenizer has no BOS."""
        return self.manifest["tokenizer"]["bos"]

    @property
    def eos(self) -> int:
        """The id of EOS."""
        return self.manifest["tokenizer"]["eos"]

    @property
    def digest(self) -> str:
        """The hash over tokens and tokenizer; equal wherever and from whatever files they were made."""
        return self.manifest["digest"]

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json of the corpus."""
        return self.path / TOKENIZER

    @property
    def warnings(self) -> list[str]:
        """What is odd about the corpus."""
        return list(self.manifest["warnings"])

    def train(self, source: str) -> np.memmap[Any, Any]:
        """The training tokens of a source, (n_tokens,), read-only, mapped from disk.

        Raises
        ------
        CorpusError
            When there is no such source, or its file is gone.
        """
        return self._map(source, "train")

    def heldout(self, source: str) -> np.memmap[Any, Any]:
        """The held-out tokens of a source, (n_heldout_tokens,), read-only, mapped from disk.

        Raises
        ------
        CorpusError
            When there is no such source, nothing was held out, or its file is gone.
        """
        return self._map(source, "heldout")

    def n_tokens(self, source: str) -> int:
        """Training tokens of a source."""
        return self._about(source)["train"]["tokens"]

    def n_heldout_tokens(self, source: str) -> int:
        """Held-out tokens of a source."""
        return self._about(source)["heldout"]["tokens"]

    def heldout_bytes(self, source: str) -> int:
        """Bytes of held-out text: total nats over the held-out tokens, divided by this, are nats per byte."""
        return self._about(source)["heldout"]["bytes"]

    def require(self, source: str, n_tokens: int, *, heldout: bool = False) -> None:
        """Refuse a source that has fewer tokens than are needed at once.

        Raises
        ------
        CorpusError
            When there is no such source, or it has fewer than `n_tokens`.
        """
        has = self.n_heldout_tokens(source) if heldout else self.n_tokens(source)
        if has < n_tokens:
            kind = "held-out" if heldout else "training"
            remedy = "a larger --holdout" if heldout else "smaller batches or shorter rows"
            raise CorpusError(
                f"{self.path}: source {source!r} has {has:,} {kind} tokens, fewer than the {n_tokens:,} needed at "
                f"once. Add text to it, leave it out, or use {remedy}."
            )

    def check_tokenizer(self, path: Path) -> None:
        """Refuse a tokenizer other than the one that made the tokens.

        Raises
        ------
        CorpusError
            When the file's content is another.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise CorpusError(f"{path}: cannot be read ({error.strerror}).") from None
        if hashlib.sha256(content).hexdigest() != self.manifest["tokenizer"]["sha256"]:
            raise CorpusError(
                f"{path} is not the tokenizer that made the tokens in {self.path} ({self.vocab_size} tokens). Use "
                f"{self.tokenizer_path}, or build a corpus with the other one."
            )

    def verify(self) -> None:
        """Read everything and compare it with the manifests' hashes.

        Raises
        ------
        CorpusError
            When a file is not what was written, or holds an id outside the vocabulary.
        """
        from lawkit.corpus._shards import file_sha256

        self.check_tokenizer(self.tokenizer_path)
        for name in self.sources:
            for split in ("train", "heldout"):
                path = self._file(name, split)
                if not path.is_file() or file_sha256(path) != self._about(name)[split]["sha256"]:
                    raise CorpusError(f"{path}: is not what was built. Remove {self.path} and build again.")

    def _about(self, source: str) -> dict[str, Any]:
        from lawkit.io._patterns import did_you_mean

        try:
            return self.manifest["sources"][source]
        except KeyError:
            raise CorpusError(
                f"{self.path}: there is no source {source!r}; there are {', '.join(map(repr, self.sources))}."
                f"{did_you_mean(source, self.sources)}"
            ) from None

    def _file(self, source: str, split: str) -> Path:
        return self.path / source / f"{split}.bin"

    def _map(self, source: str, split: str) -> np.memmap[Any, Any]:
        count = self._about(source)[split]["tokens"]
        if not count:
            raise CorpusError(
                f"{self.path}: source {source!r} has no {split} tokens. Build with a --holdout above 0 and more text."
            )
        path = self._file(source, split)
        try:
            return np.memmap(path, np.dtype(self.manifest["dtype"]), mode="r", shape=(count,))
        except (OSError, ValueError) as error:
            raise CorpusError(
                f"{path}: cannot be mapped ({error}). Remove {self.path} and build again."
            ) from None

    def __repr__(self) -> str:
        tokens = ", ".join(f"{name} {self.n_tokens(name):,}" for name in self.sources)
        return f"Corpus({str(self.path)!r}: {tokens} tokens)"


def open_corpus(path: str | Path) -> Corpus:
    """Open a corpus.

    Parameters
    ----------
    path : path
        The folder that `build` returned, or the folder that it was built in if that holds no other corpus.

    Returns
    -------
    Corpus
        Nothing is read but its manifest.

    Raises
    ------
    CorpusError
        When there is no corpus or there are several, or its files are not what the manifest says: another
        tokenizer, token files of another size.
    """
    folder = Path(path)
    if not (folder / MANIFEST).is_file():
        inside = sorted(p.parent for p in folder.glob(f"[!.]*/{MANIFEST}")) if folder.is_dir() else []
        if len(inside) != 1:
            what = (
                f"holds {len(inside)} corpora ({', '.join(p.name for p in inside[:5])})"
                if inside
                else "is no corpus"
            )
            raise CorpusError(f"{folder} {what}: name the folder that `lawkit corpus build` printed.")
        folder = inside[0]
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{folder / MANIFEST}: cannot be read ({error}). Build the corpus again.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise CorpusError(
            f"{folder}: has format {found!r} where this lawkit reads {FORMAT}. Build the corpus again."
        )
    try:
        itemgetter("digest", "warnings", "dtype")(manifest)
        itemgetter("vocab_size", "bos", "eos", "sha256")(manifest["tokenizer"])
        for about in manifest["sources"].values():
            for split in ("train", "heldout"):
                itemgetter("tokens", "bytes")(about[split])
    except (KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f"{folder / MANIFEST}: is not what a build writes ({type(error).__name__}: {error}). Build the corpus "
            "again."
        ) from None
    corpus = Corpus(folder, manifest)
    corpus.check_tokenizer(corpus.tokenizer_path)
    item = np.dtype(manifest["dtype"]).itemsize
    for name, about in manifest["sources"].items():
        for split in ("train", "heldout"):
            file = folder / name / f"{split}.bin"
            size = file.stat().st_size if file.is_file() else -1
            if size != about[split]["tokens"] * item:
                raise CorpusError(
                    f"{file}: has {max(size, 0):,} bytes where {about[split]['tokens'] * item:,} were written. Remove "
                    f"{folder} and build again."
                )
    return corpus
