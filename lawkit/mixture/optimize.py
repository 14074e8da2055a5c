"""From a fit and the limits of reality to the best mixture for a run that has not been trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture import prices
from lawkit.mixture._checks import tail
from lawkit.mixture._warnings import edge_warnings, scale_warnings
from lawkit.mixture.constraints import merged, read_constraints
from lawkit.mixture.objective import Objective
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.result import MixtureResult
from lawkit.mixture.risk import solve_risk
from lawkit.mixture.solve import Solution, solve
from lawkit.mixture.target import Target, check_size, unique_tokens
from lawkit.mixture.uncertainty import uncertainty

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: Draws by default, and the fewest that make an interval.
DRAWS, FEWEST = 200, 20


def optimize_mixture(
    fit: Fit,
    *,
    n_params: float | None = None,
    n_tokens: float | None = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    available: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] | None = None,
    target: Mapping[str, float] | None = None,
    groups: Mapping[str, Any] | None = None,
    constraints: Mapping[str, Any] | str | Path | None = None,
    risk: str | None = None,
    draws: int | None = None,
    interval: float = 0.9,
    baseline: Mapping[str, float] | None = None,
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
        Passes over a source's unique tokens, for all sources or by source; 4 by default.
    target
        Domain to weight in the objective (any positive scale). Default: the mean over all domains.
    groups
        Name to {'sources': names, 'lower': fraction, 'upper': fraction} of the sum of their weights.
    constraints
        Path of a YAML file, or a mapping of the same keys, with these limits and more: `max_ratio` and `max_kl` to a
        `prior` mixture, a `max_loss` of single domains, a budget of `generation`, `over` domains the mean, the maximum
        or CVaR. See `lawkit.mixture.constraints.read_constraints`. Bounds and groups given beside it hold as well;
        the other arguments win by name.
    risk
        What is minimised over draws of the parameters, all of which share the mixture: 'mean', 'cvar:q' (the mean of
        the worst share 1 - q), or 'quantile:q' (searched from the optimum of cvar:q; local). By default 'point': the
        loss under the fit's own parameters.
    draws
        Of the parameters, each with its own best mixture: the `uncertainty` of the result. By default 200 of the
        posterior or bootstrap that the fit was made with, none without; a number asks for as many of the
        Gauss-Newton normal of a fit without. 0 for none.
    interval
        Nominal coverage of all intervals, in (0, 1).
    baseline
        Source to fraction (sum 1 within 1e-3) of a mixture to compare with; unnamed sources have none.
    seed
        For the choice of draws, and the starts used where the law is not convex in the weights.

    Returns
    -------
    MixtureResult

    Raises
    ------
    OptimizeError
        For limits, draws or a baseline that make no sense, limits that no mixture satisfies, a law without
        weights, and a solution whose optimality gap stays open.

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
    asked = merged(
        read_constraints(constraints, fit.sources, fit.domains), bounds=bounds, available=available,
        max_epochs=max_epochs, target=target, groups=groups, risk=risk,
    )  # fmt: skip
    measure = tail(asked.pop("risk", "point"), "risk", ("point", "mean", "cvar:", "quantile:"))
    problem = MixtureProblem.build(fit.sources, fit.domains, n_tokens=n_tokens, **asked)
    available = asked.get("available")
    count = _count(fit, draws)
    if measure[0] != "point" and draws is None and count == 0:
        count = DRAWS
    if not 0 < interval < 1:
        raise OptimizeError(f"interval must lie between 0 and 1, got {interval!r}")
    at = Target(fit, n_params, n_tokens, unique_tokens(fit, available))
    baselines = _baselines(at, problem, baseline)
    middle = at.losses(problem.raised(at.floor).interior()[None])[0]
    if not np.all(np.isfinite(middle[problem.target > 0])):
        bad = [d for d, v in zip(fit.domains, middle, strict=True) if not np.isfinite(v)]
        raise OptimizeError(
            f"law {fit.law.name} with this fit's parameters gives no finite loss at this scale for "
            f"{', '.join(bad)}: look at the fit's parameters and warnings"
        )
    z = fit.draw(count, seed) if measure[0] != "point" else None

    def best(other: MixtureProblem) -> Solution:
        return solve_risk(at, other, seed, z, measure)

    solution = best(problem)
    warnings = [*scale_warnings(fit, n_params, n_tokens), *edge_warnings(fit, solution.h), *solution.notes]
    free: Solution | None = solution
    if problem.limited:
        try:
            free = best(problem.unconstrained())
        except OptimizeError as error:  # for comparison only: the answer asked for stands
            free = None
            warnings.append(f"there is no mixture without limits to compare with: {error}")
    unsure, notes = uncertainty(
        at, problem, solution.h, baselines, count, interval, seed, lambda other: solve(other, problem, seed).h
    )
    judge = Objective(at, problem.raised(at.floor), z, measure)
    return MixtureResult(
        weights=dict(zip(fit.sources, solution.h.tolist(), strict=True)),
        objective=solution.objective,
        risk=measure[0] if measure[0] in ("point", "mean") else f"{measure[0]}:{measure[1]:g}",
        predicted=dict(zip(fit.domains, at.losses(solution.h[None])[0].tolist(), strict=True)),
        optimality_gap=solution.gap,
        certificate=solution.certificate,
        lower_bound=solution.lower_bound,
        active=tuple(prices.active(problem.raised(at.floor), solution, lambda other: best(other).objective)),
        unconstrained_weights=None if free is None else dict(zip(fit.sources, free.h.tolist(), strict=True)),
        unconstrained_objective=None if free is None else free.objective,
        baselines={name: judge.of(h) for name, h in baselines.items()},
        epochs={}
        if n_tokens is None
        else {
            s: n_tokens * float(solution.h[fit.sources.index(s)]) / float(tokens)
            for s, tokens in (available or {}).items()
            if float(tokens) > 0
        },
        uncertainty=unsure,
        warnings=tuple(dict.fromkeys([*warnings, *notes])),
    )


def _count(fit: Fit, draws: int | None) -> int:
    """How many draws to take."""
    if draws is None:
        return 0 if fit.draws is None else min(DRAWS, len(fit.draws))
    if isinstance(draws, bool) or not isinstance(draws, (int, np.integer)) or draws < 0 or 0 < draws < FEWEST:
        raise OptimizeError(
            f"draws must be 0 or a whole number of at least {FEWEST}, got {draws!r}: fewer give no interval"
        )
    return int(draws) if fit.draws is None else min(int(draws), len(fit.draws))


def _baselines(
    at: Target, problem: MixtureProblem, given: Mapping[str, float] | None
) -> dict[str, np.ndarray]:
    """Mixtures (K,) to compare with: the uniform one, the best recorded one, and the one that was given."""
    K, recorded = len(problem.sources), at.fit.runs.weights
    out = {"uniform": np.full(K, 1 / K)}
    recorded = np.unique(recorded[np.isfinite(recorded).all(axis=1)], axis=0)
    objective = at.objectives(at.fit.z[None], recorded, problem.target, problem.over)[0]
    if np.isfinite(objective).any():
        out["best_recorded"] = recorded[np.nanargmin(np.where(np.isfinite(objective), objective, np.nan))]
    if given is not None:
        out["baseline"] = problem.mixture(given, "baseline")
    return out
