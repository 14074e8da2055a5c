"""The backend with the real torchtitan, on models of a few thousand parameters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lawkit import backends
from lawkit.backends import Backend, RunSpec, Torchtitan
from lawkit.backends.torchtitan import find_size, launch, plan, worker
from lawkit.backends.torchtitan.ladder import LAPTOP, LLAMA3_VOCABULARY, PUBLISHED
from lawkit.backends.torchtitan.launch import Pool, outcome
from lawkit.backends.torchtitan.process import PARENT, alone
from lawkit.backends.torchtitan.records import LOG, Records
from lawkit.backends.torchtitan.spec import read_spec, write_spec
from lawkit.corpus import open_corpus
from lawkit.errors import BackendError
from lawkit.runs import read_runs

pytestmark = pytest.mark.usefixtures("torchtitan")

WORKER = [sys.executable, "-m", "lawkit.backends.torchtitan.worker"]
HERE = Path(__file__).parent
TINY = {"dim": 16, "n_layers": 1, "n_heads": 1}
RECIPE = {
    "seq_len": 32,
    "batch_rows": 8,
    "eval_rows": 16,
    "eval_at": [0.5],
    "log_every": 1,
    "checkpoint_every": 10,
}


def specify(corpus: Path, folder: Path, *, n_tokens: float = 40 * 256, **changes) -> Path:
    """Write the specification of a run of 40 small steps."""
    recipe = {**RECIPE, **changes.pop("recipe", {})}
    asked = {"size": TINY, "weights": {"prose": 0.5, "code": 0.5}, "seed": 1, **changes}
    write_spec(plan(open_corpus(corpus), corpus, n_tokens=n_tokens, recipe=recipe, **asked), folder)
    return folder


def train(folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*WORKER, str(folder), *extra], capture_output=True, text=True, timeout=300)


def curve(folder: Path) -> list[float]:
    return [record["loss"] for record in Records(folder).of("train")]


def evaluations(folder: Path) -> list[dict]:
    return Records(folder).of("eval")


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def reached(folder: Path, step: int) -> bool:
    last = Records(folder).last("train")
    return last is not None and last["step"] >= step


@pytest.fixture(scope="module")
def undisturbed(small_corpus, tmp_path_factory, torchtitan) -> Path:
    """A run that nobody killed."""
    folder = specify(small_corpus, tmp_path_factory.mktemp("undisturbed") / "run")
    done = train(folder)
    assert done.returncode == 0, done.stderr
    assert "step 40 of 40  loss" in done.stdout
    assert "tokens/s  0:00 left" in done.stdout
    return folder


@pytest.fixture(scope="module")
def facts(small_corpus, tmp_path_factory, torchtitan) -> dict:
    script, folder = HERE / "torchtitan_facts.py", tmp_path_factory.mktemp("facts")
    command = [sys.executable, str(script), str(small_corpus), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_size_builds_with_the_parameters_that_are_counted(facts):
    for name, counted in facts["counts"].items():
        size = find_size(name)
        assert counted["blocks"] == size.n_params
        assert counted["embedding"] == counted["head"]
    for size in PUBLISHED:
        counted = facts["counts"][size.name]
        assert counted["blocks"] + counted["head"] == size.n_params_with_head(LLAMA3_VOCABULARY)
    assert set(facts["counts"]) == {size.name for size in LAPTOP + PUBLISHED}


def test_flops_are_what_torch_counts(facts):
    assert facts["flops"]["ours"] == facts["flops"]["counted"]


def test_rows_do_not_depend_on_ranks_or_accumulation(facts):
    assert facts["rows"] == {"same": [True, True, True], "resumed": True, "shifted": True}


def test_the_cpu_shim_leaves_a_gpu_alone(facts):
    assert facts["left_alone"]


def test_losses_are_those_of_a_bare_loop(small_corpus):
    script = HERE / "benchmarks" / "bench_torchtitan.py"
    command = [
        sys.executable,
        str(script),
        str(small_corpus),
        "--size",
        "27k",
        "--steps",
        "12",
        "--rows",
        "2",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    losses = json.loads(done.stdout.splitlines()[-1])["losses"]
    assert len(losses["bare"]) == 12
    assert losses["bare"][-1] < losses["bare"][0] - 0.1
    np.testing.assert_allclose(losses["torchtitan"], losses["bare"], rtol=0, atol=1e-5)


def test_a_run_records_what_it_did(undisturbed, small_corpus):
    assert isinstance(Torchtitan(small_corpus, undisturbed), Backend)
    assert backends.get("torchtitan") is Torchtitan
    records, spec, corpus = Records(undisturbed), read_spec(undisturbed), open_corpus(small_corpus)
    assert [record["step"] for record in records.of("train")] == list(range(1, 41))
    half, final = evaluations(undisturbed)
    assert (half["step"], half["is_final"], final["step"], final["is_final"]) == (20, False, 40, True)
    assert set(final["domains"]) == {"prose", "code"}
    for name, domain in final["domains"].items():
        assert domain["loss"] < half["domains"][name]["loss"] < np.log(300) + 0.5
        per_byte = domain["loss"] * corpus.n_heldout_tokens(name) / corpus.heldout_bytes(name)
        assert domain["per_byte"] == pytest.approx(per_byte)
        assert 0 < domain["se"] < 0.2
    done = records.last("done")
    assert done is not None
    assert done["n_tokens"] == 40 * 256
    assert done["flops"] == spec.flops(40)
    assert done["flops_6nd"] == 6 * spec.size.n_params * 40 * 256
    assert sum(source["tokens"] for source in done["sources"].values()) == 40 * 256
    assert done["sources"]["prose"]["unique"] == (corpus.n_tokens("prose") - 1) // 32 * 32
    assert done["cpu_s"] > 0
    # The checkpoints of a finished run are of no more use.
    assert sorted(path.name for path in undisturbed.iterdir()) == ["records.jsonl", "spec.json"]


def test_kill_at_any_step_and_resume_changes_no_bit(undisturbed, small_corpus, tmp_path):
    folder = specify(small_corpus, tmp_path / "run", recipe={"keep_checkpoint": True})
    for step in (5, 23):
        process = subprocess.Popen(
            [*WORKER, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(lambda step=step: reached(folder, step))
        process.kill()
        process.wait()
        assert outcome(folder) is None
    # Half a record, as a kill may leave it.
    with (folder / "records.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    done = train(folder)
    assert done.returncode == 0, done.stderr
    assert curve(folder) == curve(undisturbed)
    assert evaluations(folder) == evaluations(undisturbed)
    starts = [record["step"] for record in Records(folder).of("start")]
    assert starts == [0, 0, 20]
    # A finished run is not trained again.
    assert train(folder).returncode == 0
    assert [record["step"] for record in Records(folder).of("start")] == starts
    # Killed between the last checkpoint and its evaluation, it makes up for it.
    kept = [record for record in Records(folder) if record["kind"] == "train"]
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
    assert train(folder).returncode == 0
    assert evaluations(folder) == evaluations(undisturbed)[1:]


@pytest.mark.slow
def test_two_ranks_by_torchrun_agree_with_one(undisturbed, small_corpus, tmp_path):
    folder = specify(small_corpus, tmp_path / "run")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", *WORKER[1:], str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(curve(folder), curve(undisturbed), rtol=0, atol=1e-5)
    for ours, theirs in zip(evaluations(folder), evaluations(undisturbed), strict=True):
        for name in ("prose", "code"):
            assert ours["domains"][name] == pytest.approx(theirs["domains"][name], abs=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_rank_is_recorded_with_its_step(small_corpus, tmp_path):
    folder = specify(small_corpus, tmp_path / "run", n_tokens=4000 * 256)
    with subprocess.Popen(
        [*WORKER, str(folder), "--ranks", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: reached(folder, 3))
        for path in Path("/proc").glob("[0-9]*"):
            try:
                mine = str(folder) in (path / "cmdline").read_bytes().decode(errors="replace")
                first = b"\0RANK=0\0" in (path / "environ").read_bytes()
            except OSError:
                continue
            if mine and first:
                os.kill(int(path.name), signal.SIGKILL)
        assert process.wait(timeout=120) == 1
    found = outcome(folder, 1)
    assert found is not None
    assert (found.reason, found.again) == ("error", True)
    assert found.message.startswith("a rank failed: ")
    assert found.step >= 3


@pytest.mark.slow
def test_torchtitans_own_command_line_finds_a_run(small_corpus, tmp_path, undisturbed):
    folder = specify(small_corpus, tmp_path / "run", n_tokens=3 * 256)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    command += ["-m", "torchtitan.train", "--module", "lawkit.backends.torchtitan", "--config", "run"]
    environment = {**os.environ, "LAWKIT_RUN": str(folder)}

    def call(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, timeout=300
        )

    other = call("--training.steps", "2")
    assert other.returncode != 0
    assert "training.steps is 2 and the run was specified with 3" in other.stderr
    assert not (folder / "records.jsonl").exists()
    done = call("--metrics.disable_color_printing")
    assert done.returncode == 0, done.stderr
    assert len(curve(folder)) == 3
    assert curve(folder)[0] == curve(undisturbed)[0]


def test_torchtitans_own_command_line_holds_the_folder_and_leaves_a_finished_run_alone(undisturbed, tmp_path):
    (tmp_path / "spec.json").write_bytes((undisturbed / "spec.json").read_bytes())
    code = "from lawkit.backends.torchtitan.config_registry import run; run(); run(); input('held')"
    environment = {**os.environ, "LAWKIT_RUN": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == "held"
        with (
            pytest.raises(BackendError, match="another process trains this run"),
            alone(tmp_path, patience=0),
        ):
            pass
        process.communicate("\n", timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "LAWKIT_RUN": str(undisturbed)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "this run is done; remove its records.jsonl" in done.stderr


def test_specifications_become_a_runs_table(small_corpus, tmp_path):
    shape = find_size("27k")
    world = Torchtitan(small_corpus, tmp_path, workers=1, recipe={**RECIPE, "batch_rows": 2, "eval_at": []})
    asked = [
        RunSpec(n_params=27e3, n_tokens=640, weights={"prose": 1.0}, seed=3),
        RunSpec(n_params=27e3, n_tokens=640, weights={"prose": 1.0}, seed=3),
    ]
    runs = world.run(asked)
    assert runs.n_params is not None
    assert runs.n_params.tolist() == [shape.n_params] * 2
    assert runs.weights.tolist() == [[1.0, 0.0]] * 2
    assert runs.losses.tolist()[0] == runs.losses.tolist()[1]
    runs.write(tmp_path / "runs.csv")
    again = read_runs(tmp_path / "runs.csv")
    np.testing.assert_array_equal(again.losses, runs.losses)
    assert again.domains == ("prose", "code")
    assert again.run_id is not None
    assert (tmp_path / again.run_id[0] / LOG).is_file()
    with pytest.raises(BackendError, match="no size has 5,000"):
        world.run([RunSpec(n_params=5e3, n_tokens=640, weights={"prose": 1.0})])


def test_divergence_is_recorded_with_its_step(small_corpus, tmp_path):
    folder = specify(small_corpus, tmp_path / "run", recipe={"lr": 1e12, "warmup": 0.0, "log_every": 7})
    done = train(folder)
    assert done.returncode == 1
    found = outcome(folder, 1)
    assert found is not None
    assert (found.reason, found.step, found.again) == ("diverged", 2, False)
    assert "no longer a number at step 2: lower recipe.lr" in found.message


def test_a_full_disk_is_recorded_by_its_name(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "records.jsonl").symlink_to(full)
    with pytest.raises(OSError, match="No space left") as caught:
        Records(tmp_path / "full").add("eval", step=3)
    worker.record_failure(Records(tmp_path), caught.value)
    found = outcome(tmp_path, 1)
    assert found is not None
    assert (found.reason, found.again) == ("disk", True)
    assert "no space left on the disk" in found.message


def test_what_the_worker_refuses_is_recorded(small_corpus, tmp_path):
    folder = specify(small_corpus, tmp_path / "run")
    value = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**value, "vocab_size": 512}))
    assert train(folder).returncode == 1
    found = outcome(folder, 1)
    assert found is not None
    assert (found.reason, found.again) == ("refused", False)
    assert "has a vocabulary of 300, and this run was specified with one of 512" in found.message


def test_workers_die_with_their_pool_and_are_killed_when_they_hang(small_corpus, tmp_path):
    folder = specify(small_corpus, tmp_path / "run", n_tokens=1e6)
    with Pool([None], silent_s=8) as pool:
        pid = pool.start(folder)
        assert not pool.free
        wait_for(lambda: reached(folder, 3))
        assert pool.ended() == []
        os.kill(pid, signal.SIGSTOP)
        ended: list = []
        wait_for(lambda: ended.extend(pool.ended()) or ended)
        assert (ended[0].reason, ended[0].again) == ("silent", True)
        assert "killed for hanging" in ended[0].message
        assert ended[0].step >= 3
        assert pool.free
        pid = pool.start(folder)
        wait_for(lambda: Records(folder).of("start")[1:])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_does_not_outlive_a_killed_parent(small_corpus, tmp_path):
    folder = specify(small_corpus, tmp_path / "run", n_tokens=1e6)
    code = f"""
