"""A folder of generated text: its settings, one process at a time, and its shards with what is known of them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lawkit.errors import GeneratorError
from lawkit.io._write import replace_file

__all__ = [
    "SETTINGS",
    "alone",
    "check_settings",
    "read_settings",
    "read_shard",
    "shards",
    "text_file",
    "write_shard",
    "writing",
]

#: What decides every record of the folder.
SETTINGS = "generated.json"
#: Raised when an older lawkit could not read the files.
FORMAT = 1


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system refuses into a message that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise GeneratorError(
                f"{folder}: the disk is full ({reason}). What was written is kept: free some space and run again, it "
                "goes on from there."
            ) from None
        raise GeneratorError(
            f"{error.filename or folder}: cannot be written ({reason}). Choose a folder you may write to."
        ) from None


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder; the lock goes with this process, however it ends.

    Raises
    ------
    GeneratorError
        When another process holds it.
    """
    from lawkit.corpus._lock import _try_lock

    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _try_lock(handle):
            raise GeneratorError(f"{folder}: another process generates into it: wait for it or stop it.")
        yield
    finally:
        os.close(handle)


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a new folder; compare those of one that is gone on with.

    Raises
    ------
    GeneratorError
        When the folder was made with others: its records would not be of one kind.
    """
    path = folder / SETTINGS
    settings = {"format": FORMAT, **settings}
    if not path.is_file():
        replace_file((json.dumps(settings, indent=1) + "\n").encode(), path)
        return
    found = read_settings(folder)
    for name, value in settings.items():
        if found.get(name) != value and name != "n_params":
            raise GeneratorError(
                f"{folder} was generated with {name} {found.get(name)!r}, not {value!r}: name another folder, or "
                "use the same settings to go on."
            )


def read_settings(folder: Path) -> dict[str, Any]:
    """What a folder was generated with.

    Raises
    ------
    GeneratorError
        When it is no such folder.
    """
    path = folder / SETTINGS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GeneratorError(f"{folder} holds no generated text: it has no {SETTINGS}.") from None
    except (OSError, ValueError) as error:
        raise GeneratorError(f"{path}: cannot be read ({error}).") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise GeneratorError(f"{path}: is of another version of lawkit.")
    return found


def text_file(folder: Path, index: int) -> Path:
    """The shard's texts, which are training data."""
    return folder / f"{index:05d}.jsonl"


def write_shard(
    folder: Path, index: int, records: Sequence[dict[str, Any]], about: dict[str, Any]
) -> dict[str, Any]:
    """Write a shard's texts, then what is known of them; only with the second does the shard count.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    about = {**about, "sha256": hashlib.sha256(content).hexdigest()}
    replace_file(content, text_file(folder, index))
    replace_file(
        (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode(), _about_file(folder, index)
    )
    return about


def read_shard(folder: Path, index: int) -> dict[str, Any] | None:
    """What is known of a finished shard; None where it is not finished, or its texts are gone."""
    try:
        about = json.loads(_about_file(folder, index).read_text(encoding="utf-8"))
        if "documents_sha256" not in about:
            raise ValueError("it is no record of a shard")
        return about if text_file(folder, index).is_file() else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise GeneratorError(
            f"{_about_file(folder, index)}: cannot be read ({error}). Remove it: its shard is then made again from "
            "the answers that are kept."
        ) from None


def shards(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The finished shards in their order."""
    for index in sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()):
        about = read_shard(folder, index)
        if about is not None:
            yield index, about


def _about_file(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.json"
