"""From a fit and a budget to the runs that are worth training next."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from lawkit.design.batch import Batch, Limits, greedy, random, replay
from lawkit.design.candidates import SAME, Candidates, from_table, generate, space_filling, training_flops
from lawkit.design.proposal import Proposal, ProposedRun
from lawkit.design.relaxation import least
from lawkit.design.value import Decision, Posterior, Slopes, decision, prediction_factor, usable
from lawkit.errors import OptimizeError
from lawkit.mixture import MixtureProblem, optimize_mixture
from lawkit.mixture.problem import RESOLUTION
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.fitting import Fit

Method = Literal["regret", "variance", "d-optimal", "mspe", "random"]
METHODS: tuple[str, ...] = get_args(Method)

#: Runs at most where the caller names no number.
MOST_RUNS = 32
#: Mixtures over which 'mspe' averages.
REGION = 128


def propose_runs(
    fit: Fit,
    *,
    n_params: float,
    n_tokens: float,
    budget: float,
    n: int | None = None,
    candidates: Runs | None = None,
    method: str = "regret",
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    available: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = 4.0,
    target: Mapping[str, float] | None = None,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Proposal:
    """The runs that teach most about the decision at the target, within a budget.

    Parameters
    ----------
    fit
        A fitted law.
    n_params, n_tokens
        The run to plan: non-embedding parameters, training tokens.
    budget
        Flops that the new runs may cost together.
    n
        At most this many runs; by default at most 32.
    candidates
        A table of runs to choose from, each row once; its losses are ignored, its `flops` are the cost where given, else 6 N D.
        By default sizes on a ladder around the recorded ones and mixtures within the bounds are generated, and
        a candidate may be chosen again with another seed.
    method
        'regret': the loss given away by choosing the mixture on what is known. 'variance': the posterior variance of the
        target loss at the optimum and where else it may be. 'mspe': the posterior variance of every domain's loss at the
        target scale, over all mixtures. 'd-optimal': the volume of the posterior. 'random'.
    bounds, available, max_epochs, target
        As for `lawkit.optimize_mixture`: the mixture to be chosen obeys them.
    tolerance
        Nats (nats squared for 'variance' and 'mspe') of the criterion at which no further run is worth it.
    seed
        Of the generated candidates and of 'random'.

    Returns
    -------
    Proposal

    Raises
    ------
    OptimizeError
        For arguments that make no sense, a budget below the cheapest candidate, no usable candidate, and
        for 'regret' under a law without a mixture to choose.

    Examples
    --------
    >>> import lawkit
    >>> fit = lawkit.load_fit("fit")  # doctest: +SKIP
    >>> next_runs = lawkit.propose_runs(fit, n_params=7e9, n_tokens=1e12, budget=1e20)  # doctest: +SKIP
    >>> next_runs.write("next.csv")  # doctest: +SKIP
    """
    _check(n_params, n_tokens, budget, n, method, tolerance)
    problem = _problem(fit, n_tokens, bounds, available, max_epochs, target)
    free = problem is not None and (problem.upper - problem.lower > RESOLUTION).sum() > 1
    if method == "regret" and not free:
        why = "the bounds leave one mixture only" if problem is not None else (
            f"law {fit.law.name} does not depend on mixture weights" if fit.sources else "the runs have no sources"
        )  # fmt: skip
        raise OptimizeError(
            f"there is no mixture to choose ({why}), so no regret: use method 'variance' to predict the loss better"
        )
    at = _At(
        n_params if fit.runs.n_params is not None else None,
        n_tokens if fit.runs.n_tokens is not None else None,
        _unique(fit, available),
    )
    choice = None
    h = None
    if problem is not None:
        best = optimize_mixture(
            fit, n_params=at.n_params, n_tokens=at.n_tokens, seed=seed,
            bounds=bounds, available=available if at.n_tokens else None, max_epochs=max_epochs, target=target,
        )  # fmt: skip
        h = np.array([best.weights[s] for s in fit.sources])
        choice = decision(fit, problem, h, at.n_params, at.n_tokens, seed) if free else None
    near = (
        np.zeros((0, len(fit.sources)))
        if h is None
        else h[None]
        if choice is None
        else np.vstack([h, choice.plausible[::4]])
    )
    pool, warnings = _pool(fit, problem, candidates, near, n_params, n_tokens, budget, seed)
    judge = _criterion(
        "regret" if choice else "mspe" if method == "mspe" else "variance", fit, at, problem, h, choice, seed
    )
    factor = judge if method == "regret" else _criterion(method, fit, at, problem, h, choice, seed)
    limits = Limits(budget=budget, number=MOST_RUNS if n is None else n, tolerance=tolerance)
    posterior, slopes = Posterior.of(fit), Slopes(fit, pool)
    batch = (
        random(pool, limits, seed) if method == "random" else greedy(pool, slopes, posterior, factor, limits)
    )
    judged = replay(batch.picks, slopes, posterior, judge)
    own = replay(batch.picks, slopes, posterior, factor) if factor is not None else None
    warnings += _warnings(fit, n_params, n_tokens, budget, judged[0] if choice else None, method)
    return Proposal(
        runs=_runs(fit, pool, batch, judged if choice else None, own),
        expected_regret_now=judged[0] if choice else None,
        criterion_now=own[0] if own else None,
        efficiency=_efficiency(judged, pool, slopes, posterior, judge, limits, batch),
        method=method,
        budget=float(budget),
        spent=float(pool.flops[batch.picks].sum()),
        stopped=_reason(batch, limits, n),
        mixture=None if h is None else dict(zip(fit.sources, h.tolist(), strict=True)),
        n_candidates=len(pool),
        sources=fit.sources,
        warnings=tuple(dict.fromkeys(warnings)),
    )


@dataclass(frozen=True)
class _At:
    """The target as the law sees it: None for a size that the runs do not record."""

    n_params: float | None
    n_tokens: float | None
    unique: np.ndarray | None


def _check(
    n_params: float, n_tokens: float, budget: float, n: int | None, method: str, tolerance: float
) -> None:
    for name, value in (("n_params", n_params), ("n_tokens", n_tokens), ("budget", budget)):
        if isinstance(value, (bool, str)) or value is None or not (math.isfinite(value) and value > 0):
            raise OptimizeError(f"{name} must be a positive finite number, got {value!r}")
    if n is not None and (isinstance(n, bool) or n != int(n) or n < 1):
        raise OptimizeError(f"n, the number of runs, must be a whole number of at least 1, got {n!r}")
    if not tolerance >= 0:
        raise OptimizeError(f"tolerance must be 0 or more, got {tolerance!r}")
    if method not in METHODS:
        close = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise OptimizeError(f"unknown method {method!r}; {hint}choose one of {', '.join(METHODS)}")


def _problem(
    fit: Fit,
    n_tokens: float,
    bounds: Mapping | None,
    available: Mapping | None,
    max_epochs: float | Mapping,
    target: Mapping | None,
) -> MixtureProblem | None:
    """The mixtures to choose from; None for a law that does not depend on them."""
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
    problem = problem.raised(fit.law.weight_floor if fit.law.weight_floor > RESOLUTION else 0.0)
    # What the sum and the other sources' limits leave of each range: a source may be fixed without saying so.
    least, most = problem.lower, problem.upper
    return problem.replace(
        lower=np.maximum(least, 1 - (most.sum() - most)), upper=np.minimum(most, 1 - (least.sum() - least))
    )


def _unique(fit: Fit, available: Mapping[str, float] | None) -> np.ndarray | None:
    if "unique" not in fit.law.columns:
        return None
    missing = [s for s in fit.sources if s not in (available or {})]
    if missing:
        raise OptimizeError(
            f"law {fit.law.name} counts repetition: say how many tokens of {missing[0]} exist for the target (available)"
        )
    return np.array([float((available or {})[s]) for s in fit.sources])


def _pool(
    fit: Fit, problem: MixtureProblem | None, table: Runs | None, near: np.ndarray,
    n_params: float, n_tokens: float, budget: float, seed: int,
) -> tuple[Candidates, list[str]]:  # fmt: skip
    """The candidates that the law can value, and warnings."""
    warnings = []
    if table is None:
        pool = generate(
            fit, problem, n_params=n_params, n_tokens=n_tokens, budget=budget, near=near, seed=seed
        )
        for column in ("n_params", "n_tokens"):
            if getattr(fit.runs, column) is None:
                warnings.append(f"the runs have no column {column}: new runs are priced at the target's")
    else:
        pool = from_table(fit, table, n_params=n_params, n_tokens=n_tokens, budget=budget)
        if len(pool) < len(table):
            warnings.append(
                f"{len(table) - len(pool)} of {len(table)} candidates cost more than the budget and were left out"
            )
    good = usable(fit, pool)
    if not good.any():
        raise OptimizeError(
            f"law {fit.law.name} predicts no loss within twice the highest observed one for any of {len(pool)} candidates: "
            "they lie where the law cannot be trusted; give other candidates"
        )
    if pool.rows is not None and not good.all():
        rows = pool.rows[~good]
        named = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        warnings.append(
            f"the law's prediction is not finite, or over twice the highest observed loss, at candidates in rows {named}: left out"
        )
    return pool.select(good), warnings


def _criterion(
    method: str,
    fit: Fit,
    at: _At,
    problem: MixtureProblem | None,
    h: np.ndarray | None,
    choice: Decision | None,
    seed: int,
) -> np.ndarray | None:
    """The factor of a method's criterion; None for 'd-optimal' and 'random'."""
    if method == "regret":
        assert choice is not None
        return choice.factor
    if method in ("d-optimal", "random"):
        return None
    if problem is None:
        where = np.full((1, len(fit.sources)), 1 / max(len(fit.sources), 1))
    elif method == "mspe":
        where = space_filling(problem, REGION, seed)
    else:
        where = h[None] if choice is None and h is not None else np.vstack([choice.h, choice.plausible])
    weight = None
    if method == "variance":
        weight = np.full(len(fit.domains), 1 / len(fit.domains)) if problem is None else problem.target
    return prediction_factor(fit, where, at.n_params, at.n_tokens, weight, at.unique)


