"""What a study would do next, and what it would cost, without doing any of it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.errors import StudyError
from lawkit.study.answer import Answer
from lawkit.study.bench import PlannedRun, make_bench
from lawkit.study.circle import Circle
from lawkit.study.executors import check_executor
from lawkit.study.generation import made_corpus, missing, targets_of
from lawkit.study.spec import StudySpec, read_study
from lawkit.study.spending import check_pays, grid_runs, known, later_grids, on_runs, spent
from lawkit.study.store import FILE, Store

if TYPE_CHECKING:
    from lawkit.study.bench import Bench

#: Share of a matrix product's speed that training reaches, and seconds a process takes to begin; both rough.
_SHARE, _BEGIN_S = 0.3, 8.0


def price(folder: str | Path, *, workers: int | None = None, renewed: bool = False) -> dict[str, Any]:
    """The next runs of a study, their flops and how long they may take; the study is left as it is.

    Parameters
    ----------
    folder, workers
        As for `run_study`.
    renewed
        Whether to name further runs of a study that stopped short of its tolerance, as if its budget were renewed.

    Returns
    -------
    dict
        spent and budget (flops, None without one), round, runs (a list), generated (a list of what has yet to be
        generated), flops of both (of generation where it is known), seconds of these runs, seconds_all
        until the budget is used up (None without one), rate (flops a second and worker) and where that `rate_from`.

    Raises
    ------
    StudyError
        As `run_study` would.
    """
    folder = Path(folder)
    spec = read_study(folder)
    check_executor(spec)
    with tempfile.TemporaryDirectory() as aside:
        copy = Path(aside)
        if (folder / FILE).is_file():
            _copy(folder / FILE, copy / FILE)
        try:
            with Store(copy) as store:
                if spec.built is not None:
                    made = made_corpus(spec, store)
                    if made is None:
                        return _price_unmade(spec, store, workers or spec.limits.workers or 1)
                    spec = made
                bench = make_bench(spec)
                return _price(spec, bench, store, workers or spec.limits.workers, renewed)
        except StudyError as error:
            raise StudyError(str(error).replace(str(copy), str(folder))) from None


def _price(spec: StudySpec, bench: Bench, store: Store, workers: int | None, renewed: bool) -> dict[str, Any]:
    store.setting(bench.setting)
    store.again(store.in_state("running"))
    rounds = store.rounds()
    round_, runs = 0, spec.plan(bench)
    stop = None
    if spec.goal is not None:
        circle = Circle(spec, bench, store)
        circle.begin(later_grids(spec, store, runs))
        rounds = store.rounds()
        round_ = rounds[-1]["round"]
    store.propose(runs, round_=round_)
    waiting = [_told(row) for row in store.rows() if row["state"] == "proposed"]
    if spec.goal is not None and not waiting:
        stop = rounds[-1]["stop"]
        more = renewed and stop is not None and not stop.startswith("tolerance")
        if rounds[-1]["decision"] is not None and (stop is None or more):
            round_ += 1
            left = spec.goal.budget if more else None
            waiting = [_of(run) for run in Circle(spec, bench, store).next_runs(left)[0]]
    flops = sum(run["flops"] for run in waiting)
    seconds, source, rate = _speed(bench, store)
    at_once = workers or _at_once(bench)
    used, budget = spent(store), None if spec.goal is None else spec.goal.budget
    mean = flops / len(waiting) if waiting else None
    rest = max(0.0, budget - used) if budget is not None else None
    return {
        "spent": used,
        "budget": budget,
        "round": round_,
        "stop": stop,
        "runs": waiting,
        "generated": [],
        "flops": flops,
        "seconds": sum(seconds(run["flops"]) for run in waiting) / max(1, min(at_once, len(waiting))),
        "seconds_all": None if rest is None or not mean else rest / mean * seconds(mean) / at_once,
        "workers": at_once,
        "rate": rate,
        "rate_from": source,
    }


def _price_unmade(spec: StudySpec, store: Store, workers: int) -> dict[str, Any]:
    """As `_price`, of a study whose corpus is not made: the runs of its grids at 6 N D, and what is generated first."""
    generated = missing(spec, targets_of(spec, store))  # checks the mixtures too
    check_pays(spec, generated)
    runs = grid_runs(spec)
    of_runs = sum(run["flops"] for run in runs)
    rate = _SHARE * _product_speed()
    return {
        "spent": on_runs(store) + sum(source["spent"] for source in generated),
        "budget": None if spec.goal is None else spec.goal.budget,
        "round": 0,
        "stop": None,
        "runs": runs,
        "generated": generated,
        "flops": of_runs + known(source["flops"] for source in generated),
        "seconds": (len(runs) * _BEGIN_S + of_runs / rate) / max(1, min(workers, len(runs))),
        "seconds_all": None,
        "workers": workers,
        "rate": rate,
        "rate_from": "a matrix product on this machine, roughly",
    }


def _speed(bench: Bench, store: Store) -> tuple[Any, str, float | None]:
    """Seconds of a run by its flops, and what that rests on."""
    if isinstance(bench.work, Answer):
        lasting = bench.work.seconds
        return (lambda flops: lasting), "the study's file", None
    done = [row for row in store.rows() if row["state"] == "done" and row["wall_s"]]
    if done:
        rate = sum(row["flops"] for row in done) / sum(row["wall_s"] for row in done)
        source = f"{len(done)} finished runs"
    else:
        rate, source = _SHARE * _product_speed(), "a matrix product on this machine, roughly"
    return (lambda flops: _BEGIN_S + flops / rate), source, rate


def _product_speed() -> float:
    """Flops a second of products of matrices of the size that small models have, on one processor."""
    import numpy as np

    a = np.ones((256, 256), np.float32)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < 0.1:
        np.matmul(a, a)
        count += 1
    return 2 * 256**3 * count / (time.perf_counter() - begun)


def _at_once(bench: Bench) -> int:
    from lawkit.backends.torchtitan.launch import slots

    return 1 if isinstance(bench.work, Answer) else len(slots(bench.work.gpus, None, bench.work.cpus))


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("run_id", "size", "n_params", "n_tokens", "seed", "flops")}


def _of(run: PlannedRun) -> dict[str, Any]:
    names = ("run_id", "size", "n_params", "n_tokens", "seed", "flops")
    return {key: getattr(run, key) for key in names} | {"weights": dict(run.weights)}


def _copy(source: Path, target: Path) -> None:
    """A store that may be in use, as it is now."""
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        if source.with_name(f"{source.name}-wal").exists():
            raise StudyError(
                f"{source}: {error}: see that the folder is writable and the file is whole"
            ) from None
        shutil.copyfile(source, target)  # the store itself says what is wrong with it
