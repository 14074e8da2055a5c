"""The store of a study keeps every run once, whatever happens in between."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lawkit.backends.torchtitan import table
from lawkit.backends.torchtitan.launch import Outcome
from lawkit.backends.torchtitan.planning import plan
from lawkit.backends.torchtitan.spec import TrainingSpec
from lawkit.errors import StudyError
from lawkit.runs import Runs, read_runs
from lawkit.study import Store
from lawkit.study._schema import STEPS
from lawkit.study.trained import planned

CORPUS: Any = SimpleNamespace(
    sources=("web", "hq"),
    vocab_size=300,
    digest="a" * 64,
    n_tokens=lambda name: 100_000,
    n_heldout_tokens=lambda name: 5_000,
)


def spec(seed: int = 0, hq: float = 0.25, size: str = "27k") -> TrainingSpec:
    weights = {"web": 1 - hq, "hq": hq}
    return plan(
        CORPUS, "corpus", size=size, n_tokens=1e6, weights=weights, seed=seed, recipe={"eval_at": [0.5]}
    )  # pyright: ignore


def result(run: TrainingSpec, loss: float = 3.0) -> Outcome:
    """What the records of a finished run say."""

    def evaluation(step: int, shift: float) -> dict:
        domains = {
            name: {
                "loss": loss + shift + place,
                "se": 0.01,
                "per_byte": 1.0,
                "per_byte_se": 0.003,
                "rows": 16,
            }
            for place, name in enumerate(("web", "hq"))
        }
        return {"step": step, "n_tokens": step * 4096, "is_final": step == run.steps, "domains": domains}

    sources = {
        name: {"tokens": 10, "unique": unique, "epochs": 1.0} for name, unique in (("web", 99), ("hq", 88))
    }
    done = {"step": run.steps, "wall_s": 5.0, "cpu_s": 4.0, "sources": sources}
    return Outcome(
        folder=Path(run.run_id),
        done=done,
        evals=(evaluation(122, 0.5), evaluation(run.steps, 0.0)),
        step=run.steps,
    )


def failure(run: TrainingSpec, reason: str = "killed") -> Outcome:
    return Outcome(folder=Path(run.run_id), reason=reason, message="why", step=7)


def propose(store: Store, runs: Sequence[TrainingSpec], **options: Any) -> int:
    return store.propose([planned(run) for run in runs], **options)


def table_of(store: Store) -> Runs:
    specs, outcomes = store.results()
    return table([TrainingSpec.from_dict(spec) for spec in specs], outcomes)


def test_runs_are_proposed_once_and_in_order(tmp_path):
    specs = [spec(seed) for seed in range(3)]
    with Store(tmp_path) as store:
        assert propose(store, specs[:2]) == 2
        assert propose(store, [*specs, specs[2]]) == 1
    with Store(tmp_path) as store:
        assert store.in_state("proposed") == [s.run_id for s in specs]
        assert store.spec(specs[1].run_id) == specs[1].to_dict()


def test_what_is_not_asked_for_any_more_is_taken_out_unless_it_was_begun(tmp_path):
    specs = [spec(seed) for seed in range(4)]
    with Store(tmp_path) as store:
        propose(store, specs[:3])
        propose(store, [specs[3]], origin="round 1", round_=1, proposal={"method": "regret"})
        store.started(specs[0].run_id, pid=1, log="log")
        propose(store, [])
        assert store.in_state("running", "proposed") == [specs[0].run_id, specs[3].run_id]


def test_what_failed_and_is_not_asked_for_any_more_is_taken_out(tmp_path):
    one, two = spec(0), spec(1)
    with Store(tmp_path) as store:
        propose(store, [one, two])
        store.failed(one.run_id, failure(one, "diverged"), retries=0)
        propose(store, [two])
        assert [row["run_id"] for row in store.rows()] == [two.run_id]


def test_what_is_not_done_follows_its_corpus(tmp_path):
    runs = [spec(seed) for seed in range(4)]
    moved = [replace(run, corpus="elsewhere") for run in runs]
    with Store(tmp_path) as store:
        propose(store, runs)
        store.started(runs[1].run_id, pid=1, log="log")
        store.failed(runs[2].run_id, failure(runs[2], "refused"), retries=0)
        store.finished(runs[3].run_id, result(runs[3]))
        assert propose(store, moved) == 0
        assert [store.spec(run.run_id)["corpus"] for run in runs[:3]] == ["elsewhere"] * 3
        assert store.spec(runs[3].run_id) == runs[3].to_dict()


def test_states_of_a_run(tmp_path):
    one, two, three = (spec(seed) for seed in range(3))
    with Store(tmp_path) as store:
        propose(store, [one, two, three])
        store.started(one.run_id, pid=12, log="runs/one/log.txt")
        assert store.in_state("running") == [one.run_id]
        store.finished(one.run_id, result(one))
        # Killed twice, with one retry; then tried again by hand.
        assert store.failed(two.run_id, failure(two), retries=1)
        assert store.in_state("proposed") == [two.run_id, three.run_id]
        assert not store.failed(two.run_id, failure(two), retries=1)
        # What diverges would diverge again.
        assert not store.failed(three.run_id, failure(three, "diverged"), retries=5)
        assert store.in_state("failed") == [two.run_id, three.run_id]
        rows = {row["run_id"]: row for row in store.rows()}
        assert rows[one.run_id]["cpu_s"] == 4.0
        assert rows[one.run_id]["flops"] == one.flops(one.steps)
        assert rows[one.run_id]["log"] == "runs/one/log.txt"
        assert (rows[two.run_id]["failures"], rows[two.run_id]["reason"], rows[two.run_id]["step"]) == (
            2,
            "killed",
            7,
        )
        store.again([two.run_id])
        assert store.in_state("proposed") == [two.run_id]


def test_a_result_is_kept_once(tmp_path):
    run = spec()
    with Store(tmp_path) as store:
        propose(store, [run])
        store.finished(run.run_id, result(run))
        store.finished(run.run_id, result(run, loss=9.0))
        propose(store, [run])
        assert table_of(store).losses.tolist() == [[3.5, 4.5], [3.0, 4.0]]


def test_the_runs_table_is_the_results(tmp_path):
    first, second = spec(hq=0.25), spec(seed=1, hq=0.0, size="83k")
    with Store(tmp_path) as store:
        propose(store, [first, second])
        assert len(table_of(store)) == 0
        store.finished(second.run_id, result(second, 2.0))
        store.finished(first.run_id, result(first))
        runs = table_of(store)
    assert runs.sources == runs.domains == ("web", "hq")
    runs.write(tmp_path / "runs.csv")
    again = read_runs(tmp_path / "runs.csv")
    np.testing.assert_array_equal(again.losses, [[3.5, 4.5], [3.0, 4.0], [2.5, 3.5], [2.0, 3.0]])
    np.testing.assert_array_equal(again.weights[::2], [[0.75, 0.25], [1, 0]])
    for column, expected in (
        ("is_final", [False, True, False, True]),
        ("seed", [0, 0, 1, 1]),
        ("n_params", [first.size.n_params] * 2 + [second.size.n_params] * 2),
        ("n_tokens", [122 * 4096, 244 * 4096] * 2),
        ("flops", [first.flops(122), first.flops(244), second.flops(122), second.flops(244)]),
        ("run_id", [first.run_id] * 2 + [second.run_id] * 2),
        ("unique", [[99, 88]] * 4),
        ("losses_se", [[0.01, 0.01]] * 4),
    ):
        np.testing.assert_array_equal(getattr(again, column), expected)


def test_losses_and_weights_can_be_asked_for_in_sql(tmp_path):
    run = spec()
    with Store(tmp_path) as store:
        propose(store, [run])
        store.finished(run.run_id, result(run))
    with sqlite3.connect(tmp_path / "study.sqlite") as db:
        losses = db.execute("SELECT step, is_final, domain, loss, per_byte FROM losses").fetchall()
        weights = dict(db.execute("SELECT source, weight FROM weights"))
    assert losses[0] == (122, 0, "web", 3.5, 1.0)
    assert losses[3] == (244, 1, "hq", 4.0, 1.0)
    assert weights == {"web": 0.75, "hq": 0.25}
    db.close()


def test_a_setting_may_change_until_a_run_is_done(tmp_path):
    run = spec()
    with Store(tmp_path) as store:
        store.setting({"corpus": "a", "recipe": {}})
        propose(store, [run])
        store.setting({"corpus": "a", "recipe": {"lr": 1e-3}})
        assert store.in_state("proposed") == []
        propose(store, [run])
        store.finished(run.run_id, result(run))
        store.setting({"corpus": "a", "recipe": {"lr": 1e-3}})
        with pytest.raises(StudyError, match="corpus changed since 1 runs"):
            store.setting({"corpus": "b", "recipe": {"lr": 1e-3}})
        assert len(table_of(store)) == 2


def test_an_interrupted_change_leaves_nothing(tmp_path):
    good, bad = spec(), spec(seed=1)
    with Store(tmp_path) as store:
        with pytest.raises(StudyError, match="NOT NULL"):
            store.propose([planned(good), replace(planned(bad), size=None)])  # pyright: ignore
        assert store.rows() == []


def test_a_broken_store_is_one_message(tmp_path):
    (tmp_path / "study.sqlite").write_bytes(b"no database at all" * 99)
    with pytest.raises(StudyError, match=r"study\.sqlite: file is not a database: see that the folder"):
        Store(tmp_path)
    with pytest.raises(StudyError, match="unable to open database file"):
        Store(tmp_path / "missing")
    other = tmp_path / "other"
    other.mkdir()
    with sqlite3.connect(other / "study.sqlite") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(
        StudyError, match=r"written by a newer lawkit \(its tables are of version 99, and this one knows 2\)"
    ):
        Store(other)


def test_a_store_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    with Store(tmp_path) as store:
        store.keep("a", {"b": 1})
    there = sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)  # permissions do not stop root
        with Store(tmp_path) as store:
            assert store.kept("a") == {"b": 1}
            assert sorted(tmp_path.iterdir()) == there
            with pytest.raises(StudyError, match=r"study.sqlite: attempt to write a readonly database"):
                store.keep("a", {"b": 2})


def test_a_store_of_an_older_lawkit_is_brought_up_to_date(tmp_path):
    run = spec()
    with sqlite3.connect(tmp_path / "study.sqlite") as db:
        for statement in STEPS[0].split(";\n"):
            db.execute(statement)
        db.execute("PRAGMA user_version=1")
        db.execute(
            "INSERT INTO runs (run_id, origin, state, spec, size, n_params, n_tokens, seed, flops, flops_6nd, "
            "proposed_at) VALUES (?, 'spec', 'proposed', '{}', '27k', 1, 1, 0, 1, 1, 0)",
            (run.run_id,),
        )
    db.close()
    with Store(tmp_path) as store:
        assert [row["round"] for row in store.rows()] == [0]
        assert store.rounds() == []
        assert propose(store, [run]) == 0


def test_rounds_are_kept_step_by_step(tmp_path):
    runs = [spec(seed) for seed in range(2)]
    with Store(tmp_path) as store:
        propose(store, runs[:1], proposal={"method": "grid"})
        store.note_round(0, basis="a", fit={"law": "chinchilla", "noise": float("nan")})
        propose(store, runs[1:], origin="round 1", round_=1, proposal={"method": "regret"})
    with Store(tmp_path) as store:
        first, second = store.rounds()
        assert (first["fit"], first["decision"]) == ({"law": "chinchilla", "noise": None}, None)
        assert second["proposal"] == {"method": "regret"}
        assert [row["round"] for row in store.rows()] == [0, 1]


def test_a_lost_machine_is_not_the_runs_fault(tmp_path):
    run = spec()
    with Store(tmp_path) as store:
        propose(store, [run])
        assert all(store.failed(run.run_id, failure(run, "lost"), retries=0) for _ in range(20))
        assert not store.failed(run.run_id, failure(run, "lost"), retries=0)
        assert not store.failed(run.run_id, failure(run, "killed"), retries=0)