def _efficiency(
    judged: list[float],
    pool: Candidates,
    slopes: Slopes,
    posterior: Posterior,
    factor: np.ndarray,
    limits: Limits,
    batch: Batch,
) -> float:
    if judged[0] <= limits.tolerance:  # nothing was left to save
        return 1.0
    bound = least(pool, slopes, posterior, factor, replace(limits, tolerance=0.0), batch.picks)
    return float(np.clip((judged[0] - judged[-1]) / max(judged[0] - bound, 1e-300), 0.0, 1.0))


def _reason(batch: Batch, limits: Limits, n: int | None) -> str:
    return {
        "budget": "budget: no candidate fits in what is left",
        "number": f"n: {limits.number} runs"
        if n is not None
        else f"n: {limits.number} runs, the most without n",
        "tolerance": f"regret below tolerance: {limits.tolerance:g}",
        "candidates": "candidates: all that fit were chosen",
    }[batch.stopped]


def _runs(
    fit: Fit, pool: Candidates, batch: Batch, regret: list[float] | None, own: list[float] | None
) -> tuple[ProposedRun, ...]:
    out: list[ProposedRun] = []
    taken: dict[tuple[float, ...], int] = {}
    for i, c in enumerate(batch.picks):
        point = (pool.n_params[c], pool.n_tokens[c], *pool.weights[c].round(6))
        named = -1 if pool.seed is None else int(pool.seed[c])
        seed = named if named >= 0 else taken.get(point, _next_seed(fit.runs, pool, c))
        taken[point] = seed + 1
        unique = None if pool.unique is None else dict(zip(fit.sources, pool.unique[c].tolist(), strict=True))
        out.append(
            ProposedRun(
                n_params=float(pool.n_params[c]),
                n_tokens=float(pool.n_tokens[c]),
                weights=dict(zip(fit.sources, pool.weights[c].tolist(), strict=True)),
                seed=seed,
                flops=float(pool.flops[c]),
                regret_after=None if regret is None else regret[i + 1],
                criterion_after=None if own is None else own[i + 1],
                row=None if pool.rows is None else int(pool.rows[c]),
                unique=unique,
            )
        )
    return tuple(out)


