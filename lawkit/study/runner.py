"""Train the runs of a study: start workers, note what comes of them, go on where a killed study stopped."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lawkit.errors import RunsError, StudyError
from lawkit.study.lock import hold
from lawkit.study.spec import StudySpec, read_study
from lawkit.study.store import Store

if TYPE_CHECKING:
    from lawkit.backends.torchtitan.launch import Outcome
    from lawkit.backends.torchtitan.spec import TrainingSpec

#: Names in the folder of a study.
TABLE, RUNS = "runs.csv", "runs"
_POLL_S, _TELL_S = 0.1, 1.0
#: Bytes a parameter takes in a checkpoint: weight and two moments in fp32; two are kept and one is being written.
_CHECKPOINT = 3 * 12
#: Bytes for the store, logs and records.
_SLACK = 10_000_000


class Watcher(Protocol):
    """Is told how a study goes."""

    def begun(self, total: int, waiting: int) -> None:
        """Called once: runs in all, and how many are still to be trained."""

    def ended(self, run_id: str, outcome: Outcome, again: bool) -> None:
        """A run has ended; `again` says whether a failed one is tried once more."""

    def tick(self, running: list[Path], share: float) -> None:
        """Called often: folders of the runs under way, and which share of the flops to be done is done."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a study has come to: its runs table and how many runs are in each state."""

    table: Path | None
    done: int
    failed: int
    waiting: int
    trained: int


def run_study(
    folder: str | Path,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    watcher: Watcher | None = None,
) -> Summary:
    """Train all runs of a study that are not done, and write the runs table.

    Killed at any moment, it loses nothing that was finished; called again, it goes on. A run that fails is tried again
    as often as the study's file allows, recorded, and does not stop the others.

    Parameters
    ----------
    folder
        Of the study, with its study.toml.
    workers
        Runs at a time; None: what the file says, or what the machine takes.
    retry_failed
        Whether runs that failed before are tried once more.
    watcher
        Is told how it goes.

    Raises
    ------
    StudyError
        When the file is wrong, another process runs the study, or the folder cannot be written.
    """
    from lawkit.backends.torchtitan.spec import VERSION
    from lawkit.corpus import open_corpus

    folder = Path(folder)
    spec = read_study(folder)
    corpus = open_corpus(spec.corpus)
    planned = spec.plan(corpus)
    if not os.access(folder, os.W_OK):
        raise StudyError(f"{folder} cannot be written to: change its permissions, or choose another folder")
    if spec.limits.python is None and importlib.util.find_spec("torchtitan") is None:
        raise StudyError(
            "torchtitan is not installed here: pip install 'lawkit[torchtitan]', or name an interpreter that has it as "
            "limits.python"
        )
    with hold(folder), Store(folder) as store:
        setting = {
            "version": VERSION,
            "corpus": corpus.digest,
            "recipe": dict(spec.recipe),
            "available": dict(spec.available),
        }
        store.setting(setting)
        # Nobody else runs this study, so a run under way is one whose study was killed.
        store.again(store.in_state("running"))
        # Then only: what was interrupted and has left the file is taken out.
        store.propose(planned)
        if retry_failed:
            store.again(store.in_state("failed"))
        _check_space(folder, [store.spec(run_id) for run_id in store.in_state("proposed")])
        trained = _train(folder, spec, store, workers, watcher)
        table = _export(folder, store)
        states = [row["state"] for row in store.rows()]
    return Summary(
        table=table,
        done=states.count("done"),
        failed=states.count("failed"),
        waiting=states.count("proposed"),
        trained=trained,
    )


