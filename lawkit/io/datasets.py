"""Public runs tables, fetched and kept.

lawkit ships none of them. They come from their authors' repositories at a fixed commit, are checked against a
SHA-256 and kept in a cache folder, which the environment variable LAWKIT_DATASETS overrides.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from lawkit.errors import RunsError
from lawkit.io._registry import DATASETS, PUBLIC, Dataset, DatasetFile
from lawkit.io._reshape import RESHAPERS
from lawkit.io._write import write_bytes

__all__ = ["DATASETS", "PUBLIC", "datasets_folder", "fetch_dataset", "find_dataset", "missing_files"]

_MOST_BYTES = 64 * 1024 * 1024
_TIMEOUT_S = 30.0


def datasets_folder() -> Path:
    """Return the folder of the datasets: LAWKIT_DATASETS, else lawkit/datasets in the user's cache folder."""
    named = os.environ.get("LAWKIT_DATASETS")
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "lawkit" / "datasets"


def find_dataset(name: str) -> Dataset:
    """Return the dataset of a name.

    Raises
    ------
    RunsError
        When there is none of that name.
    """
    for dataset in DATASETS:
        if dataset.name == name:
            return dataset
    raise RunsError(f"unknown dataset {name!r}; there are {', '.join(dataset.name for dataset in DATASETS)}.")


def missing_files(dataset: Dataset) -> list[DatasetFile]:
    """Return the files of a dataset that are not in its folder."""
    folder = datasets_folder() / dataset.name
    return [file for file in dataset.files if not (folder / file.name).is_file()]


def fetch_dataset(name: str, *, mirror: str = PUBLIC, force: bool = False) -> Path:
    """Bring a dataset's files to its folder; files that are there and right are not fetched again.

    Parameters
    ----------
    name : str
        One of :data:`DATASETS`.
    mirror : str
        Where repositories are served, as <mirror>/<owner>/<repository>/<commit>/<path>.
    force : bool
        Replace files in the folder whose content is another.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    RunsError
        When a file cannot be fetched or written, its content is not what was published, or the folder has a
        different file of that name. Files that are there stay.
    """
    dataset = find_dataset(name)
    folder = datasets_folder() / dataset.name
    if not dataset.files:
        raise RunsError(
            f"{name} has no published file to fetch: {dataset.about}. Collect it from "
            f"https://github.com/{dataset.repository} (commit {dataset.commit}) into {folder}."
        )
    for file in dataset.files:
        target = folder / file.name
        if target.is_file():
            if _sha256(_read(target)) == file.sha256:
                continue
            if not force:
                raise RunsError(
                    f"{target} exists with another content than the published table. Move it away, or use "
                    "--force to replace it."
                )
        url = dataset.url(file, mirror)
        content = _download(url, target)
        if file.reshape:
            content = RESHAPERS[file.reshape](content, url)
        if _sha256(content) != file.sha256:
            raise RunsError(
                f"{url}: what came is not the published table (SHA-256 {_sha256(content)[:12]}... where "
                f"{file.sha256[:12]}... is expected). Nothing was written; check the address and "
                "the network's proxy."
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunsError(
                f"{target.parent}: cannot be made ({error.strerror}). "
                "Set LAWKIT_DATASETS to a writable folder."
            ) from None
        write_bytes(content, target)
    return folder


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunsError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _download(url: str, target: Path) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise RunsError(f"{url}: a mirror must be an http or https address.")
    request = urllib.request.Request(url, headers={"User-Agent": "lawkit"})
    by_hand = f"Check the network, or put the file at {target} yourself."
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            content = response.read(_MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise RunsError(
                f"{url}: cannot be fetched (HTTP {error.code} {error.reason}). {by_hand}"
            ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise RunsError(f"{url}: cannot be fetched ({reason}). {by_hand}") from None
    except http.client.HTTPException as error:
        raise RunsError(f"{url}: the answer broke off ({error!r}). {by_hand}") from None
    if len(content) > _MOST_BYTES:
        raise RunsError(f"{url}: is larger than {_MOST_BYTES >> 20} MB, which no table here is. {by_hand}")
    return content
