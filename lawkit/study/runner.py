"""Run a study: its grids, or the whole circle to a decision; go on where a killed one stopped."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lawkit.backends.torchtitan.launch import Outcome, progress
from lawkit.errors import StudyError
from lawkit.study.bench import make_bench
from lawkit.study.circle import Circle
from lawkit.study.executors import Executor, check_executor, make_executor
from lawkit.study.generation import make_corpus, so_far
from lawkit.study.lock import hold, holder
from lawkit.study.spec import read_study
from lawkit.study.spending import later_grids, spent
from lawkit.study.store import FILE, STATES, Store
from lawkit.study.training import RUNS, TABLE, export, train

#: State of a run that is under way by the store, in a study that nobody runs.
INTERRUPTED = "interrupted"


class Watcher(Protocol):
    """Is told how a study goes."""

    def begun(self, total: int, waiting: int, spent: float, flops: float) -> None:
        """Runs are about to be done: how many in all and how many wait; flops spent, and of those that wait."""

    def ended(self, run_id: str, outcome: Outcome, again: bool) -> None:
        """A run has ended; `again` says whether a failed one is tried once more."""

    def tick(self, running: list[Path], share: float) -> None:
        """Called often: folders of the runs under way, and which share of the waiting runs' flops is done."""

    def doing(self, what: str) -> None:
        """Something other than runs is under way."""

    def decided(self, round_: dict[str, Any]) -> None:
        """A round has come to its decision; the round is as `Store.rounds` has it."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a study has come to: its runs table, how many runs are in each state, and the decision.

    `trained` counts the runs done by this call. `decision` is the last round as `Store.rounds` has it, and `stop` why
    it is the last; both None for a study of grids alone.
    """

    table: Path | None
    done: int
    failed: int
    trained: int
    decision: dict[str, Any] | None = None
    stop: str | None = None


def run_study(
    folder: str | Path,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    watcher: Watcher | None = None,
) -> Summary:
    """Do all runs of a study that are not done; if it has a target, go on to a decision.

    Killed at any moment, it loses nothing that was finished; called again, it goes on. A run that fails is tried again
    as often as the study's file allows, recorded, and does not stop the others.

    Parameters
    ----------
    folder
        Of the study, with its study.toml.
    workers
        Runs at a time; None: what the file says, or what the executor takes.
    retry_failed
        Whether runs that failed before are tried once more.
    watcher
        Is told how it goes.

    Raises
    ------
    StudyError
        When the file is wrong, another process runs the study, the folder cannot be written, or what is done so far
        leads to no decision.
    """
    folder = Path(folder)
    spec = read_study(folder)
    check_executor(spec)
    if spec.built is not None:
        with hold(folder):
            spec = make_corpus(spec, watcher.doing if watcher else lambda _: None)
    bench = make_bench(spec)
    planned = spec.plan(bench)
    if not os.access(folder, os.W_OK):
        raise StudyError(f"{folder} cannot be written to: change its permissions, or choose another folder")
    trained = 0
    with hold(folder), Store(folder) as store:
        store.setting(bench.setting)
        # Nobody else runs this study, so a run under way is one whose study was killed.
        store.again(store.in_state("running"))
        circle = None if spec.goal is None else Circle(spec, bench, store, watcher)
        if circle:
            circle.begin(later_grids(spec, store, planned))
        # Then only: what was interrupted and has left the file is taken out; what was added to it is put in.
        store.propose(planned, round_=max((row["round"] for row in store.rounds()), default=0))
        if retry_failed:
            store.again(store.in_state("failed"))
        with contextlib.ExitStack() as closing:
            executor: Executor | None = None

            def do_runs() -> int:
                nonlocal trained, executor
                waiting = store.in_state("proposed")
                if not waiting:
                    return 0
                bench.prepare([store.spec(run_id) for run_id in waiting])
                if executor is None:
                    executor = make_executor(spec, bench.work, workers)
                    closing.callback(executor.close)
                done = train(folder, bench, store, executor, spec.limits.retries, watcher)
                trained += done
                return done

            stop = circle.turn(do_runs) if circle else None
            if circle is None:
                do_runs()
        export(folder, bench, store)
        states = [row["state"] for row in store.rows()]
        rounds = store.rounds()
    table = folder / TABLE
    return Summary(
        table=table if "done" in states else None,
        done=states.count("done"),
        failed=states.count("failed"),
        trained=trained,
        decision=rounds[-1] if rounds else None,
        stop=stop,
    )


def told_state(state: str, run_by: str | None) -> str:
    """State of a run as users are told it: one under way, in a study that nobody runs, was interrupted."""
    return INTERRUPTED if state == "running" and run_by is None else state


def study_status(folder: str | Path) -> dict[str, Any]:
    """How far a study is: its states, runs, rounds and who runs it; no run and no decision is changed.

    A run that was under way when its study was stopped is "interrupted"; the store says "running" until it goes on.

    Raises
    ------
    StudyError
        When the folder is no study.
    """
    folder = Path(folder)
    spec = read_study(folder)
    runs: list[dict[str, Any]] = []
    rounds: list[dict[str, Any]] = []
    generated: list[dict[str, Any]] = []
    flops, run_by = 0.0, holder(folder)
    if (folder / FILE).is_file():
        with Store(folder) as store:
            runs, rounds, generated = store.rows(), store.rounds(), so_far(spec, store)
            flops = spent(store, generated)
    run_by = run_by or holder(folder)  # it may have begun since
    for run in runs:
        under_way = run["state"] == "running"
        run["progress"] = progress(folder / RUNS / run["run_id"]) if under_way else None
        run["state"] = told_state(run["state"], run_by)
    states = {state: sum(run["state"] == state for run in runs) for state in (*STATES, INTERRUPTED)}
    table = folder / TABLE
    return {
        "folder": folder,
        "run_by": run_by,
        "states": states,
        "flops": flops,
        "budget": None if spec.goal is None else spec.goal.budget,
        "stop": rounds[-1]["stop"] if rounds else None,
        "table": table if table.is_file() else None,
        "generated": generated,
        "rounds": rounds,
        "runs": runs,
    }
