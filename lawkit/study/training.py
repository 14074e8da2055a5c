"""Do the runs of a study that wait: hand them to its executor, note what comes of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lawkit.backends.torchtitan.launch import Outcome, outcome, progress
from lawkit.backends.torchtitan.records import LOG, SPEC
from lawkit.errors import RunsError, StudyError
from lawkit.io._json import finite
from lawkit.io._write import replace_file
from lawkit.study.spending import spent as spent_by

if TYPE_CHECKING:
    from lawkit.runs import Runs
    from lawkit.study.bench import Bench
    from lawkit.study.executors import Executor
    from lawkit.study.runner import Watcher
    from lawkit.study.store import Store

#: Names in the folder of a study.
TABLE, RUNS = "runs.csv", "runs"
_POLL_S, _TELL_S = 0.02, 0.5


def train(
    folder: Path, bench: Bench, store: Store, executor: Executor, retries: int, watcher: Watcher | None
) -> int:
    """Do all runs that wait, and return how many were finished.

    A run that fails is tried again up to `retries` times, where it was not its own fault.
    """
    waiting = store.in_state("proposed")
    rows = {row["run_id"]: row for row in store.rows()}
    budget = sum(rows[run_id]["flops"] for run_id in waiting)
    spent, trained, told = 0.0, 0, 0.0
    if watcher and waiting:
        watcher.begun(len(rows), len(waiting), spent_by(store), budget)

    def note(run_id: str, result: Outcome) -> None:
        nonlocal spent, trained
        again = False
        if result.done is not None:
            store.finished(run_id, result)
            trained += 1
        else:
            again = store.failed(run_id, result, retries=retries)
        if again:
            waiting.append(run_id)
        else:
            spent += rows[run_id]["flops"]
        if watcher:
            watcher.ended(run_id, result, again)

    while waiting or executor.running:
        while waiting and executor.free:
            run_id = waiting.pop(0)
            home = folder / RUNS / run_id
            # Finished, but its study was killed before it could note so?
            already = outcome(home)
            if already is not None:
                note(run_id, already)
                continue
            write_spec(bench.renewed(store.spec(run_id)), home)
            # Noted first: a run is under way, if perhaps not yet, whenever anything works in its folder.
            store.started(run_id, pid=None, log=str(Path(RUNS) / run_id / LOG))
            pid = executor.start(home)
            if pid is not None:
                store.started(run_id, pid=pid, log=str(Path(RUNS) / run_id / LOG))
        ended = executor.ended()
        for result in ended:
            note(result.folder.name, result)
        if ended:
            export(folder, bench, store)
        if watcher and time.monotonic() > told + _TELL_S:
            told = time.monotonic()
            under_way = sum(rows[home.name]["flops"] * share for home, share in _shares(executor.running))
            watcher.tick(executor.running, (spent + under_way) / budget if budget else 1.0)
        time.sleep(_POLL_S)
    return trained


def write_spec(spec: object, home: Path) -> None:
    """Write what the worker of a run is given into the run's folder, which is made where it is missing.

    Raises
    ------
    StudyError
        When it cannot be written.
    """
    import json

    try:
        home.mkdir(parents=True, exist_ok=True)
        replace_file((json.dumps(finite(spec), indent=2) + "\n").encode(), home / SPEC)
    except OSError as error:
        raise StudyError(
            f"{home}: cannot be written ({error.strerror}): choose a folder that is writable and has space"
        ) from None


def export(folder: Path, bench: Bench, store: Store) -> Runs | None:
    """Write the runs table and return it; None while no run is done."""
    specs, outcomes = store.results()
    if not specs:
        return None
    runs = bench.table(specs, outcomes)
    try:
        runs.write(folder / TABLE)
    except RunsError as error:
        raise StudyError(str(error)) from None
    return runs


def _shares(running: list[Path]) -> Iterator[tuple[Path, float]]:
    """How much of each run under way is done, by its last record."""
    for home in running:
        record = progress(home)
        yield home, min(1.0, record["step"] / record["steps"]) if record and record.get("steps") else 0.0
