"""Studies: their file, their lock, and runs that are trained, killed, resumed and exported."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lawkit.backends.torchtitan.launch import Outcome
from lawkit.cli import main
from lawkit.cli._study_screen import Screen
from lawkit.corpus import open_corpus
from lawkit.errors import StudyError
from lawkit.runs import read_runs
from lawkit.study import Store, read_study, run_study, study_status
from lawkit.study.bench import make_bench
from lawkit.study.grid import SpaceFilling
from lawkit.study.lock import hold, holder
from lawkit.study.template import write_template

GOOD = """
corpus = "corpus"
[[grid]]
sizes = ["27k"]
tokens = ["1M", 2e6]
mixtures = [{web = 0.5, hq = 0.5}]
"""


def study(folder: Path, text: str = GOOD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(text)
    return folder


def test_a_file_is_read(tmp_path):
    spec = read_study(
        study(
            tmp_path,
            GOOD + 'seeds = [3, 4]\nrecipe = {lr = 1e-3}\n[recipe]\nbatch_rows = 8\n[available]\nhq = "20k"\n'
            "[limits]\nworkers = 2\nretries = 0\nrun_s = 60\n",
        )
    )
    (grid,) = spec.grids
    assert spec.corpus == tmp_path / "corpus"
    assert (grid.sizes, grid.tokens, grid.seeds) == (("27k",), (1e6, 2e6), (3, 4))
    assert (spec.recipe, grid.recipe, spec.available) == ({"batch_rows": 8}, {"lr": 1e-3}, {"hq": 20_000})
    assert (spec.limits.workers, spec.limits.retries, spec.limits.run_s, spec.limits.ranks) == (2, 0, 60, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("corpus = ", "corpse = "), r"study.toml: corpse is unknown; did you mean corpus\?"),
        (("corpus = ", "# "), "study.toml: corpus is missing$"),
        (("[[grid]]", "[[grids]]"), r"\[\[grids\]\] is unknown; did you mean \[\[grid\]\]\?"),
        ((GOOD[GOOD.index("[[") :], ""), "grid is missing: a study has at least one"),
        (("tokens = ", "token = "), r"grid\[0\].tokens is missing"),
        (('"1M"', '"1X"'), r"grid\[0\].tokens\[0\] is '1X': it must be a positive number"),
        (("2e6", "-1"), r"grid\[0\].tokens\[1\] is -1"),
        (("2e6", "1e30"), r"grid\[0\].tokens\[1\] is 1e\+30: it must be at most 1e\+15"),
        (
            ("sizes", "seeds = [true]\nsizes"),
            r"grid\[0\].seeds is \[True\]: it must be a list of whole numbers",
        ),
        (("sizes", f"seeds = [{2**63}]\nsizes"), r"grid\[0\].seeds is .*, at most 9223372036854775807"),
        (("sizes", "seeds = []\nsizes"), r"grid\[0\].seeds is \[\]"),
        (
            ('["27k"]', '[{dim = 32, n_layers = 1, n_heads = 1, name = "a/b"}]'),
            r"grid\[0\].sizes\[0\] is .*: a size's name is 'a/b'",
        ),
        (("[[grid]]", f"[limits]\nretries = {2**63}\n[[grid]]"), "limits.retries is .*: it must be at most"),
        (("2e6", "true"), r"grid\[0\].tokens\[1\] is True"),
        (('"27k"', '"28k"'), r"grid\[0\].sizes\[0\] is '28k': no size '28k'"),
        (('["27k"]', "[]"), r"grid\[0\].sizes is \[\]: it must have at least one entry"),
        (("hq = 0.5", "hq = 0.6"), r"grid\[0\].mixtures\[0\] is .*: its weights sum to 1.1, not to 1"),
        (("hq = 0.5", 'hq = "a"'), r"grid\[0\].mixtures\[0\].hq is 'a': it must be a number from 0 to 1"),
        (("[{web", "[0.5, {web"), r"grid\[0\].mixtures\[0\] is 0.5"),
        (("[{web = 0.5, hq = 0.5}]", "3"), r"grid\[0\].mixtures is 3: it must be a list"),
        (
            ("[{web = 0.5, hq = 0.5}]", "{n = 0}"),
            r"grid\[0\].mixtures.n is 0: it must be a whole number of 1",
        ),
        (
            ("[{web = 0.5, hq = 0.5}]", "{n = 2, sed = 1}"),
            r"grid\[0\].mixtures.sed is unknown; did you mean seed",
        ),
        (
            ("[{web = 0.5, hq = 0.5}]", "{n = 2, bounds = {hq = 0.5}}"),
            r"grid\[0\].mixtures.bounds.hq is 0.5: it must be a lower and an upper limit",
        ),
        (("[[grid]]", "[recipe]\nlr = 0\n[[grid]]"), "study.toml: recipe.lr is 0: it must be above 0"),
        (("sizes", "recipe = {learn = 1}\nsizes"), r"grid\[0\].recipe.learn: a recipe has no such field"),
        (("sizes", "seeds = 3\nsizes"), r"grid\[0\].seeds is 3: it must be a list of whole numbers"),
        (("[[grid]]", "[limits]\nworker = 1\n[[grid]]"), "limits.worker is unknown; did you mean workers"),
        (
            ("[[grid]]", "[limits]\nworkers = 0\n[[grid]]"),
            "limits.workers is 0: it must be a whole number of 1",
        ),
        (
            ("[[grid]]", "[limits]\nrun_s = '1h'\n[[grid]]"),
            "limits.run_s is '1h': it must be a number of seconds",
        ),
        (("[[grid]]", "limits = 3\n[[grid]]"), "limits is 3: it must be a table"),
        (
            ("[[grid]]", "[available]\nhq = []\n[[grid]]"),
            r"available.hq is \[\]: it must be a positive number",
        ),
        (("[[grid]]", "notes = 1\n[[grid]]"), "study.toml: notes is unknown; there are backend, corpus"),
        (("[[grid]]", "[[grid]"), "is no TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_by_its_path(tmp_path, change, message):
    with pytest.raises(StudyError, match=message):
        read_study(study(tmp_path, GOOD.replace(change[0], change[1], 1)))


def test_a_folder_without_a_file_is_no_study(tmp_path, capsys):
    assert main(["study", "run", str(tmp_path)]) == 1
    assert "is no study: it has no study.toml; lawkit study init makes one" in capsys.readouterr().err


def test_space_filling_mixtures():
    found = SpaceFilling(n=20, seed=1, bounds={"hq": (0.0, 0.5)}).mixtures(("web", "hq", "code"))
    weights = np.array([[m.get(name, 0.0) for name in ("web", "hq", "code")] for m in found])
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    assert weights[:, 1].max() <= 0.5
    assert len(np.unique(weights, axis=0)) == 20
    assert (weights.max(0) - weights.min(0) > 0.4).all()
    assert found == SpaceFilling(n=20, seed=1, bounds={"hq": (0.0, 0.5)}).mixtures(("web", "hq", "code"))
    assert found != SpaceFilling(n=20, seed=2, bounds={"hq": (0.0, 0.5)}).mixtures(("web", "hq", "code"))


def test_a_study_has_one_runner(tmp_path):
    assert holder(tmp_path) is None
    with hold(tmp_path):
        assert holder(tmp_path) == f"process {os.getpid()} on {os.uname().nodename}"
        with (
            pytest.raises(StudyError, match=f"is being run by another process .process {os.getpid()} on"),
            hold(tmp_path),
        ):
            pass
    assert holder(tmp_path) is None
    with hold(tmp_path):
        pass


def test_init_writes_a_study_that_can_be_planned(small_corpus, tmp_path, capsys):
    # The folder of all corpora will do while there is one; another may come, so the corpus itself is written.
    assert main(["study", "init", str(tmp_path / "s"), "--corpus", str(small_corpus.parent)]) == 0
    spec = read_study(tmp_path / "s")
    assert spec.corpus is not None
    assert spec.corpus.resolve() == small_corpus.resolve()
    planned = spec.plan(make_bench(spec))
    assert len(planned) == 3 * 2 * 8 + 3
    planned = spec.plan(make_bench(replace(spec, corpus=small_corpus.parent)))
    assert planned[0].spec["corpus"] == str(small_corpus.resolve())
    assert main(["study", "init", str(tmp_path / "s"), "--corpus", str(small_corpus)]) == 1
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be made"):
        write_template(tmp_path / "file" / "s", open_corpus(small_corpus))


def test_a_run_that_two_grids_ask_for_is_planned_once_and_errors_name_the_grid(small_corpus, tmp_path):
    text = f'corpus = "{small_corpus}"\n' + 2 * (
        '[[grid]]\nsizes = ["27k", {dim = 32, n_layers = 2, n_heads = 2, name = "mine"}]\n'
        'tokens = ["1M"]\nmixtures = [{prose = 1.0}]\n'
    )
    spec = read_study(study(tmp_path / "a", text))
    assert len(spec.plan(make_bench(spec))) == 1
    wrong = read_study(
        study(tmp_path / "b", text + "[[grid]]\n" + text.split("[[grid]]\n")[1].replace("prose", "web"))
    )
    with pytest.raises(StudyError, match=r"grid\[2\]: weights.web: the corpus has no source 'web'; it has"):
        wrong.plan(make_bench(wrong))


# --- training ---------------------------------------------------------------------------

SMALL = """
corpus = "{corpus}"
[recipe]
seq_len = 32
batch_rows = 8
eval_rows = 16
eval_at = [0.5]
log_every = 1
checkpoint_every = 10
[limits]
workers = 2
[[grid]]
sizes = [{{dim = 16, n_layers = 1, n_heads = 1}}]
tokens = [10240]
mixtures = [{{prose = 0.3, code = 0.7}}]
seeds = [0, 1]
"""
DIVERGING = """
[[grid]]
sizes = [{{dim = 16, n_layers = 1, n_heads = 1}}]
tokens = [10240]
mixtures = [{{prose = 1.0}}]
recipe = {{lr = 1e12, warmup = 0.0}}
"""


def test_on_a_terminal_results_stand_above_what_is_under_way(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", shown)
    done = Outcome(folder=Path("a"), done={"wall_s": 3.0}, evals=({"domains": {"web": {"loss": 3.0}}},))
    with Screen() as screen:
        screen.begun(2, 2, 0.0, 1e9)
        screen.tick([], 0.1)
        wait_for(lambda: "of the flops" in shown.getvalue())  # drawn ten times a second, by a thread
        screen.ended("run-a", done, False)
    # The line of what is under way is cleared first; written behind it, the result would be cleared with it.
    assert re.search(r"\x1b\[2K(\x1b\[[0-9;]*m)*run-a: web 3.0000", shown.getvalue())


@pytest.fixture(scope="module")
def finished(small_corpus, tmp_path_factory, torchtitan) -> Path:
    """A study whose runs were trained but for one, which diverged."""
    folder = study(tmp_path_factory.mktemp("finished"), (SMALL + DIVERGING).format(corpus=small_corpus))
    summary = run_study(folder)
    assert (summary.done, summary.failed, summary.trained) == (2, 1, 2)
    return folder


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def workers_of(folder: Path) -> list[int]:
    """Processes that have to do with a folder and are not dead, but for this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if str(folder) in command and state != "Z" and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def test_a_study_trains_exports_and_records_what_failed(finished, capsys):
    runs = read_runs(finished / "runs.csv")
    assert runs.is_final is not None
    assert runs.is_final.tolist() == [False, True, False, True]
    assert runs.sources == runs.domains == ("prose", "code")
    assert (runs.losses[1::2] < runs.losses[::2]).all()
    assert runs.unique is not None
    states = study_status(finished)
    assert states["states"] == {"proposed": 0, "running": 0, "done": 2, "failed": 1, "interrupted": 0}
    (failed,) = (run for run in states["runs"] if run["state"] == "failed")
    assert (failed["reason"], failed["step"], failed["failures"]) == ("diverged", 2, 1)
    assert main(["study", "status", str(finished)]) == 0
    told = capsys.readouterr().out
    assert "no longer a number at step 2" in told
    assert "nobody" in told
    assert main(["study", "status", str(finished), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["states"]["done"] == 2
    for run in states["runs"]:
        assert (finished / run["log"]).is_file()


def test_a_finished_study_trains_nothing_again(finished, capsys):
    before = (finished / "runs.csv").read_bytes()
    # One run has failed before, which a script must be able to see.
    assert main(["study", "run", str(finished)]) == 1
    assert "--retry-failed" in capsys.readouterr().err
    assert main(["study", "run", str(finished), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "table": str(finished / "runs.csv"), "trained": 0, "done": 2, "failed": 1
    }  # fmt: skip
    assert (finished / "runs.csv").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_killed_at_any_moment_a_study_loses_doubles_and_leaves_nothing(
    finished, small_corpus, tmp_path, capsys
):
    folder = study(tmp_path / "killed", SMALL.format(corpus=small_corpus))
    command = [sys.executable, "-m", "lawkit.cli", "study", "run", str(folder)]

    def trained(step: int) -> bool:
        lines = [p.read_text().count('"train"') for p in folder.glob("runs/*/records.jsonl")]
        return bool(lines) and max(lines) >= step

    for step in (2, 25):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda step=step: trained(step))
        # Meanwhile nobody else may run it, and who does is told.
        with pytest.raises(StudyError, match=f"is being run by another process .process {process.pid} on"):
            run_study(folder)
        process.kill()
        process.wait()
        wait_for(lambda: not workers_of(folder), seconds=10)
        assert holder(folder) is None
    states = study_status(folder)["states"]
    assert (states["running"], states["interrupted"] > 0) == (0, True)
    assert main(["study", "status", str(folder)]) == 0
    assert f"interrupted  {states['interrupted']}, to be continued" in capsys.readouterr().out
    assert main(["study", "report", str(folder)]) == 0
    assert "<td>interrupted</td>" in (folder / "report.html").read_text(encoding="utf-8")
    summary = run_study(folder)
    assert (summary.done, summary.failed) == (2, 0)
    assert (folder / "runs.csv").read_bytes() == (finished / "runs.csv").read_bytes()


def test_what_was_finished_but_not_noted_is_noted(finished, small_corpus, tmp_path):
    folder = study(tmp_path / "s", SMALL.format(corpus=small_corpus))
    (folder / "runs").symlink_to(finished / "runs")
    summary = run_study(folder)
    assert (summary.done, summary.trained) == (2, 2)
    assert (folder / "runs.csv").read_bytes() == (finished / "runs.csv").read_bytes()


def test_an_interrupted_run_that_left_the_file_is_not_trained(finished, small_corpus, tmp_path):
    folder = study(tmp_path / "s", SMALL.format(corpus=small_corpus))
    (folder / "runs").symlink_to(finished / "runs")
    spec = read_study(folder)
    asked, left = spec.plan(make_bench(spec))
    with Store(folder) as store:
        store.propose([asked, left])
        for run in (asked, left):
            store.started(run.run_id, pid=1, log="log")
    study(folder, SMALL.format(corpus=small_corpus).replace("seeds = [0, 1]", "seeds = [0]"))
    summary = run_study(folder)
    assert (summary.done, summary.failed) == (1, 0)
    assert [run["run_id"] for run in study_status(folder)["runs"]] == [asked.run_id]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_worker_that_is_killed_is_recorded_and_its_run_tried_again(finished, small_corpus, tmp_path):
    folder = study(tmp_path, SMALL.format(corpus=small_corpus).replace("workers = 2", "workers = 1"))
    process = subprocess.Popen(
        [sys.executable, "-m", "lawkit.cli", "study", "run", str(folder)], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(p.read_text().count('"train"') for p in folder.glob("runs/*/records.jsonl")))
    (worker,) = (pid for pid in workers_of(folder) if pid != process.pid)
    os.kill(worker, signal.SIGKILL)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0
    told = " ".join(told.split())
    assert "failed, to be tried again at step" in told
    assert "(killed): the worker was killed by SIGKILL" in told
    found = study_status(folder)
    assert found["states"] == {"proposed": 0, "running": 0, "done": 2, "failed": 0, "interrupted": 0}
    assert sorted(run["failures"] for run in found["runs"]) == [0, 1]
    rows = [(folder / "runs.csv").read_text().splitlines(), (finished / "runs.csv").read_text().splitlines()]
    assert rows[0] == rows[1]


@pytest.mark.usefixtures("torchtitan")
def test_what_cannot_work_is_refused_before_anything_starts(small_corpus, tmp_path, monkeypatch):
    folder = study(tmp_path / "s", SMALL.format(corpus=small_corpus))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StudyError, match="cannot be written to"):
        run_study(folder)
    monkeypatch.undo()
    monkeypatch.setattr("lawkit.study.trained._SLACK", 10**18)
    with pytest.raises(StudyError, match=r"MB are free, and the checkpoints of the largest run need about"):
        run_study(folder)
    assert not (folder / "runs").exists()


def test_a_missing_torchtitan_is_named_with_the_command_that_installs_it(small_corpus, tmp_path, monkeypatch):
    folder = study(tmp_path / "s", SMALL.format(corpus=small_corpus))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"pip install 'lawkit\[torchtitan\]'"):
        run_study(folder)


def test_the_setting_may_not_change_after_runs_were_trained(finished, tmp_path):
    text = (finished / "study.toml").read_text()
    try:
        (finished / "study.toml").write_text(text.replace("batch_rows = 8", "batch_rows = 4"))
        with pytest.raises(StudyError, match=r"recipe changed since 2 runs of .* were trained"):
            run_study(finished)
    finally:
        (finished / "study.toml").write_text(text)
    with Store(finished) as store:
        assert len(store.results()[0]) == 2
