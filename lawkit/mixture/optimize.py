"""From a fit and the limits of reality to the best mixture for a run that has not been trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture import _capacity_search, additive, exponential, prices, transfer
from lawkit.mixture._cones import SolverError
from lawkit.mixture._warnings import edge_warnings, scale_warnings
from lawkit.mixture.certificate import frank_wolfe_gap
from lawkit.mixture.problem import RESOLUTION, MixtureProblem
from lawkit.mixture.result import MixtureResult
from lawkit.mixture.smooth import minimise, multi_start
from lawkit.mixture.target import Target, check_size, unique_tokens

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: A convex solution with a larger gap is refused, nats.
TOLERANCE = 1e-6
#: A conic solution with a larger gap is polished, nats.
POLISH = 1e-9

#: Narrower ranges of weights are not searched.
NARROW = 1e-7

#: Convex programs by the `form` that a law declares.
FORMS = {"transfer": transfer.solve, "exponential": exponential.solve, "additive": additive.solve}


@dataclass(frozen=True)
class _Solution:
    h: np.ndarray
    objective: float
    gradient: np.ndarray
    gap: float
    certificate: Literal["global", "local"]
    lower_bound: float | None
    notes: tuple[str, ...] = ()


def optimize_mixture(
    fit: Fit,
    *,
    n_params: float | None = None,
    n_tokens: float | None = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    available: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = 4.0,
    target: Mapping[str, float] | None = None,
    seed: int = 0,
) -> MixtureResult:
    """The mixture with the least predicted loss at a scale, with a certificate.

    Parameters
    ----------
    fit
        A fitted law that depends on mixture weights.
    n_params, n_tokens
        The run to plan: non-embedding parameters, training tokens. None only where the fitted runs have no
        such column.
    bounds
        Source to (lower, upper) fraction of the mixture; None for no limit.
    available
        Source to unique tokens that exist; each may be seen `max_epochs` times.
    max_epochs
        Passes over a source's unique tokens, for all sources or by source.
    target
        Domain to weight in the objective (any positive scale). Default: the mean over all domains.
    seed
        For the starts used where the law is not convex in the weights.

    Returns
    -------
    MixtureResult

    Raises
    ------
    OptimizeError
        For limits that make no sense or that no mixture satisfies, for a law without weights, and for a
        solution whose optimality gap stays open.

    Examples
    --------
    >>> import lawkit, numpy as np
    >>> hq = np.linspace(0.05, 0.95, 12)
    >>> d = np.tile([1e9, 4e9], 6)
    >>> runs = lawkit.Runs(sources=("web", "hq"), domains=("wiki",), n_params=None, n_tokens=d,
    ...     weights=np.column_stack([1 - hq, hq]), losses=(1.5 + np.exp(-hq) + 500 / d**.3)[:, None])
    >>> fit = lawkit.fit(runs, law="exponential-scale", holdout="none")
    >>> best = lawkit.optimize_mixture(fit, n_tokens=1e12, bounds={"hq": (0, 0.5)})
    >>> best.weights, best.certificate
    ({'web': 0.5, 'hq': 0.5}, 'global')
    >>> best.shadow_prices["hq"] < 0  # more of it would help
    True
    """
    if not fit.sources or "weights" not in fit.law.columns:
        raise OptimizeError(
            f"law {fit.law.name} does not depend on mixture weights, so there is no mixture to choose: "
            "fit runs with weight_<source> columns by a law of mixtures (lawkit laws lists them)"
        )
    for name, value in (("n_params", n_params), ("n_tokens", n_tokens)):
        if value is None and name in fit.law.columns and getattr(fit.runs, name) is not None:
            raise OptimizeError(f"{name} of the run to plan is missing: law {fit.law.name} depends on it")
        if value is not None:
            check_size(name, value)
    problem = MixtureProblem.build(
        fit.sources, fit.domains, n_tokens=n_tokens, bounds=bounds, available=available,
        max_epochs=max_epochs, target=target,
    )  # fmt: skip
    at = Target(fit, n_params, n_tokens, unique_tokens(fit, available))
    middle = at.losses(problem.raised(at.floor).interior()[None])[0]
    if not np.all(np.isfinite(middle[problem.target > 0])):
        bad = [d for d, v in zip(fit.domains, middle, strict=True) if not np.isfinite(v)]
        raise OptimizeError(
            f"law {fit.law.name} with this fit's parameters gives no finite loss at this scale for "
            f"{', '.join(bad)}: look at the fit's parameters and warnings"
        )
    solution = solve(at, problem, seed)
    warnings = [*scale_warnings(fit, n_params, n_tokens), *edge_warnings(fit, solution.h), *solution.notes]
    free: _Solution | None = solution
    if problem.limited:
        try:
            free = solve(at, problem.unconstrained(), seed)
        except OptimizeError as error:  # for comparison only: the answer asked for stands
            free = None
            warnings.append(f"there is no mixture without limits to compare with: {error}")
    return MixtureResult(
        weights=dict(zip(fit.sources, solution.h.tolist(), strict=True)),
        objective=solution.objective,
        predicted=dict(zip(fit.domains, at.losses(solution.h[None])[0].tolist(), strict=True)),
        optimality_gap=solution.gap,
        certificate=solution.certificate,
        lower_bound=solution.lower_bound,
        active=tuple(
            prices.active(
                problem,
                at.floor,
                solution.h,
                solution.gradient,
                solution.objective,
                lambda other: solve(at, other, seed).objective,
            )
        ),
        unconstrained_weights=None if free is None else dict(zip(fit.sources, free.h.tolist(), strict=True)),
        unconstrained_objective=None if free is None else free.objective,
        baselines=_baselines(at, problem),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def solve(at: Target, problem: MixtureProblem, seed: int = 0) -> _Solution:
    """The best mixture of one problem, by the way that fits the law's shape."""
    law = at.fit.law
    problem = problem.raised(at.floor)
    room = min(1 - problem.lower.sum(), problem.upper.sum() - 1)
    if room <= 1e3 * RESOLUTION:
        # One mixture is left: it is the best there is, whatever the law.
        h = problem.lower if 1 - problem.lower.sum() <= 1e3 * RESOLUTION else problem.upper
        objective, gradient, _ = at.derivatives(problem.target)(h / h.sum())
        return _Solution(h / h.sum(), objective, gradient, 0.0, "global", objective)
    if room < NARROW:
        raise OptimizeError(
            f"the limits leave each weight a range of {room:.1g} only, too narrow to search and too wide to be one "
            "mixture: fix the weights or widen the limits"
        )
    if law.form == "capacity":
        return _solve_capacity(at, problem)
    if law.convex_in_weights:
        return _solve_convex(at, problem)
    return _solve_local(at, problem, seed)


