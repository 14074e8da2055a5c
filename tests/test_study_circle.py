"""The closed circle: it comes to a decision, to the same one whatever kills it, and says why it stops."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import sqlite3
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from lawkit import _plugins
from lawkit.backends.torchtitan.launch import Pool
from lawkit.cli import main
from lawkit.design.policy import CREDIBLE
from lawkit.errors import LawkitError, StudyError
from lawkit.runs import read_runs
from lawkit.study import Store, read_study, run_study, study_status
from lawkit.study.bench import make_bench
from lawkit.study.lock import hold
from lawkit.study.pricing import price
from lawkit.study.start import starting_runs
from simulated_studies import QUESTION, SPEC, killed_at_random, rounds_of, study


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that has used up its rounds."""
    folder = study(tmp_path_factory.mktemp("decided"))
    summary = run_study(folder)
    assert summary.failed == 0
    assert summary.stop == "rounds: 2 were proposed, as many as loop.rounds allows"
    return folder


def test_a_study_turns_until_it_stops_and_stores_every_step(decided):
    rounds = rounds_of(decided)
    assert [r["round"] for r in rounds] == [0, 1, 2]
    assert rounds[0]["proposal"]["method"] == "space-filling"
    for before, r in itertools.pairwise(rounds):
        told = before["decision"]
        if_right = (told["expected_regret"] - told["regret_misfit"]) / told["objective"]
        assert r["proposal"]["method"] == ("variance" if if_right > CREDIBLE else "regret")
    assert [bool(r["stop"]) for r in rounds] == [False, False, True]
    with Store(decided) as store:
        rows = store.rows()
    assert [sum(row["round"] == r for row in rows) for r in range(3)] == [14, 3, 3]
    for r in rounds:
        decision = r["decision"]
        assert sum(decision["weights"].values()) == pytest.approx(1)
        assert decision["weights"]["hq"] <= 0.8 + 1e-9
        low, high = decision["weights_interval"]["hq"]
        assert low <= decision["weights"]["hq"] <= high
        assert decision["certificate"] == "global"
        # There is no posterior: draws of a normal do not count.
        assert (
            decision["expected_regret"]
            == max(decision["regret_second_order"], decision["regret_simulated"]) + decision["regret_misfit"]
        )
        assert decision["regret_simulated"] > 0
        assert (
            decision["regret_misfit"] >= 0
        )  # the limit of hq binds, and little tilts leave the mixture there
        assert r["fit"]["n_runs"] == sum(row["round"] <= r["round"] for row in rows)
        assert (decided / "fits" / f"round-{r['round']:02d}" / "fit.json").is_file()
    spent = [sum(row["flops"] for row in rows if row["round"] <= r["round"]) for r in rounds]
    assert [r["flops"] for r in rounds] == pytest.approx(spent)
    assert spent[-1] <= 6e19


def test_the_decision_is_that_of_the_true_law(decided):
    bench = make_bench(read_study(decided))
    assert bench.sources == ("web", "hq")
    from lawkit.study.answer import made_backend

    world, _ = made_backend(bench.work.options)  # pyright: ignore
    hq = np.linspace(0, 0.8, 801)
    losses = world.losses(np.full(801, 7e9), np.full(801, 1e12), np.column_stack([1 - hq, hq])).mean(1)
    chosen = rounds_of(decided)[-1]["decision"]["weights"]["hq"]
    assert losses[np.abs(hq - chosen).argmin()] - losses.min() < 0.01


def test_a_decided_study_does_nothing_again(decided):
    before = rounds_of(decided), (decided / "runs.csv").read_bytes()
    assert run_study(decided).trained == 0
    assert (rounds_of(decided), (decided / "runs.csv").read_bytes()) == before


@pytest.mark.slow
def test_killed_five_times_at_random_it_comes_to_the_same_decision(decided, tmp_path):
    folder = study(tmp_path, more="seconds = 0.05")
    # 20 runs and 3 decisions; the last event ends it.
    killed_at_random(folder, random.Random(7), times=5, total=22, delay=0.5)
    run_study(folder)
    assert rounds_of(folder) == rounds_of(decided)
    runs = read_runs(folder / "runs.csv")
    assert (folder / "runs.csv").read_bytes() == (decided / "runs.csv").read_bytes()
    assert runs.run_id is not None
    assert len(set(runs.run_id)) == len(runs) == 20
    for records in folder.glob("runs/*/records.jsonl"):
        assert records.read_text().count('"kind": "done"') == 1


