"""What `propose_runs` is given, checked and turned into a problem and candidates."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.design._criteria import METHODS
from lawkit.design.candidates import SAME, Candidates, Generation, from_table, generate, training_flops
from lawkit.design.value import usable
from lawkit.errors import OptimizeError
from lawkit.mixture import MixtureProblem
from lawkit.mixture._warnings import scale_warnings
from lawkit.mixture.limits import generation_cost
from lawkit.mixture.target import Target, check_size
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.fitting import Fit


def check(
    n_params: float,
    n_tokens: float,
    budget: float,
    n: int | None,
    method: str,
    tolerance: float,
    points: int = 1,
) -> None:
    """Refuses arguments that make no sense."""
    for name, value in (("n_params", n_params), ("n_tokens", n_tokens), ("budget", budget)):
        check_size(name, value)
    if n is not None and (isinstance(n, bool) or n != int(n) or n < 1):
        raise OptimizeError(f"n, the number of runs, must be a whole number of at least 1, got {n!r}")
    if isinstance(points, bool) or points != int(points) or points < 1:
        raise OptimizeError(f"points must be a whole number of at least 1, got {points!r}")
    if not tolerance >= 0:
        raise OptimizeError(f"tolerance must be 0 or more, got {tolerance!r}")
    if method not in METHODS:
        close = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise OptimizeError(f"unknown method {method!r}; {hint}choose one of {', '.join(METHODS)}")


def generation_of(
    fit: Fit, generation: Mapping[str, float] | None, stock: Mapping[str, float] | None
) -> Generation | None:
    """What tokens cost that have to be generated first; None for nothing."""
    if not generation:
        if stock:
            raise OptimizeError("stock says how many generated tokens exist: say what they cost (generation)")
        return None
    cost = generation_cost(generation, fit.sources)
    there = np.zeros(len(fit.sources))
    for name, value in (stock or {}).items():
        if name not in fit.sources:
            raise OptimizeError(f"stock: unknown source {name!r}; the fit has {', '.join(fit.sources)}")
        there[fit.sources.index(name)] = value
    if not (there >= 0).all():
        raise OptimizeError("stock: tokens must be 0 or more")
    return Generation(cost=cost, stock=there)


def problem_for(
    at: Target,
    n_tokens: float,
    bounds: Mapping | None,
    available: Mapping | None,
    max_epochs: float | Mapping,
    target: Mapping | None,
) -> MixtureProblem | None:
    """The mixtures to choose from; None for a law that does not depend on them."""
    fit = at.fit
    if not fit.sources or "weights" not in fit.law.columns:
        if bounds:
            raise OptimizeError(
                f"bounds limit mixture weights, but law {fit.law.name} does not depend on any: leave them out"
            )
        return None
    problem = MixtureProblem.build(
        fit.sources,
        fit.domains,
        n_tokens=n_tokens,
        bounds=bounds,
        available=available,
        max_epochs=max_epochs,
        target=target,
    )
    # Laws that are infinite at zero weight name the least they take.
    problem = problem.raised(at.floor)
    # What the sum and the other sources' limits leave of each range: a source may be fixed without saying so.
    least, most = problem.lower, problem.upper
    return replace(
        problem,
        lower=np.maximum(least, 1 - (most.sum() - most)),
        upper=np.minimum(most, 1 - (least.sum() - least)),
    )


def pool_for(
    fit: Fit, problem: MixtureProblem | None, table: Runs | None, near: np.ndarray,
    n_params: float, n_tokens: float, budget: float, seed: int, generation: Generation | None = None,
) -> tuple[Candidates, list[str]]:  # fmt: skip
    """The candidates that the law can value, and warnings."""
    warnings = []
    if table is None:
        pool = generate(
            fit, problem, n_params=n_params, n_tokens=n_tokens, budget=budget, near=near, seed=seed,
            generation=generation,
        )  # fmt: skip
        for column in ("n_params", "n_tokens"):
            if getattr(fit.runs, column) is None:
                warnings.append(f"the runs have no column {column}: new runs are priced at the target's")
    else:
        pool = from_table(
            fit, table, n_params=n_params, n_tokens=n_tokens, budget=budget, generation=generation
        )
        if len(pool) < len(table):
            warnings.append(
                f"{len(table) - len(pool)} of {len(table)} candidates cost more than the budget: left out"
            )
    good = usable(fit, pool)
    if not good.any():
        raise OptimizeError(
            f"law {fit.law.name} predicts no loss within twice the highest observed one for any of "
            f"{len(pool)} candidates: they lie where the law cannot be trusted; give other candidates"
        )
    if pool.rows is not None and not good.all():
        rows = pool.rows[~good]
        named = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        warnings.append(
            f"the law's prediction is not finite, or over twice the highest observed loss, at candidates in "
            f"rows {named}: left out"
        )
    return pool.select(good), warnings


def warnings_for(
    fit: Fit, n_params: float, n_tokens: float, budget: float, regret: float | None, method: str
) -> list[str]:
    """What to know of the target and the budget."""
    out = [w for w in scale_warnings(fit, n_params, n_tokens) if "below the data" in w]
    goal = float(training_flops(n_params, n_tokens))
    sizes = [
        np.full(len(fit.runs), v) if (r := getattr(fit.runs, k)) is None else r
        for k, v in (("n_params", n_params), ("n_tokens", n_tokens))
    ]
    recorded = any(getattr(fit.runs, k) is not None for k in ("n_params", "n_tokens"))
    if recorded and goal <= (most := float(training_flops(*sizes).max())) * (1 + SAME):
        out.append(
            f"the target, {goal:.4g} flops, lies inside the data: the dearest run recorded cost {most:.4g}; "
            "smaller runs teach little more about it"
        )
    if budget >= goal:
        out.append(
            f"the budget of {budget:.4g} flops would pay for the target run itself ({goal:.4g}); generated "
            "runs stay below it in cost"
        )
    if regret is not None and regret < 1e-12 and method == "regret":
        out.append(
            "the best mixture sits at limits that nothing uncertain moves, so the expected regret is 0: "
            "use method 'variance' if the loss itself matters"
        )
    return out
