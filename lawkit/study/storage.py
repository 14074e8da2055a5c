"""Corpus and runs of a study in a place that every machine reaches, where they share no disk.

Names are fsspec's: s3://bucket/study, gs://bucket/study, file:///mnt/study. The corpus is carried there once and to
each machine once. A run's records and finished checkpoints follow it while it is done, so that another machine can go
on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lawkit.backends.torchtitan.launch import Outcome
from lawkit.backends.torchtitan.records import LOG, RECORDS, SPEC
from lawkit.errors import StudyError
from lawkit.io._urls import without_credentials
from lawkit.study.executors import Work

#: Seconds between two copies of what a run has written.
_EVERY_S = 20.0
#: The file that makes a checkpoint whole: it is copied last, and removed first.
_WHOLE = ".metadata"


class Storage:
    """A place named by an fsspec URL.

    Raises
    ------
    StudyError
        When fsspec, or what it needs for that kind of place, is not installed, or the place cannot be written to.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._fs, self._root = _open(self.url)
            self._fs.makedirs(f"{self._root}/runs", exist_ok=True)
        except ImportError as error:
            raise StudyError(
                f"storage is {without_credentials(url)!r}, which needs a package that is not installed: {error}"
            ) from None
        except (OSError, ValueError) as error:
            raise StudyError(
                f"storage is {without_credentials(url)!r}, which cannot be used: {error}"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.url,)

    # ---- where the study is --------------------------------------------------------------------------------

    def offer(self, folder: Path) -> None:
        """Carry what a machine needs for the run of a folder there."""
        spec = json.loads((folder / SPEC).read_text(encoding="utf-8"))
        if "corpus" in spec:
            there = self._corpus(spec)
            # The mark comes last: a corpus without it is half a corpus.
            if not self._fs.exists(f"{there}.whole"):
                for path in _files(Path(spec["corpus"])):
                    self._put(path, f"{there}/{path.relative_to(spec['corpus']).as_posix()}")
                self._fs.pipe_file(f"{there}.whole", b"")
        self._put(folder / SPEC, f"{self._run(folder)}/{SPEC}")

    def take_back(self, folder: Path) -> None:
        """Bring the records of a run that has ended into its folder."""
        for name in (RECORDS, LOG):
            if self._fs.exists(f"{self._run(folder)}/{name}"):
                self._fs.get_file(f"{self._run(folder)}/{name}", str(folder / name))

    # ---- where the run is ----------------------------------------------------------------------------------

    def do(self, work: Work, folder: Path) -> Outcome:
        """Do a run on this machine, from where it was left on another."""
        with tempfile.TemporaryDirectory(prefix="lawkit-") as scratch:
            home = Path(scratch) / folder.name
            for name in self._fs.find(self._run(folder)):
                local = home / name[len(self._run(folder)) :].lstrip("/")
                local.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(name, str(local))
            spec = json.loads((home / SPEC).read_text(encoding="utf-8"))
            if "corpus" in spec:
                spec["corpus"] = str(self._fetched(spec))
                (home / SPEC).write_text(json.dumps(spec), encoding="utf-8")
            with self._followed(home):
                found = work.do(home)
            self._follow(home)
            return replace(found, folder=folder)

    @contextlib.contextmanager
    def _followed(self, home: Path) -> Iterator[None]:
        """Copy what a run writes now and then, while it is done."""
        over = threading.Event()

        def follow() -> None:
            while not over.wait(_EVERY_S):
                # The next copy may succeed; without any the run would only begin anew elsewhere.
                with contextlib.suppress(OSError):
                    self._follow(home)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _follow(self, home: Path) -> None:
        there = self._run(home)
        here = {path.relative_to(home).as_posix(): path for path in _files(home) if path.name != SPEC}
        steps = {name.rpartition("/")[0] for name in here if name.endswith(f"/{_WHOLE}")}
        kept = {name for name in here if "/" not in name or name.rpartition("/")[0] in steps}
        known = {name[len(there) :].lstrip("/"): self._fs.size(name) for name in self._fs.find(there)}
        for name in sorted(set(known) - kept - {SPEC}, key=lambda name: not name.endswith(_WHOLE)):
            self._fs.rm_file(f"{there}/{name}")
        for name in sorted(kept, key=lambda name: name.endswith(_WHOLE)):
            # A file of a whole checkpoint does not change any more.
            if "/" in name and known.get(name) == here[name].stat().st_size:
                continue
            self._put(here[name], f"{there}/{name}")

    def _fetched(self, spec: dict[str, Any]) -> Path:
        """The corpus on this machine; of several runs that want it the first fetches it."""
        import fcntl

        base = Path(os.environ.get("LAWKIT_CACHE", Path.home() / ".cache" / "lawkit")) / "corpora"
        base.mkdir(parents=True, exist_ok=True)
        target, there = base / spec["digest"], self._corpus(spec)
        with (base / f"{spec['digest']}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                part = base / f"{spec['digest']}.part"
                shutil.rmtree(part, ignore_errors=True)
                for name in self._fs.find(there):
                    local = part / name[len(there) :].lstrip("/")
                    local.parent.mkdir(parents=True, exist_ok=True)
                    self._fs.get_file(name, str(local))
                part.rename(target)
        return target

    def _corpus(self, spec: dict[str, Any]) -> str:
        return f"{self._root}/corpora/{spec['digest']}"

    def _run(self, folder: Path) -> str:
        return f"{self._root}/runs/{folder.name}"

    def _put(self, path: Path, there: str) -> None:
        self._fs.makedirs(there.rpartition("/")[0], exist_ok=True)
        self._fs.put_file(str(path), there)


def _open(url: str) -> tuple[Any, str]:
    import fsspec

    fs, root = fsspec.core.url_to_fs(url)
    return fs, root.rstrip("/")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
