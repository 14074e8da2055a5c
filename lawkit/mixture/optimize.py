"""From a fit and the limits of reality to the best mixture for a run that has not been trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture import _capacity_search, additive, exponential, transfer
from lawkit.mixture._cones import SolverError
from lawkit.mixture._form import Scale
from lawkit.mixture._warnings import edge_warnings, scale_warnings
from lawkit.mixture.certificate import frank_wolfe_gap
from lawkit.mixture.problem import RESOLUTION, MixtureProblem
from lawkit.mixture.result import ActiveConstraint, MixtureResult
from lawkit.mixture.smooth import Derivatives, minimise, multi_start

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: A convex solution with a larger gap is refused, nats.
TOLERANCE = 1e-6
#: A conic solution with a larger gap is polished, nats.
POLISH = 1e-9

#: A steeper slope is that of a power at zero weight: infinite, or as good as.
STEEPEST = 1e6

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


class Target:
    """One fit at one scale: what the mixture is judged by.

    Parameters
    ----------
    fit
        The fitted law.
    n_params, n_tokens
        The run to plan; None for the geometric mean of the fitted runs.
    unique
        Unique tokens by source (K,), for laws that count repetition; None otherwise.
    """

    def __init__(
        self, fit: Fit, n_params: float | None, n_tokens: float | None, unique: np.ndarray | None = None
    ) -> None:
        self.fit = fit
        # A fit without a size column has no way to use the size asked for.
        self.n_params = n_params if fit.runs.n_params is not None else None
        self.n_tokens = n_tokens if fit.runs.n_tokens is not None else None
        self.unique = unique

    @cached_property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Natural parameters by domain."""
        return self.fit.parameters

    def losses(self, mixtures: np.ndarray) -> np.ndarray:
        """Predicted losses (n, E) of mixtures (n, K)."""
        unique = None if self.unique is None else np.broadcast_to(self.unique, mixtures.shape)
        with np.errstate(all="ignore"):
            return self.fit.losses(self.n_params, self.n_tokens, mixtures, unique)

    def derivatives(self, target: np.ndarray) -> Derivatives:
        """The target-weighted (E,) objective with gradient and Hessian, as a function of the mixture."""
        used = np.flatnonzero(target > 0)
        v = target[used]

        def evaluate(h: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            with np.errstate(all="ignore"):
                loss, gradient, hessian = self.fit.weights_derivatives(
                    self.n_params, self.n_tokens, h, self.unique
                )
                return float(v @ loss[used]), v @ gradient[used], np.tensordot(v, hessian[used], 1)

        return evaluate

    @property
    def scale(self) -> Scale:
        """The scale as the convex forms read it."""
        n_ref, d_ref = self.fit.reference["n_params"], self.fit.reference["n_tokens"]
        return Scale(
            n_params=n_ref if self.n_params is None else self.n_params,
            n_tokens=d_ref if self.n_tokens is None else self.n_tokens,
            n_ref=n_ref,
            d_ref=d_ref,
        )


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
    >>> import lawkit
    >>> fit = lawkit.load_fit("fit")  # doctest: +SKIP
    >>> best = lawkit.optimize_mixture(  # doctest: +SKIP
    ...     fit, n_params=7e9, n_tokens=1e12, bounds={"hq": (0, 0.5)}
    ... )
    >>> best.weights, best.optimality_gap  # doctest: +SKIP
    """
    if not fit.sources or "weights" not in fit.law.columns:
        raise OptimizeError(
            f"law {fit.law.name} does not depend on mixture weights, so there is no mixture to choose: "
            "fit runs with weight_<source> columns by a law of mixtures (lawkit laws lists them)"
        )
    for name, value in (("n_params", n_params), ("n_tokens", n_tokens)):
        if value is None and name in fit.law.columns and getattr(fit.runs, name) is not None:
            raise OptimizeError(f"{name} of the run to plan is missing: law {fit.law.name} depends on it")
        if value is not None and not (math.isfinite(value) and value > 0):
            raise OptimizeError(f"{name} must be a positive number, got {value!r}")
    problem = MixtureProblem.build(
        fit.sources, fit.domains, n_tokens=n_tokens, bounds=bounds, available=available,
        max_epochs=max_epochs, target=target,
    )  # fmt: skip
    at = Target(fit, n_params, n_tokens, _unique(fit, available))
    middle = at.losses(problem.raised(_floor(at)).interior()[None])[0]
    if not np.all(np.isfinite(middle[problem.target > 0])):
        bad = [d for d, v in zip(fit.domains, middle, strict=True) if not np.isfinite(v)]
        raise OptimizeError(
            f"law {fit.law.name} with this fit's parameters gives no finite loss at this scale for "
            f"{', '.join(bad)}: look at the fit's parameters and warnings"
        )
    solution = solve(at, problem, seed)
    free = solve(at, problem.unconstrained(), seed) if problem.limited else solution
    warnings = [*scale_warnings(fit, n_params, n_tokens), *edge_warnings(fit, solution.h), *solution.notes]
    return MixtureResult(
        weights=dict(zip(fit.sources, solution.h.tolist(), strict=True)),
        objective=solution.objective,
        predicted=dict(zip(fit.domains, at.losses(solution.h[None])[0].tolist(), strict=True)),
        optimality_gap=solution.gap,
        certificate=solution.certificate,
        lower_bound=solution.lower_bound,
        active=tuple(_active(at, problem, solution, seed)),
        unconstrained_weights=dict(zip(fit.sources, free.h.tolist(), strict=True)),
        unconstrained_objective=free.objective,
        baselines=_baselines(at, problem),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def solve(at: Target, problem: MixtureProblem, seed: int = 0) -> _Solution:
    """The best mixture of one problem, by the way that fits the law's shape."""
    law = at.fit.law
    problem = problem.raised(_floor(at))
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
        part = problem.replace(domains=tuple(problem.domains[e] for e in used), target=problem.target[used])
        try:
            h = conic([at.parameters[d] for d in part.domains], at.scale, part)
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
    parameters = at.parameters[problem.domains[0]]
    own = problem.replace(domains=problem.sources, target=by_source)
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


def _active(at: Target, problem: MixtureProblem, solution: _Solution, seed: int) -> list[ActiveConstraint]:
    """Limits that the mixture sits on, priced by how the slopes of the objective differ.

    Weight that a looser limit lets in (or out) is taken from (or given to) the best of the other sources, so
    a price is the source's own slope minus that source's: with weights strictly between their limits left,
    their common slope.
    """
    h, slope, near = solution.h, solution.gradient, 1e-9
    floor = _floor(at)
    lower = np.maximum(problem.lower, floor)
    at_lower, at_upper = h - lower < near, problem.upper - h < near
    inside = ~at_lower & ~at_upper
    out = []
    for i, source in enumerate(problem.sources):
        # A weight of zero is no limit of anybody's unless it is also the most allowed.
        capped, raised = at_upper[i] and problem.upper[i] < 1, at_lower[i] and lower[i] > 0
        if not (capped or raised):
            continue
        others = np.arange(len(h)) != i
        if inside[others].any():
            pool = others & inside
            elsewhere = float(h[pool] @ slope[pool] / h[pool].sum())
        elif at_upper[i]:
            pool = others & ~at_lower
            elsewhere = float(slope[pool].max(initial=-np.inf))
        else:
            pool = others & ~at_upper
            elsewhere = float(slope[pool].min(initial=np.inf))
        price = float(slope[i]) - elsewhere
        if at_lower[i] and at_upper[i]:
            kind, limit = "availability" if problem.kinds[i] == "availability" else "fixed", problem.upper[i]
        elif at_upper[i]:
            kind, limit = "availability" if problem.kinds[i] == "availability" else "upper", problem.upper[i]
        else:
            kind, limit = ("lower" if problem.lower[i] >= floor else "law"), lower[i]
        if not abs(price) < STEEPEST:
            price = _first_point(at, problem, solution, i, seed)
        per_billion = 1e9 / problem.tokens_per_weight[i] * price if kind == "availability" else None
        out.append(
            ActiveConstraint(
                source=source,
                kind=kind,
                limit=float(limit),
                price=price,
                price_per_billion_tokens=per_billion,
            )
        )
    return out


def _first_point(at: Target, problem: MixtureProblem, solution: _Solution, i: int, seed: int) -> float:
    """Change of the objective per unit weight over the first hundredth, where the slope is infinite."""
    step = min(0.01, 1 - problem.upper[i])
    if step <= RESOLUTION:
        return math.nan
    upper = problem.upper.copy()
    upper[i] += step
    return (solve(at, problem.replace(upper=upper), seed).objective - solution.objective) / step


def _floor(at: Target) -> float:
    """Least weight that the law tells from zero; 0 where it takes any."""
    return at.fit.law.weight_floor if at.fit.law.weight_floor > RESOLUTION else 0.0


def _unique(fit: Fit, available: Mapping[str, float] | None) -> np.ndarray | None:
    """Unique tokens by source (K,) for a law that needs them."""
    if "unique" not in fit.law.columns:
        return None
    missing = [s for s in fit.sources if s not in (available or {})]
    if missing:
        raise OptimizeError(
            f"law {fit.law.name} counts repeated tokens: give the available unique tokens of every source; "
            f"missing: {', '.join(missing)}"
        )
    assert available is not None
    return np.array([float(available[s]) for s in fit.sources])


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