@pytest.mark.slow
def test_a_wider_question_trains_nothing_that_is_known(decided, tmp_path):
    import shutil

    folder = shutil.copytree(decided, tmp_path / "s")
    text = (folder / "study.toml").read_text()
    # Another limit: the runs stand, the decision is made anew.
    (folder / "study.toml").write_text(text.replace("upper = 0.8", "upper = 0.3"))
    summary = run_study(folder)
    assert summary.trained == 0
    assert summary.decision is not None
    assert summary.decision["decision"]["weights"]["hq"] <= 0.3 + 1e-9
    # More rounds: it goes on where it stopped.
    (folder / "study.toml").write_text(text.replace("rounds = 2", "rounds = 3"))
    summary = run_study(folder)
    assert summary.trained == 3
    assert [r["round"] for r in rounds_of(folder)] == [0, 1, 2, 3]
    # A tolerance that is met.
    (folder / "study.toml").write_text(text.replace("1e-7", "0.5"))
    stop = run_study(folder).stop
    assert stop is not None
    assert stop.startswith("tolerance: the expected regret, ")
    assert stop.endswith("nats, is within 0.5, as it was in the round before")


@pytest.mark.slow
def test_a_study_is_sure_twice_and_spends_a_ration_a_round(tmp_path):
    text = SPEC.replace("rounds = 2", "rounds = 9").replace("batch = 3", "batch = 30").replace("1e-7", "1e9")
    folder = study(tmp_path, text)
    assert (run_study(folder).stop or "").startswith("tolerance: ")
    sure, again = rounds_of(folder)
    assert 0 < again["flops"] - sure["flops"] <= 0.2 * sure["flops"]
    # Another question has not been answered once.
    file = folder / "study.toml"
    file.write_text(file.read_text().replace("7B", "70B"))
    assert (run_study(folder).stop or "").startswith("tolerance: ")
    assert [r["round"] for r in rounds_of(folder)] == [0, 1, 2]
    # Whoever has many machines spends more in a round.
    richer = study(tmp_path / "richer", text.replace("tolerance", "ration = 1\ntolerance"))
    run_study(richer)
    first, second = rounds_of(richer)
    assert 0.5 * first["flops"] <= second["flops"] - first["flops"] <= first["flops"]


def test_runs_that_all_failed_do_not_make_a_study_sure(decided, tmp_path):
    import shutil

    folder = shutil.copytree(decided, tmp_path / "s")
    (folder / "study.toml").write_text((folder / "study.toml").read_text().replace("1e-7", "1e9"))
    with sqlite3.connect(folder / "study.sqlite") as db:
        db.execute("UPDATE runs SET state = 'failed' WHERE round = 2")
        db.execute("UPDATE rounds SET stop = NULL")
    db.close()
    assert run_study(folder).stop == "failures: none of the 3 runs of round 2 could be done"


