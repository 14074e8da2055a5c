"""`lawkit datasets`, against a server of our own: nothing here needs the network."""

from __future__ import annotations

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lawkit.cli import main
from lawkit.errors import RunsError
from lawkit.io import _registry, datasets
from lawkit.io._registry import Dataset, DatasetFile
from lawkit.io._reshape import RESHAPERS

CONTENT = b"n_tokens,loss_x\n1e9,3\n2e9,2\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TOY = Dataset("toy", "two runs", "someone/tables", "abc123", "MIT",
              (DatasetFile("runs.csv", "data/runs.csv", SHA256),), "lawkit runs check runs.csv")  # fmt: skip


class _Quiet(SimpleHTTPRequestHandler):
    requests: list[str] = []  # noqa: RUF012

    def log_message(self, format, *args):
        self.requests.append(self.path)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Serve someone/tables at abc123; return the address and the folder that is served."""
    served = tmp_path / "served"
    home = served / "someone" / "tables" / "abc123" / "data"
    home.mkdir(parents=True)
    (home / "runs.csv").write_bytes(CONTENT)
    monkeypatch.setattr(datasets, "DATASETS", (TOY,))
    monkeypatch.setenv("LAWKIT_DATASETS", str(tmp_path / "cache"))
    _Quiet.requests.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", home
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_fetches_once_and_keeps(mirror, tmp_path, capsys):
    url, _ = mirror
    assert main(["datasets", "fetch", "toy", "--mirror", url, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    path = tmp_path / "cache" / "toy" / "runs.csv"
    assert printed["files"] == [str(path)]
    assert path.read_bytes() == CONTENT
    assert len(_Quiet.requests) == 1
    assert main(["datasets", "fetch", "toy", "--mirror", url]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert len(_Quiet.requests) == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["runs.csv"]


def test_wrong_content_is_not_kept(mirror, tmp_path):
    url, home = mirror
    (home / "runs.csv").write_bytes(CONTENT + b"3e9,1\n")
    with pytest.raises(RunsError, match=r"not the published table.*Nothing was written"):
        datasets.fetch_dataset("toy", mirror=url)
    assert not (tmp_path / "cache").exists()


def test_a_file_of_the_users_is_not_overwritten(mirror, tmp_path):
    url, _ = mirror
    mine = tmp_path / "cache" / "toy" / "runs.csv"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(RunsError, match=r"exists with another content.*--force"):
        datasets.fetch_dataset("toy", mirror=url)
    assert mine.read_bytes() == b"mine"
    datasets.fetch_dataset("toy", mirror=url, force=True)
    assert mine.read_bytes() == CONTENT


def test_without_network_or_file(mirror, tmp_path, capsys):
    url, home = mirror
    (home / "runs.csv").unlink()
    assert main(["datasets", "fetch", "toy", "--mirror", url]) == 1
    message = capsys.readouterr().err
    assert "HTTP 404" in message
    assert f"put the file at {tmp_path / 'cache' / 'toy' / 'runs.csv'} yourself" in message
    with pytest.raises(RunsError, match=r"cannot be fetched.*Check the network"):
        datasets.fetch_dataset("toy", mirror="http://127.0.0.1:1")
    with pytest.raises(RunsError, match="http or https address"):
        datasets.fetch_dataset("toy", mirror="file:///etc")
    with pytest.raises(RunsError, match="unknown dataset 'toys'; there are toy"):
        datasets.fetch_dataset("toys")


def test_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LAWKIT_DATASETS", str(tmp_path))
    assert datasets.datasets_folder() == tmp_path
    monkeypatch.delenv("LAWKIT_DATASETS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.datasets_folder() == tmp_path / "lawkit" / "datasets"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.datasets_folder() == tmp_path / ".cache" / "lawkit" / "datasets"


def test_list(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LAWKIT_DATASETS", str(tmp_path))
    assert main(["datasets", "list", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["datasets"]
    assert [d["name"] for d in printed] == [d.name for d in _registry.DATASETS]
    assert not any(d["here"] for d in printed)
    assert all(url.startswith("https://raw.githubusercontent.com/") for d in printed for url in d["urls"])
    assert main(["datasets"]) == 0
    assert "slimpajama7" in capsys.readouterr().out
    assert main(["datasets", "fetch", "datablations"]) == 1
    assert "no published file to fetch" in capsys.readouterr().err


def test_the_registry_is_well_formed():
    for dataset in _registry.DATASETS:
        names = [file.name for file in dataset.files]
        assert len(set(names)) == len(names)
        for file in dataset.files:
            assert len(file.sha256) == 64
            assert file.reshape is None or file.reshape in RESHAPERS
            assert file.path.endswith(file.name) or file.reshape


def test_checksums_are_those_of_the_tables(datasets, monkeypatch):
    from lawkit.io.datasets import fetch_dataset

    monkeypatch.setenv("LAWKIT_DATASETS", str(datasets))
    for dataset in _registry.DATASETS:
        if dataset.files:  # all here and right, so the address, where nothing listens, is never asked
            assert fetch_dataset(dataset.name, mirror="http://127.0.0.1:1") == datasets / dataset.name


def test_reshaping_gives_the_tables(datasets):
    """Files in the shape of the published ones, rebuilt from the tables, become the tables byte for byte."""
    table = (datasets / "slimpajama7" / "runs_122M_310M.csv").read_bytes()
    header, *rows = table.splitlines(keepends=True)
    larger = rows[5].replace(b"122000000.0", b"1220000000.0")
    assert RESHAPERS["slimpajama7"](b"".join([header, larger, *rows, larger]), "t") == table

    table = (datasets / "pile4" / "runs_90M_200M.csv").read_bytes()
    raw: dict[tuple, float | None] = {("440M", "8B", 1, "Github_text_document"): 1.0}
    mixtures = {}
    names = ["Github", "Gutenberg", "StackExchange", "Wikipedia"]
    for line in reversed(table.decode().splitlines()[1:]):
        cells = line.split(",")
        size, tokens, mixture = f"{float(cells[0]) / 1e6:g}M", f"{float(cells[1]) / 1e9:g}B", int(cells[2])
        mixtures[mixture] = tuple(map(float, cells[3:7]))
        for name, loss in zip(names, cells[7:], strict=True):
            raw[size, tokens, mixture, f"{name}_text_document"] = float(loss) if loss else None
    source = f"import numpy as np\nraw={raw!r}\nh={mixtures!r}\nh_data=[]\nh_data.append(h[1])\n"
    assert RESHAPERS["pile4"](source.encode(), "t") == table


@pytest.mark.parametrize("name", sorted(RESHAPERS))
@pytest.mark.parametrize(
    "content",
    [b"", b"<html>not found</html>", b"raw = open('x')\nh = {}\n", b"raw = 1\nh = 2\n", b"\x00\xff"],
)
def test_reshaping_refuses_other_files_and_runs_nothing(name, content):
    with pytest.raises(RunsError, match="Nothing was written"):
        RESHAPERS[name](content, "t")