def _solve_convex(at: Target, problem: MixtureProblem) -> _Solution:
    evaluate = at.derivatives(problem.target)
    candidates, notes = [], []
    conic = FORMS.get(at.fit.law.form or "")
    if conic is not None:
        used = np.flatnonzero(problem.target > 0)
        part = replace(problem, domains=tuple(problem.domains[e] for e in used), target=problem.target[used])
        try:
            natural = at.fit.parameters
            h = conic([natural[d] for d in part.domains], at.scale, part)
            candidates.append(_judged(evaluate, problem, problem.snap(h, 0.0)))
        except SolverError as error:
            notes.append(f"the conic solver failed ({error}); the interior-point method was used instead")
    if candidates and POLISH < candidates[0].gap < np.inf:
        near = problem.interior(candidates[0].h, depth=1e-6)
        candidates.append(_judged(evaluate, problem, minimise(evaluate, problem, start=near, barrier=1e-8).h))
    if not any(c.gap <= POLISH for c in candidates):
        candidates.append(_judged(evaluate, problem, minimise(evaluate, problem).h))
    # Weights a hair from a limit belong on it, unless the law's slope there says otherwise.
    best = min(candidates, key=lambda s: s.gap)
    for zeros in (True, False):
        snapped = _judged(evaluate, problem, problem.snap(best.h, 1e-8, zeros=zeros))
        if snapped.gap <= max(best.gap, 0.1 * POLISH):
            best = snapped
            break
    if not best.gap <= TOLERANCE:
        raise OptimizeError(
            f"the best mixture found may be {best.gap:.3g} nats above the optimum, more than {TOLERANCE:g}, "
            f"though law {at.fit.law.name} says it is convex in the weights: look at the fit's parameters"
        )
    return _Solution(
        best.h, best.objective, best.gradient, best.gap, "global", best.objective - best.gap, tuple(notes)
    )


def _solve_capacity(at: Target, problem: MixtureProblem) -> _Solution:
    evaluate = at.derivatives(problem.target)
    by_source = np.zeros(len(problem.sources))
    by_source[[problem.sources.index(d) for d in problem.domains]] = problem.target
    parameters = at.fit.parameters[problem.domains[0]]
    own = replace(problem, domains=problem.sources, target=by_source)
    found = _capacity_search.solve(parameters, at.scale, own, evaluate)
    objective, gradient, _ = evaluate(found.h)
    gap = max(0.0, objective - found.lower_bound)
    if gap <= TOLERANCE:
        return _Solution(found.h, objective, gradient, gap, "global", found.lower_bound)
    note = (
        f"the mixture is within {gap:.2g} nats of the best possible, but that it is the best is not proven: "
        "the limits keep the capacity law's convex relaxation from being exact"
    )
    return _Solution(found.h, objective, gradient, gap, "local", found.lower_bound, (note,))


def _solve_local(at: Target, problem: MixtureProblem, seed: int) -> _Solution:
    evaluate = at.derivatives(problem.target)
    found = multi_start(evaluate, problem, seed)
    best = _judged(evaluate, problem, found[0].h)
    for zeros in (True, False):
        snapped = _judged(evaluate, problem, problem.snap(best.h, 1e-8, zeros=zeros))
        if snapped.objective <= best.objective + 1e-12 and snapped.gap < np.inf:
            best = snapped
            break
    agree = sum(s.objective <= best.objective + TOLERANCE for s in found)
    note = (
        f"law {at.fit.law.name} is not known to be convex in the weights: the mixture is the best of "
        f"{len(found)} starts, {agree} of which ended within {TOLERANCE:g} nats of it; proven only locally"
    )
    return _Solution(best.h, best.objective, best.gradient, best.gap, "local", None, (note,))


def _judged(evaluate, problem: MixtureProblem, h: np.ndarray) -> _Solution:
    objective, gradient, _ = evaluate(h)
    gap = frank_wolfe_gap(gradient, h, problem) if np.isfinite(objective) else np.inf
    return _Solution(h, objective, gradient, gap, "local", None)


def _baselines(at: Target, problem: MixtureProblem) -> dict[str, float]:
    """The objective at the uniform and at the best recorded mixture."""
    K, recorded = len(problem.sources), at.fit.runs.weights
    recorded = np.unique(recorded[np.isfinite(recorded).all(axis=1)], axis=0)
    with np.errstate(all="ignore"):
        objective = at.losses(np.vstack([np.full((1, K), 1 / K), recorded])) @ problem.target
    out = {"uniform": float(objective[0])}
    finite = objective[1:][np.isfinite(objective[1:])]
    if len(finite):
        out["best_recorded"] = float(finite.min())
    return out