def _next_seed(runs: Runs, pool: Candidates, c: int) -> int:
    """One that no recorded run of the same size and mixture has."""
    same = np.ones(len(runs), bool)
    for values, value in ((runs.n_params, pool.n_params[c]), (runs.n_tokens, pool.n_tokens[c])):
        if values is not None:
            same &= np.abs(values / value - 1) < SAME
    same &= (np.abs(runs.weights - pool.weights[c]) < SAME).all(1)
    if not same.any():
        return 0
    return max(int(same.sum()), 0 if runs.seed is None else int(runs.seed[same].max()) + 1)


def _warnings(
    fit: Fit, n_params: float, n_tokens: float, budget: float, regret: float | None, method: str
) -> list[str]:
    from lawkit.mixture._warnings import scale_warnings

    out = [w for w in scale_warnings(fit, n_params, n_tokens) if "below the data" in w]
    goal = float(training_flops(n_params, n_tokens))
    sizes = [
        np.full(len(fit.runs), v) if (r := getattr(fit.runs, k)) is None else r
        for k, v in (("n_params", n_params), ("n_tokens", n_tokens))
    ]
    recorded = any(getattr(fit.runs, k) is not None for k in ("n_params", "n_tokens"))
    if recorded and goal <= (most := float(training_flops(*sizes).max())) * (1 + SAME):
        out.append(
            f"the target, {goal:.4g} flops, lies inside the data: the dearest run recorded cost {most:.4g}; smaller runs teach little more about it"
        )
    if budget >= goal:
        out.append(
            f"the budget of {budget:.4g} flops would pay for the target run itself ({goal:.4g}); proposals stay below it in cost"
        )
    if regret is not None and regret < 1e-12 and method == "regret":
        out.append(
            "the best mixture sits at limits that nothing uncertain moves, so the expected regret is 0: use method 'variance' if the loss itself matters"
        )
    return out