def _train(folder: Path, spec: StudySpec, store: Store, workers: int | None, watcher: Watcher | None) -> int:
    from lawkit.backends.torchtitan.launch import LOG, Pool, outcome, slots
    from lawkit.backends.torchtitan.spec import write_spec

    limits = spec.limits
    where = slots(limits.ranks, workers or limits.workers, limits.threads)
    waiting = store.in_state("proposed")
    costs = {row["run_id"]: row["flops"] for row in store.rows()}
    budget = sum(costs[run_id] for run_id in waiting)
    spent, trained, told = 0.0, 0, 0.0
    if watcher:
        watcher.begun(len(costs), len(waiting))

    def note(run_id: str, result: Outcome) -> None:
        nonlocal spent, trained
        again = False
        if result.done is not None:
            store.finished(run_id, result)
            _export(folder, store)
            trained += 1
        else:
            again = store.failed(run_id, result, retries=limits.retries)
        if again:
            waiting.append(run_id)
        else:
            spent += costs[run_id]
        if watcher:
            watcher.ended(run_id, result, again)

    with Pool(
        where,
        ranks=limits.ranks,
        threads=limits.threads,
        python=limits.python,
        silent_s=limits.silent_s,
        run_s=limits.run_s,
    ) as pool:
        while waiting or pool.running:
            while waiting and pool.free:
                run_id = waiting.pop(0)
                home = folder / RUNS / run_id
                # Finished, but its study was killed before it could note so?
                already = outcome(home)
                if already is not None:
                    note(run_id, already)
                    continue
                write_spec(store.spec(run_id), home)
                store.started(run_id, pid=pool.start(home), log=str(Path(RUNS) / run_id / LOG))
            for result in pool.ended():
                note(result.folder.name, result)
            if watcher and time.monotonic() > told + _TELL_S:
                told = time.monotonic()
                under_way = sum(costs[home.name] * share for home, share in _shares(pool.running, store))
                watcher.tick(pool.running, (spent + under_way) / budget if budget else 1.0)
            time.sleep(_POLL_S)
    return trained


def _shares(running: list[Path], store: Store) -> Iterator[tuple[Path, float]]:
    """How much of each run under way is done, by its last record."""
    from lawkit.backends.torchtitan.launch import progress

    for home in running:
        record = progress(home)
        yield home, record["step"] / store.spec(home.name).steps if record else 0.0


def _export(folder: Path, store: Store) -> Path | None:
    """Write the runs table; None while no run is done."""
    runs = store.runs()
    if not len(runs):
        return None
    try:
        runs.write(folder / TABLE)
    except RunsError as error:
        raise StudyError(str(error)) from None
    return folder / TABLE


def _check_space(folder: Path, specs: list[TrainingSpec]) -> None:
    """Refuse to start where the checkpoints of the largest run would not fit."""
    largest = max((s.size.n_params_with_head(2 * s.vocab_size) for s in specs), default=0)
    needed, free = largest * _CHECKPOINT + _SLACK, shutil.disk_usage(folder).free
    if specs and needed > free:
        raise StudyError(
            f"{folder}: {free / 1e6:,.0f} MB are free, and the checkpoints of the largest run need about "
            f"{needed / 1e6:,.0f} MB: free some space, or choose another disk"
        )


def study_status(folder: str | Path) -> dict[str, Any]:
    """How far a study is: its states, runs and who runs it; nothing is changed.

    Raises
    ------
    StudyError
        When the folder is no study.
    """
    from lawkit.backends.torchtitan.launch import progress
    from lawkit.study.lock import holder
    from lawkit.study.store import FILE, STATES

    folder = Path(folder)
    read_study(folder)
    runs: list[dict[str, Any]] = []
    if (folder / FILE).is_file():
        with Store(folder) as store:
            runs = store.rows()
    for run in runs:
        record = progress(folder / RUNS / run["run_id"]) if run["state"] == "running" else None
        run["progress"] = record
    states = {state: sum(run["state"] == state for run in runs) for state in STATES}
    table = folder / TABLE
    return {
        "folder": folder,
        "run_by": holder(folder),
        "states": states,
        "table": table if table.is_file() else None,
        "runs": runs,
    }