def test_regret_under_limits_that_proposals_do_not_heed_is_that_of_the_draws(decided, tmp_path):
    import shutil

    folder = shutil.copytree(decided, tmp_path / "s")
    group = 'groups = {g = {sources = ["hq"], lower = 0.3, upper = 0.3}}\nbounds'
    text = (folder / "study.toml").read_text().replace("bounds", group).replace("rounds = 2", "rounds = 0")
    (folder / "study.toml").write_text(text)
    summary = run_study(folder)
    assert summary.decision is not None
    decision = summary.decision["decision"]
    assert decision["weights"]["hq"] == pytest.approx(0.3, abs=1e-6)
    assert decision["regret_simulated"] is None
    assert decision["expected_regret"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.slow
def test_a_study_stops_when_the_budget_does_not_pay_for_another_run(tmp_path):
    text = SPEC.replace("6e19", "2.5e19\nration = 1").replace("rounds = 2", "rounds = 20")
    summary = run_study(study(tmp_path, text))
    assert summary.stop is not None
    assert summary.stop.startswith("budget: ")
    assert summary.decision is not None
    assert summary.decision["flops"] <= 2.5e19


GRIDS = """
[[grid]]
sizes = ["50M", "200M"]
tokens = ["1B", "4B"]
mixtures = [{web = 0.9, hq = 0.1}, {web = 0.5, hq = 0.5}, {web = 0.2, hq = 0.8}, {web = 0.7, hq = 0.3}]
"""


@pytest.mark.slow
def test_grids_are_the_start(tmp_path):
    text = SPEC.replace("rounds = 2", "rounds = 1") + GRIDS
    folder = study(tmp_path, text)
    summary = run_study(folder)
    assert (summary.done, rounds_of(folder)[0]["proposal"]) == (19, {"method": "grid"})
    # A mixture added to the grid later is run before all else, and its round is decided anew.
    study(folder, text.replace("{web = 0.7", "{web = 0.65, hq = 0.35}, {web = 0.7"))
    summary = run_study(folder)
    assert (summary.trained, summary.done) == (4, 23)
    assert rounds_of(folder)[1]["fit"]["n_runs"] == 23


@pytest.mark.slow
def test_grids_that_come_later_are_refused_beyond_the_budget(decided, tmp_path):
    folder = shutil.copytree(decided, tmp_path / "s")
    before = study_status(folder)["runs"]
    study(folder, SPEC + GRIDS.replace('"1B"', '"41B"'))
    for call in (run_study, price):
        with pytest.raises(
            StudyError, match=r"the new runs of the grids take .* and of loop.budget, 6e.19, .* left"
        ):
            call(folder)
    assert study_status(folder)["runs"] == before
    # Of a start by grids that is not done another takes the place.
    text = SPEC.replace("6e19", "3e19") + GRIDS.replace('["50M", "200M"]', '["200M"]')
    fresh = study(tmp_path / "fresh", text)
    first = price(fresh)
    with Store(fresh) as store:
        spec = read_study(fresh)
        bench = make_bench(spec)
        store.setting(bench.setting)
        store.propose(spec.plan(bench), round_=0, proposal={"method": "grid"})
    study(fresh, text.replace("[[grid]]", "[[grid]]\nseeds = [1]"))
    assert price(fresh)["flops"] == first["flops"] > 2e19


@pytest.mark.slow
def test_a_replayed_study_asks_for_each_recorded_run_once(decided, tmp_path):
    bench = make_bench(read_study(decided))
    hq = np.linspace(0.05, 0.95, 7)
    runs = [
        bench.plan(n, d, {"web": 1 - x, "hq": x}, 0, {})
        for n in (5e7, 1e8, 2e8)
        for d in (1e9, 4e9)
        for x in hq.tolist()
    ]
    from lawkit.backends import RunSpec
    from lawkit.study.answer import made_backend

    world, _ = made_backend(bench.work.options)  # pyright: ignore
    world.run(
        [RunSpec(n_params=r.n_params, n_tokens=r.n_tokens, weights=r.weights, seed=0) for r in runs]
    ).write(tmp_path / "recorded.csv")
    question = QUESTION.replace('[ladder]\nsizes = ["50M", "100M", "200M"]\ntokens = ["1B", "4B"]\n', "")
    folder = study(tmp_path / "s", question + '[backend]\nname = "replay"\ntable = "../recorded.csv"\n')
    summary = run_study(folder)
    assert summary.failed == 0
    with Store(folder) as store:
        rows = [store.spec(run_id)["row"] for run_id in store.in_state("done")]
    assert len(set(rows)) == len(rows) > 14
    table, recorded = read_runs(folder / "runs.csv"), read_runs(tmp_path / "recorded.csv")
    np.testing.assert_array_equal(table.losses, recorded.losses[rows])


@pytest.mark.slow
def test_a_replayed_study_that_has_used_its_table_stops_and_says_so(decided, tmp_path):
    recorded = read_runs(decided / "runs.csv")
    recorded.write(tmp_path / "recorded.csv")
    question = QUESTION.replace('[ladder]\nsizes = ["50M", "100M", "200M"]\ntokens = ["1B", "4B"]\n', "")
    question = question.replace("rounds = 2", "rounds = 99").replace("6e19", "1e21")
    folder = study(tmp_path / "s", question + '[backend]\nname = "replay"\ntable = "../recorded.csv"\n')
    summary = run_study(folder)
    assert summary.done == len(recorded)
    assert summary.stop == "candidates: no run that can be had is left, or none within the budget"


def test_the_start_fills_space_within_half_the_budget(tmp_path):
    spec = read_study(study(tmp_path, SPEC.replace("start = 14\n", "")))
    assert spec.goal is not None
    bench = make_bench(spec)
    runs = starting_runs(spec.goal, bench)
    assert sum(run.flops for run in runs) <= 3e19
    assert len(runs) == 11 + 2
    assert len({run.identity for run in runs}) == len(runs)
    assert len({run.n_params for run in runs}) > 1
    hq = sorted(run.weights.get("hq", 0.0) for run in runs)
    assert hq[0] < 0.15
    assert hq[-1] > 0.85
    assert max(np.diff(hq)) < 0.3


# --- what it would cost, and what it says ---------------------------------------------------------


def test_a_dry_run_prices_the_start_and_does_nothing(tmp_path, capsys):
    folder = study(tmp_path, more="seconds = 2")
    assert main(["study", "run", str(folder), "--dry-run", "--workers", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["runs"]) == 14
    assert told["flops"] == pytest.approx(sum(run["flops"] for run in told["runs"]))
    assert told["seconds"] == pytest.approx(14 * 2 / 4)
    assert (told["spent"], told["budget"], told["round"]) == (0.0, 6e19, 0)
    assert sorted(path.name for path in folder.iterdir()) == ["study.toml"]
    assert main(["study", "run", str(folder), "--dry-run"]) == 0
    assert "runs to do" in capsys.readouterr().out


def test_a_dry_run_of_a_decided_study_names_what_a_wider_one_would_do(decided, tmp_path):
    import shutil

    assert price(decided)["runs"] == []
    assert price(decided)["stop"].startswith("rounds: 2")
    folder = shutil.copytree(decided, tmp_path / "s")
    with sqlite3.connect(folder / "study.sqlite") as db:
        db.execute("UPDATE rounds SET stop = NULL")
    db.close()
    told = price(folder)
    assert (told["round"], len(told["runs"])) == (3, 3)
    assert rounds_of(folder)[-1]["round"] == 2


def test_status_shows_rounds_and_the_decision(decided, capsys):
    assert main(["study", "status", str(decided)]) == 0
    told = capsys.readouterr().out
    assert "space-filling" in told
    assert "the mixture after round 2" in told
    assert "stopped because of  rounds: 2 were proposed" in told
    assert main(["study", "status", str(decided), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rounds"]) == 3
    assert found["flops"] <= found["budget"]


def test_run_tells_the_decision_in_plain_lines_and_json(tmp_path, capsys):
    folder = study(tmp_path, SPEC.replace("rounds = 2", "rounds = 0"))
    assert main(["study", "run", str(folder)]) == 0
    told = capsys.readouterr()
    assert "14 of 14 runs to do" in told.err
    assert "round 0: hq 0." in told.err
    assert "expected regret" in told.out
    assert "\x1b" not in told.err + told.out
    assert main(["study", "run", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stop"].startswith("rounds: 0 were proposed")
    assert found["round"]["decision"]["weights"]


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("batch = 3", "batches = 3"), "loop.batches is unknown; did you mean batch"),
        (("[target]", "[targets]"), r"study.toml: \[targets\] is unknown; did you mean \[target\]\?"),
        (("n_params =", "n_param ="), r"target.n_params is missing; did you mean it by target.n_param\?"),
        (("[ladder]", "[[grids]]\n[ladder]"), r"\[\[grids\]\] is unknown; did you mean \[\[grid\]\]\?"),
        (("[backend]", "[backends]"), r"\[backends\] is unknown; did you mean \[backend\]\?"),
        (('n_params = "7B"\n', ""), "target.n_params is missing$"),
        (('n_params = "7B"', "n_params = 0"), "target.n_params is 0: it must be a positive number"),
        (("budget = 6e19\n", ""), "loop.budget is missing"),
        (("batch = 3", "batch = 0"), "loop.batch is 0: it must be a whole number of 1 or more"),
        (("tolerance = 1e-7", "tolerance = -1"), "loop.tolerance is -1: it must be a number of 0 or more"),
        (
            ("draws = 20", 'method = "regrets"'),
            "loop.method is 'regrets': did you mean regret[?] it must be one of",
        ),
        (
            ("exponential-scale", "exponential-scales"),
            r"loop.laws\[0\] is 'exponential-scales': did you mean",
        ),
        (
            ('laws = ["', 'laws = ["auto", "'),
            r"loop.laws is \['auto', 'exponential-scale'\]: \"auto\" means all",
        ),
        (
            ('laws = ["exponential-scale"]', 'laws = ["chinchilla"]'),
            r"loop.laws\[0\] is 'chinchilla': it does not depend on mixture weights",
        ),
        (('"50M"', "inf"), r"ladder.sizes\[0\] is inf: it must be a number of parameters"),
        (('"50M"', "-5e7"), r"ladder.sizes\[0\] is -50000000.0: it must be a number of parameters"),
        (("sizes =", "size ="), "ladder.sizes is missing"),
        (('"50M"', '"50X"'), r"ladder.sizes\[0\] is '50X': it must be a number of parameters"),
        (("[target]", "constraints = 3\n[target]"), "is no TOML"),
        (
            ('[target]\nn_params = "7B"\nn_tokens = "1T"\n', ""),
            r"without a \[target\] there is nothing to decide",
        ),
        (("[ladder]", "corpus = 3\n[ladder]"), "target.corpus is unknown"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_by_its_path(tmp_path, change, message):
    assert change[0] in SPEC
    with pytest.raises(StudyError, match=message):
        read_study(study(tmp_path, SPEC.replace(change[0], change[1], 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("6e19", "1e17"),
            r"loop.budget is 1e\+17 flops, less than one run costs: the cheapest .* takes 3e\+17",
        ),
        (("6e19", "3e18"), r"loop.budget is 3e\+18 flops, which does not pay for a start of 14 runs"),
        (
            ('n_tokens = "1T"', 'n_tokens = "100M"'),
            r"the target, 4.2e\+18 flops \(6 N D\), lies inside the data",
        ),
        (
            ("{upper = 0.8}", "{upper = 0.8}, web = {upper = 0.1}"),
            "study.toml: .*no mixture|study.toml: .*sum",
        ),
        (
            ("bounds = {hq", "bounds = {hk"),
            "study.toml: constraints: bounds: unknown source 'hk'; the fit knows web, hq",
        ),
        (
            ('sources = ["web", "hq"]', 'sources = ["web"]'),
            "study.toml: target: a mixture is chosen of two or more sources, and there is web",
        ),
        (("noise = 0.004", "noisy = 0.004"), "backend.noisy is unknown; did you mean noise"),
        (("E = 1.7", "F = 1.7"), "takes the parameters E, A, .*; missing .'E'., unknown .'F'."),
        (
            ('name = "simulate"', 'name = "slurm"'),
            "no backend 'slurm'; there are replay, simulate, torchtitan",
        ),
        (
            ('name = "simulate"', 'name = "replay"\ntable = "none.csv"'),
            "backend.law is unknown; there are seconds, table",
        ),
        (
            ("[target]", 'executor = "slurm"\n[target]'),
            "executor.name is 'slurm', which is not installed; there are local",
        ),
        (
            ("[target]", 'executor = {name = "local", port = 3}\n[target]'),
            "executor.port is unknown; there are no options",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_one_message_and_nothing_is_done(tmp_path, change, message):
    before, after = change
    assert before in SPEC
    folder = study(tmp_path, SPEC.replace(before, after, 1))
    with pytest.raises(LawkitError, match=message) as refused:
        run_study(folder)
    assert "\n" not in str(refused.value)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('noise = "loud"', "backend.noise is 'loud': it must be a number"),
        ("seed = 1.5", "backend.seed is 1.5: it must be a whole number"),
        ("sources = 3", "backend.sources is 3: it must be a list"),
        ("noisy = 1", r"backend.noisy is unknown; did you mean noise\? \(backend mine\)"),
    ],
)
def test_options_of_a_third_partys_backend_are_of_the_declared_type(tmp_path, monkeypatch, options, message):
    point = EntryPoint(name="mine", value="lawkit.backends.simulate:Simulate", group="lawkit.backends")
    monkeypatch.setattr(_plugins, "entry_points", lambda group: [point])
    with pytest.raises(StudyError, match=f"study.toml: {message}"):
        run_study(study(tmp_path, QUESTION + f'[backend]\nname = "mine"\n{options}\n'))


def test_two_loops_on_one_study(tmp_path):
    folder = study(tmp_path)
    with hold(folder), pytest.raises(StudyError, match="is being run by another process"):
        run_study(folder)


def test_a_store_of_a_newer_lawkit_is_left_alone(tmp_path):
    folder = study(tmp_path)
    with sqlite3.connect(folder / "study.sqlite") as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    before = (folder / "study.sqlite").read_bytes()
    for call in (run_study, study_status, price):
        with pytest.raises(StudyError, match=f"{folder}.*written by a newer lawkit"):
            call(folder)
    assert (folder / "study.sqlite").read_bytes() == before


@pytest.mark.slow
def test_a_clock_that_jumps_harms_nothing(decided, tmp_path, monkeypatch):
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    folder = study(tmp_path)
    run_study(folder)
    assert rounds_of(folder) == rounds_of(decided)


def test_a_worker_that_writes_is_not_taken_to_hang_whatever_the_clock_says(tmp_path):
    """Its files look hours old, as they do when the clock has jumped ahead since."""
    worker = tmp_path / "python"
    worker.write_text(
        "#!/bin/sh\nfor i in $(seq 15); do echo $i >> $3/records.jsonl; "
        "touch -d 1980-01-01 $3/records.jsonl $3/log.txt; "
        "sleep 0.2; done\nexit 3\n"
    )
    worker.chmod(0o755)
    (tmp_path / "run").mkdir()
    with Pool([None], python=str(worker), silent_s=1.5) as pool:
        pool.start(tmp_path / "run")
        while not (ended := pool.ended()):
            time.sleep(0.05)
    assert (ended[0].reason, ended[0].message) == (
        "error",
        "the worker ended with status 3: it wrote nothing",
    )


@pytest.mark.slow
def test_too_few_runs_for_the_law_say_so_and_are_kept(tmp_path):
    folder = study(tmp_path, SPEC.replace("start = 14", "start = 2"))
    with pytest.raises(StudyError, match=r"2 runs cannot be fitted: .*raise loop.start above 2, add .*grid"):
        run_study(folder)
    assert study_status(folder)["states"]["done"] == 2
    raised = study(tmp_path / "raised", SPEC.replace("rounds = 2", "rounds = 0"))
    shutil.copy(folder / "study.sqlite", raised)
    # A larger start beside a grid that goes beyond the budget: neither is begun.
    study(raised, SPEC + GRIDS.replace('"1B"', '"41B"'))
    with pytest.raises(StudyError, match="the new runs of the grids take"):
        run_study(raised)
    assert len(study_status(raised)["runs"]) == 2
    study(raised, SPEC.replace("rounds = 2", "rounds = 0"))
    assert len(price(raised)["runs"]) == 12
    summary = run_study(raised)
    assert (summary.trained, summary.done) == (12, 14)
    assert summary.decision is not None
    # Once there is a decision, runs are added by proposals.
    study(raised, SPEC.replace("rounds = 2", "rounds = 0").replace("start = 14", "start = 20"))
    assert run_study(raised).trained == 0
    study(folder, SPEC.replace("start = 14", "start = 2") + GRIDS)
    assert run_study(folder).done > 16
