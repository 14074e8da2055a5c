"""What a study has spent, and what it has to: flops of its runs, and of the text that is generated for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lawkit.errors import StudyError
from lawkit.study.start import FEWEST, SHARE

if TYPE_CHECKING:
    from lawkit.study.bench import PlannedRun
    from lawkit.study.spec import StudySpec
    from lawkit.study.store import Store

#: Key of the store for the corpus that was made, and how its generated sources came about.
MADE = "corpus"


def on_runs(store: Store) -> float:
    """Flops of all runs that were done or failed; what a failed run did not use counts too."""
    return sum(row["flops"] for row in store.rows() if row["state"] in ("done", "failed"))


def on_generation(store: Store) -> float:
    """Flops of the text that the corpus was made with, as far as they are known."""
    return known(source["flops"] for source in (store.kept(MADE) or {}).get("generated", ()))


def spent(store: Store, generated: Iterable[Mapping[str, Any]] | None = None) -> float:
    """Flops that count against the budget of a study.

    Parameters
    ----------
    generated
        Its generated sources as far as they are, see `lawkit.study.generation.so_far`; by default those of the corpus
        that was made.
    """
    text = on_generation(store) if generated is None else known(source["flops"] for source in generated)
    return on_runs(store) + text


def known(flops: Iterable[float | None]) -> float:
    """The sum of those that are known."""
    return sum(value for value in flops if value is not None)


def grid_runs(spec: StudySpec) -> list[dict[str, Any]]:
    """The runs of the grids at 6 N D, of a study whose corpus is not made; its mixtures are right."""
    from lawkit.backends.torchtitan.ladder import size_from

    assert spec.built is not None
    runs = []
    for grid in spec.grids:
        mixtures = len(grid.over(spec.built.names))
        for size in map(size_from, grid.sizes):
            run = {"run_id": grid.path, "size": size.name, "n_params": size.n_params}
            for tokens in grid.tokens:
                for seed in grid.seeds * mixtures:
                    runs.append(
                        {**run, "n_tokens": tokens, "seed": seed, "flops": 6.0 * size.n_params * tokens}
                    )
    return runs


def later_grids(spec: StudySpec, store: Store, planned: Sequence[PlannedRun]) -> float:
    """Flops of the runs of grids that came into the file after the start; more than is left of the budget is refused.

    Raises
    ------
    StudyError
    """
    if spec.goal is None or not store.rounds():
        return 0.0
    asked = {run.run_id: run.flops for run in planned}
    # Of the grids' runs that are there, those that are neither done nor asked for any more will be taken out.
    there = {
        row["run_id"]: row["flops"]
        for row in store.rows()
        if row["state"] == "done" or row["origin"] != "spec" or row["run_id"] in asked
    }
    new = sum(flops for run_id, flops in asked.items() if run_id not in there)
    left = spec.goal.budget - on_generation(store) - sum(there.values())
    if new > max(left, 0.0):
        raise StudyError(
            f"{spec.path}: the new runs of the grids take {new:.4g} flops, and of loop.budget, {spec.goal.budget:.4g}, "
            f"{max(left, 0.0):.4g} are left: raise it, or ask for fewer or smaller runs"
        )
    return new


def check_pays(spec: StudySpec, generated: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to generate what leaves too little of the budget for the runs that a study begins with.

    Parameters
    ----------
    generated
        As `lawkit.study.generation.missing` gives it.

    Raises
    ------
    StudyError
    """
    from lawkit.backends.torchtitan.ladder import size_from

    goal = spec.goal
    if goal is None:
        return
    text = [(source["name"], source["spent"] + (source["flops"] or 0.0)) for source in generated]
    if spec.grids:
        runs, what = sum(run["flops"] for run in grid_runs(spec)), "the runs of the grids"
    else:
        assert goal.ladder is not None
        count = goal.start or FEWEST
        cheapest = 6.0 * min(size_from(size).n_params for size in goal.ladder.sizes) * min(goal.ladder.tokens)
        runs = count * cheapest / (1.0 if goal.start else SHARE)
        what = f"a start of {count} runs at the cheapest of the ladder"
    total = runs + sum(flops for _, flops in text)
    if total > goal.budget and any(flops for _, flops in text):
        told = ", ".join(f"{flops:.4g} for {name}" for name, flops in text if flops)
        raise StudyError(
            f"{spec.path}: loop.budget is {goal.budget:.4g} flops, and generation ({told}) and {what} ({runs:.4g}) "
            f"take {total:.4g} or more: raise it, or let the runs need fewer generated tokens (smaller tokens, a bound "
            "on the source)"
        )
