"""Studies on a Ray cluster: the same results as here, though a machine is lost on the way."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_study_live import LIVE

from lawkit.backends.torchtitan.launch import progress
from lawkit.errors import StudyError
from lawkit.study import Store, run_study
from lawkit.study.executors import Train
from lawkit.study.ray_executor import RayExecutor
from needs import need
from simulated_studies import SPEC, command, events, rounds_of, study, wait_for

#: Keeps every port on 127.0.0.1.
LOOPBACK = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
START = SPEC.replace("rounds = 2", "rounds = 0")


class Machines:
    """A cluster in a process of its own; Ray stays out of the tests', whose warnings are errors."""

    def __init__(self, nodes: int, cpus: int, cache: Path) -> None:
        self.cache = cache
        script = Path(__file__).with_name("ray_cluster.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(nodes), str(cpus)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**LOOPBACK, "LAWKIT_CACHE": str(cache)},
        )  # fmt: skip
        self.address = self._told("address ")

    def _told(self, what: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(what):
                return line[len(what) :].strip()
        raise AssertionError("the cluster ended")

    def order(self, what: str) -> None:
        """Kill a machine that is at work, or add one."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self._told("done")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=60)
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    need("ray")
    cluster = Machines(3, 1, tmp_path_factory.mktemp("cache"))
    yield cluster
    cluster.close()


def on(machines: Machines, text: str, more: str = "") -> str:
    return f'executor = {{name = "ray", address = "{machines.address}"{more}}}\n' + text


def test_an_address_that_refuses_is_one_message(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = f'executor = {{name = "ray", address = "127.0.0.1:{port}"}}\n' + SPEC
    with pytest.raises(
        StudyError, match=rf"executor: no Ray cluster answers at 127.0.0.1:{port} \(.*refused\)"
    ) as no:
        run_study(study(tmp_path, text))
    assert "\n" not in str(no.value)
    with pytest.raises(StudyError, match="address is 'here': write host:port"):
        run_study(study(tmp_path, text.replace(f"127.0.0.1:{port}", "here")))


def recorded(folder: Path) -> tuple[Path, str]:
    """What `ray start` leaves where its cluster is killed, and the address in it, where nothing answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    record = folder / "ray" / "ray_current_cluster"
    record.parent.mkdir()
    record.write_text(address)
    return record, address


def test_a_cluster_that_left_its_record_and_is_gone_is_said_at_once(tmp_path, monkeypatch):
    record, address = recorded(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    text = 'executor = {name = "ray", address = "auto"}\n' + SPEC
    with pytest.raises(StudyError, match=rf"no Ray cluster answers at {address}, which {record} names \("):
        run_study(study(tmp_path / "study", text))


def test_what_answers_and_is_no_cluster_is_said_at_once(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{other.server_address[1]}"
        text = f'executor = {{name = "ray", address = "{address}"}}\n' + SPEC
        with pytest.raises(StudyError, match=f"executor: what answers at {address} is no Ray cluster"):
            run_study(study(tmp_path, text))
        other.shutdown()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('name = "ray", adress = "here"', r"executor.adress is unknown; did you mean address\?"),
        ('name = "local", gpus = 3', r"executor.gpus is unknown; there are no options \(executor local\)"),
        ('name = "ray", address = 3', "executor.address is 3: it must be text, or left out"),
        ('name = "ray", storage = ""', "executor: storage is '': it must be text"),
        ('name = "ray", gpus = "x"', "executor.gpus is 'x': it must be a number, or left out"),
        ('name = "ray", gpus = -1', "executor: gpus is -1: it must be a number of 0 or more"),
        ('name = "ray", cpus = 0', "executor: cpus is 0: it must be a number above 0"),
    ],
)
def test_options_that_make_no_sense_are_named(tmp_path, options, message):
    with pytest.raises(StudyError, match=message):
        run_study(study(tmp_path, f"executor = {{{options}}}\n" + SPEC))


def test_a_missing_ray_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StudyError, match=r"ray is not installed here: pip install 'lawkit\[ray\]'"):
        RayExecutor(Train(), None)


