"""One build: the sources are read twice, once to choose what is held out, once to encode what is not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lawkit.corpus import _tokenizer
from lawkit.corpus._cuts import LONGEST, cuts
from lawkit.corpus._documents import Document, documents
from lawkit.corpus._encode import Encoder
from lawkit.corpus._near import BATCH_BYTES, BATCH_DOCUMENTS, NearDuplicates
from lawkit.corpus._options import Options, SourceFile
from lawkit.corpus._progress import Progress, Ticks
from lawkit.corpus._scan import Scan, document_hash, scan
from lawkit.corpus._shards import JOURNAL, TokenFile
from lawkit.corpus.reader import FORMAT, MANIFEST, TOKENIZER, content_digest
from lawkit.errors import CorpusError
from lawkit.io._write import replace_file

__all__ = ["Job"]

#: Text between two commits: what a killed build does again at most.
_COMMIT = 32 << 20
#: Text of each source on which the quick encoder is compared with the library.
_CHECKED = 128 << 10
_SOURCE_MANIFEST = "manifest.json"


class Job:
    """One build in its working folder."""

    def __init__(
        self,
        work: Path,
        files: dict[str, list[SourceFile]],
        hashes: dict[str, list[str]],
        options: Options,
        tell: Callable[[Progress], None],
        warnings: list[str],
    ) -> None:
        self.work, self.files, self.hashes, self.options = work, files, hashes, options
        self.tell, self.warnings = tell, warnings

    def run(self, given: Path | None, marks: tuple[int, int] | None) -> None:
        """Build, or go on from what a killed build finished; the folder is then ready to be renamed.

        Raises
        ------
        CorpusError, OSError
            When text cannot be read or tokens cannot be written; what was finished stays.
        """
        for half_written in self.work.rglob(".*.part"):
            half_written.unlink()
        scans = self._scan(train=given is None)
        tokenizer = self._tokenizer(given, scans)
        path = self.work / TOKENIZER
        begin, end = marks or _tokenizer.special_ids(tokenizer, path)
        vocab_size = _tokenizer.vocabulary(tokenizer)
        self.dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self.begin, self.end = (np.array(m, self.dtype) for m in ([begin] if begin != end else [], [end]))
        self.encoder = Encoder(tokenizer, self.dtype)
        self._check_space(self._try_encoder(scans, tokenizer), scans)
        near = NearDuplicates(raw for found in scans.values() for raw in found.heldout.values())
        manifest = {
            "format": FORMAT,
            "dtype": self.dtype.str,
            "options": self.options.as_dict(),
            "tokenizer": {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "vocab_size": vocab_size,
                "bos": begin,
                "eos": end,
                "trained": given is None,
            },
            "sources": self._encode(scans, near),
            "warnings": self.warnings,
        }
        manifest["digest"] = content_digest(manifest)
        _write_json(manifest, self.work / MANIFEST)

    def _scan(self, train: bool) -> dict[str, Scan]:
        share = self.options.sample_bytes // len(self.files) if train else _CHECKED
        known = all(file.kind == "text" and not file.compression for f in self.files.values() for file in f)
        total = sum(file.n_bytes for f in self.files.values() for file in f) if known else None
        done = 0
        scans = {}
        for name, files in self.files.items():
            ticks = Ticks(self.tell, "scan", name, done, total)
            found = scan(
                documents(files, self.options),
                self.options,
                most_heldout=self.options.max_heldout_bytes,
                most_sample=share,
                advance=ticks.advance,
            )
            done += found.n_bytes
            if not found.n_documents:
                raise CorpusError(f"source {name!r} has no text: its documents are all empty or white space.")
            if self.options.holdout and not found.heldout:
                raise CorpusError(
                    f"source {name!r} has one document only, of which none can be held out. Give more files, or say "
                    "what stands between documents with --document-separator; --holdout 0 holds nothing out."
                )
            if self.options.holdout:
                self._judge(name, found)
            scans[name] = found
        return scans

    def _judge(self, name: str, found: Scan) -> None:
        part, n = sum(map(len, found.heldout.values())) / found.n_bytes, len(found.heldout)
        if n == 1 or part > 3 * self.options.holdout:
            self.warnings.append(
                f"source {name!r}: {n} of {found.n_documents} documents, {part:.1%} of the text, "
                f"{'is' if n == 1 else 'are'} held out where {self.options.holdout:.1%} was asked for; more or shorter "
                "documents (--document-separator) come closer"
            )

    def _judge_removed(self, name: str, manifest: dict[str, Any]) -> None:
        n, n_bytes = (manifest["removed"][key] for key in ("near_duplicates", "near_duplicate_bytes"))
        part = n_bytes / manifest["bytes"]
        if part > 0.1:
            self.warnings.append(
                f"source {name!r}: {n} of {manifest['documents']} documents, {part:.0%} of the text, repeat held-out "
                "ones and are left out of training; the source repeats itself, a smaller --holdout leaves more of it"
            )

    def _tokenizer(self, given: Path | None, scans: dict[str, Scan]) -> Any:
        path = self.work / TOKENIZER
        if not path.is_file():
            if given is not None:
                replace_file(given.read_bytes(), path)
            else:
                self.tell(Progress("tokenizer", "", 0, None))
                texts = [raw.decode(errors="ignore") for found in scans.values() for raw in found.sample]
                trained = _tokenizer.train_tokenizer(texts, self.options.vocab_size)
                replace_file(trained.to_str().encode(), path)
        tokenizer = _tokenizer.load_tokenizer(path)
        if given is None and _tokenizer.vocabulary(tokenizer) < self.options.vocab_size:
            self.warnings.append(
                f"the sources gave a tokenizer of {_tokenizer.vocabulary(tokenizer)} tokens where "
                f"{self.options.vocab_size} were asked for: there is too little text"
            )
        return tokenizer

    def _try_encoder(self, scans: dict[str, Scan], tokenizer: Any) -> float:
        """Compare the encoder with the library on some text of every source, and return tokens per byte."""
        n_bytes = n_tokens = 0
        lossy = []
        for name, found in scans.items():
            sample, size = [], 0
            for raw in (*found.sample, *found.heldout.values()):
                sample.append(raw[:_CHECKED].decode(errors="ignore"))
                size += len(raw[:_CHECKED])
                if size >= _CHECKED:
                    break
            self.encoder.check(sample)
            ids = [self.encoder(text) for text in sample]
            n_bytes += size
            n_tokens += sum(map(len, ids))
            if any(tokenizer.decode(i.tolist()) != text for i, text in zip(ids, sample, strict=True)):
                lossy.append(name)
        if lossy:
            self.warnings.append(
                f"the tokenizer does not give the text of {', '.join(map(repr, lossy))} back from its tokens, so "
                "losses per byte are of less than the text; a byte-level tokenizer loses nothing"
            )
        return n_tokens / max(n_bytes, 1)

    def _check_space(self, tokens_per_byte: float, scans: dict[str, Scan]) -> None:
        """Refuse a disk on which the tokens will not find room."""
        text = sum(found.n_bytes for found in scans.values())
        have = sum(p.stat().st_size for p in self.work.glob("*/*.bin"))
        need = int(0.9 * text * tokens_per_byte * self.dtype.itemsize) - have
        free = shutil.disk_usage(self.work).free
        if need > free:
            raise CorpusError(
                f"{self.work.parent}: about {need / 1e6:,.0f} MB of tokens are still to be written and "
                f"{free / 1e6:,.0f} MB are free. Free some, or choose another folder."
            )

    def _encode(self, scans: dict[str, Scan], near: NearDuplicates) -> dict[str, Any]:
        total, done = sum(found.n_bytes for found in scans.values()), 0
        manifests = {}
        for name, found in scans.items():
            folder = self.work / name
            folder.mkdir(exist_ok=True)
            finished = folder / _SOURCE_MANIFEST
            if finished.is_file():
                manifests[name] = json.loads(finished.read_text(encoding="utf-8"))
            else:
                ticks = Ticks(self.tell, "encode", name, done, total)
                (folder / "heldout.bin").unlink(missing_ok=True)
                with (
                    TokenFile(folder / "heldout.bin", self.dtype) as heldout,
                    TokenFile(folder / "train.bin", self.dtype) as train,
                ):
                    for raw in found.heldout.values():
                        self._append(heldout, Document(raw, raw.decode()))
                    self._write_train(train, name, found, near, ticks)
                    manifests[name] = self._manifest(name, found, heldout, train)
                _write_json(manifests[name], finished)
            self._judge_removed(name, manifests[name])
            for journal in folder.glob(f"*{JOURNAL}"):
                journal.unlink()
            done += found.n_bytes
        return manifests

    def _write_train(
        self, file: TokenFile, name: str, found: Scan, near: NearDuplicates, ticks: Ticks
    ) -> None:
        done, waiting = file.done, 0
        unread = islice(documents(self.files[name], self.options), done.n_read, None)
        ticks.advance(done.bytes_read)
        for batch in _batches(unread):
            repeated = near.repeated([document.raw for document in batch])
            for document, repeats in zip(batch, repeated, strict=True):
                done.n_read += 1
                done.bytes_read += len(document.raw)
                if document_hash(document.raw, self.options.seed) in found.heldout:
                    done.n_heldout += 1
                elif repeats:
                    done.n_near += 1
                    done.near_bytes += len(document.raw)
                else:
                    self._append(file, document)
                waiting += len(document.raw)
                ticks.advance(len(document.raw))
            if waiting >= _COMMIT:
                file.commit()
                waiting = 0
        for source in self.files[name]:
            source.unchanged()
        if not done.n_tokens:
            raise CorpusError(
                f"source {name!r}: nothing is left to train on. Of {found.n_documents} documents {done.n_heldout} "
                f"are held out and {done.n_near} repeat a held-out one. Give more text, or a smaller --holdout."
            )

    def _append(self, file: TokenFile, document: Document) -> None:
        raw, text = document
        texts = [text] if len(raw) <= LONGEST else [piece.decode() for piece in cuts(raw, LONGEST)]
        ids = np.concatenate([self.begin, *map(self.encoder, texts), self.end])
        file.append(ids)
        file.done.n_documents += 1
        file.done.n_tokens += len(ids)
        file.done.n_bytes += len(raw)

    def _manifest(self, name: str, found: Scan, heldout: TokenFile, train: TokenFile) -> dict[str, Any]:
        return {
            "files": [
                {"path": _readable(file.path.resolve()), "bytes": file.n_bytes, "sha256": digest}
                for file, digest in zip(self.files[name], self.hashes[name], strict=True)
            ],
            "documents": found.n_documents,
            "bytes": found.n_bytes,
            "train": train.finish(),
            "heldout": heldout.finish(),
            "removed": {
                "near_duplicates": train.done.n_near,
                "near_duplicate_bytes": train.done.near_bytes,
                "copies_of_heldout": max(train.done.n_heldout - heldout.done.n_documents, 0),
            },
        }


def _batches(found: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents by the batch in which near-duplicates are looked for."""
    batch: list[Document] = []
    size = 0
    for document in found:
        if batch and (size + len(document.raw) > BATCH_BYTES or len(batch) == BATCH_DOCUMENTS):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document.raw)
    if batch:
        yield batch


def _readable(path: Path) -> str:
    """The path as text; a name may be of bytes that are no UTF-8, which JSON cannot hold."""
    return os.fsencode(path).decode(errors="replace")


def _write_json(value: dict[str, Any], path: Path) -> None:
    replace_file((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode(), path)