import sys, time
from lawkit.backends.torchtitan.launch import Pool
print(Pool([None]).start({str(folder)!r}), flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_for(lambda: (folder / LOG).exists())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not alive(pid), seconds=10)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_worker_whose_parent_is_gone_does_not_begin(tmp_path):
    done = subprocess.run([*WORKER, str(tmp_path)], env={**os.environ, PARENT: "1"}, capture_output=True)
    assert done.returncode == 1
    assert not list(tmp_path.iterdir())


def test_slots_follow_the_machine(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert launch.slots() == ["0", "1", "2", "3", "4"]
    assert launch.slots(2) == ["0,1", "2,3"]
    assert launch.slots(2, workers=1) == ["0,1"]
    with pytest.raises(BackendError, match="8 ranks are asked for, and this machine has 5 GPUs"):
        launch.slots(8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch.slots(workers=3) == [None] * 3
    monkeypatch.setattr(launch, "_cores", lambda: 8)
    monkeypatch.setattr(launch, "_free_memory", lambda: 4e9)
    assert launch.slots() == [None, None]
    monkeypatch.setattr(launch, "_free_memory", lambda: 1e12)
    assert len(launch.slots()) == 8
    assert len(launch.slots(2)) == len(launch.slots(threads=2)) == 4


def test_a_worker_that_says_nothing_is_told_by_its_log(tmp_path):
    (tmp_path / LOG).write_text("Traceback\nModuleNotFoundError: No module named 'torch'\n")
    found = outcome(tmp_path, 1)
    assert found is not None
    assert found.message == "the worker ended with status 1: ModuleNotFoundError: No module named 'torch'"
    killed = outcome(tmp_path, -9)
    assert killed is not None
    assert "killed by SIGKILL, perhaps for want of memory" in killed.message
    assert outcome(tmp_path) is None