@pytest.mark.slow
def test_without_an_address_a_cluster_is_started_whatever_was_there_before(tmp_path):
    need("ray")
    here, there = study(tmp_path / "here", START), study(tmp_path / "there", "executor = 'ray'\n" + START)
    run_study(here)
    with tempfile.TemporaryDirectory() as short:  # the names of Ray's sockets may not be long
        recorded(Path(short))
        done = subprocess.run(
            command(there), env={**LOOPBACK, "RAY_TMPDIR": short}, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rounds_of(there) == rounds_of(here)


@pytest.mark.slow
def test_with_a_place_instead_of_a_shared_disk_a_trained_run_is_the_same(
    machines, small_corpus, tmp_path, torchtitan
):
    text = f"""corpus = "{small_corpus}"
[recipe]
seq_len = 32
batch_rows = 8
eval_rows = 16
log_every = 1
[[grid]]
sizes = [{{dim = 16, n_layers = 1, n_heads = 1}}]
tokens = [5120]
mixtures = [{{prose = 0.3, code = 0.7}}]
"""
    here = study(tmp_path / "here", text)
    there = study(tmp_path / "there", on(machines, text, f', storage = "file://{tmp_path}/place"'))
    run_study(here)
    done = subprocess.run(command(there), env=LOOPBACK, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (there / "runs.csv").read_bytes() == (here / "runs.csv").read_bytes()
    assert list((tmp_path / "place" / "corpora").glob("*.whole"))
    assert [path.suffix for path in machines.cache.glob("corpora/*") if path.is_dir()] == [""]
    # Its records came back; its checkpoints did not stay.
    assert list(there.glob("runs/*/records.jsonl"))
    assert not list(tmp_path.glob("place/runs/*/checkpoint/*/*"))


@pytest.mark.slow
def test_a_machine_lost_while_it_trains_changes_nothing(machines, small_corpus, tmp_path, torchtitan):
    text = LIVE.replace("{corpus}", str(small_corpus)).replace("rounds = 1", "rounds = 0")
    text = text.replace("start = 8", 'start = 4\nlaws = ["transfer-plain"]').replace(
        "[5120, 10240]", "[614400]"
    )
    text = text.replace("log_every = 1", "log_every = 20").replace(
        "checkpoint_every = 5", "checkpoint_every = 40"
    )
    here = study(tmp_path / "here", text)
    there = study(tmp_path / "there", on(machines, text.replace("workers = 2", "")))
    run_study(here)
    process = subprocess.Popen(command(there), env=LOOPBACK, stderr=subprocess.PIPE, text=True)
    try:
        # Three of the four have been trained for a while, and not to their end, one on each machine.
        wait_for(lambda: sum(step >= 60 for step in steps(there)) == 3)
        machines.order("kill")
    finally:
        _, told = process.communicate(timeout=600)
        machines.order("add")
    assert process.returncode == 0, told
    rows = ended_alike(there, here)
    # It went on from its last checkpoint.
    (lost,) = (row["run_id"] for row in rows if row["failures"])
    started = [
        json.loads(line) for line in (there / "runs" / lost / "records.jsonl").read_text().splitlines()
    ]
    assert [record["step"] for record in started if record["kind"] == "start"][-1] >= 40
    assert [record["kind"] for record in started].count("done") == 1


def steps(folder: Path) -> list[int]:
    """How far the runs of a study are."""
    found = [progress(home) for home in folder.glob("runs/*")]
    return [record["step"] for record in found if record and record["step"] < record["steps"]]


def ended_alike(there: Path, here: Path) -> list[dict[str, Any]]:
    """The runs of a study that lost one to a lost machine, and decided as the other, which lost none."""
    assert rounds_of(there) == rounds_of(here)
    assert (there / "runs.csv").read_bytes() == (here / "runs.csv").read_bytes()
    with Store(there) as store:
        rows = store.rows()
    assert {row["state"] for row in rows} == {"done"}
    assert sum(row["failures"] for row in rows) == 1
    return rows


@pytest.mark.slow
def test_a_lost_machine_changes_nothing(machines, tmp_path):
    """Last, since the cluster has fewer machines afterwards."""
    here = study(tmp_path / "here", START)
    there = study(tmp_path / "there", on(machines, START), more="seconds = 5")
    run_study(here)
    process = subprocess.Popen(command(there), env=LOOPBACK, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: events(there) >= 7)
    time.sleep(1.5)  # Runs that were nearly done are done then, and the next ones are not.
    machines.order("kill")
    _, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    # The run on that machine was lost with it, and done again.
    ended_alike(there, here)
    assert "(lost): its machine was lost" in " ".join(told.split())
