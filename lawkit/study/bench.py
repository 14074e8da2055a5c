"""Where the runs of a study come from, seen by the study: what can be run, what it costs, and how it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lawkit.errors import LawkitError, StudyError

if TYPE_CHECKING:
    import numpy as np

    from lawkit.backends.torchtitan.launch import Outcome
    from lawkit.runs import Runs
    from lawkit.study.executors import Work
    from lawkit.study.spec import StudySpec


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run that could be done.

    Attributes
    ----------
    run_id
        Its name, which is also that of its folder.
    identity
        Changes with anything that decides the result, and with nothing else.
    size
        What its size is called.
    n_params, n_tokens, weights, seed
        As the runs table will have them.
    flops, flops_6nd
        What it costs, and 6 N D.
    spec
        What the worker is given.
    """

    run_id: str
    identity: str
    size: str
    n_params: float
    n_tokens: float
    weights: Mapping[str, float]
    seed: int
    flops: float
    flops_6nd: float
    spec: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A rung of the ladder: `size` and `tokens` as asked for, the exact numbers, and what a run there costs."""

    size: Any
    tokens: float
    n_params: float
    n_tokens: float
    flops: float


class Bench(Protocol):
    """What a study knows of where its runs come from."""

    sources: tuple[str, ...]
    domains: tuple[str, ...]
    #: What all runs share; it may not change once a run is done.
    setting: dict[str, Any]
    #: How an executor does a run.
    work: Work

    def plan(
        self, size: Any, tokens: float, weights: Mapping[str, float], seed: int, recipe: Mapping[str, Any]
    ) -> PlannedRun:
        """The run asked for; a LawkitError where it cannot be done."""
        ...

    def scales(self) -> list[Scale]:
        """The rungs that the study's file allows, cheapest first."""
        ...

    def upper(self) -> np.ndarray:
        """(K,) the largest weight of each source that a run can have."""
        ...

    def candidates(
        self, mixtures: np.ndarray, done: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]]
    ) -> Runs:
        """What could be run next, without losses: mixtures (m, K) at every rung, but for what `failed` (specs).

        A recorded run can be had once, so those that are `done` do not come again there.
        """
        ...

    def chosen(self, candidates: Runs, row: int, seed: int) -> PlannedRun:
        """The run of a row of `candidates`, with a seed where the table names none."""
        ...

    def renewed(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The spec of a stored run as the worker should have it now: files may lie elsewhere."""
        ...

    def table(self, specs: Sequence[Mapping[str, Any]], outcomes: Sequence[Outcome]) -> Runs:
        """The runs table of finished runs."""
        ...

    def prepare(self, waiting: Sequence[Mapping[str, Any]]) -> None:
        """See to it that these runs can be done, before the first of them starts; a StudyError where they cannot."""
        ...


def make_bench(spec: StudySpec) -> Bench:
    """Where the runs of a study come from.

    Raises
    ------
    StudyError
        When the study's backend or its corpus cannot be used; or, for a study that decides something, when its
        constraints leave no mixture or its target lies inside the ladder.
    """
    from lawkit.study.answered import Answered
    from lawkit.study.spec import TRAINED
    from lawkit.study.trained import Trained

    try:
        bench: Bench = Trained(spec) if spec.backend == TRAINED else Answered(spec)
    except StudyError:
        raise
    except LawkitError as error:
        raise StudyError(f"{spec.path}: {error}") from None
    if spec.goal is not None:
        from lawkit.study.decide import problem_of
        from lawkit.study.goal import check_target

        if len(set(bench.sources)) < 2:
            named = ", ".join(bench.sources) or "none"
            raise StudyError(
                f"{spec.path}: target: a mixture is chosen of two or more sources, and there is {named}: without a "
                "[target] the runs of the grids are done, and no more"
            )
        try:
            problem_of(spec.goal, bench)
            scales = bench.scales()
            check_target(spec.goal, max(6 * s.n_params * s.n_tokens for s in scales), "the ladder")
        except LawkitError as error:
            raise StudyError(f"{spec.path}: {error}") from None
        cheapest = min(scales, key=lambda s: s.flops)
        if cheapest.flops > spec.goal.budget:
            raise StudyError(
                f"{spec.path}: loop.budget is {spec.goal.budget:.4g} flops, less than one run costs: the cheapest of "
                f"the ladder, {cheapest.n_params:.4g} parameters on {cheapest.n_tokens:.4g} tokens, takes "
                f"{cheapest.flops:.4g}"
            )
    return bench
