"""From a fit and a budget to the runs that are worth training next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.design._inputs import METHODS, check, pool_for, problem_for, warnings_for
from lawkit.design.batch import Batch, Limits, greedy, random, replay
from lawkit.design.candidates import SAME, Candidates, space_filling
from lawkit.design.proposal import Proposal, ProposedRun
from lawkit.design.relaxation import least
from lawkit.design.value import Decision, Posterior, Slopes, decision, prediction_factor
from lawkit.errors import OptimizeError
from lawkit.mixture import MixtureProblem, optimize_mixture
from lawkit.mixture.problem import RESOLUTION
from lawkit.mixture.target import Target, unique_tokens
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.fitting import Fit

__all__ = ["METHODS", "propose_runs"]

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
        A table of runs to choose from, each row once; its losses are ignored, its `flops` are the cost where
        given, else 6 N D. By default sizes on a ladder around the recorded ones and mixtures within the
        bounds are generated, no weight more than half way from the largest recorded one to 1, and a
        candidate may be chosen again with another seed.
    method
        'regret': the loss given away by choosing the mixture on what is known. 'variance': the posterior
        variance of the target loss at the optimum and where else it may be. 'mspe': the posterior variance of
        every domain's loss at the target scale, over all mixtures. 'd-optimal': the volume of the posterior.
        'random'.
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
    >>> import lawkit, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> hq, d = rng.uniform(0.05, 0.9, 16), np.tile([1e9, 4e9], 8)
    >>> losses = 1.4 + np.exp(-3 * hq) + 0.8 * hq**2 + 500 / d**.3
    >>> runs = lawkit.Runs(sources=("web", "hq"), domains=("wiki",), n_params=None, n_tokens=d,
    ...     weights=np.column_stack([1 - hq, hq]), losses=(losses * np.exp(0.003 * rng.normal(size=16)))[:, None])
    >>> fit = lawkit.fit(runs, formula="E + C*exp(-t*w_hq) + F*w_hq**2 + B/D**beta", holdout="none")
    >>> found = lawkit.propose_runs(fit, n_params=1e9, n_tokens=1e11, budget=1e20, n=2)
    >>> [r.regret_after < found.expected_regret_now for r in found.runs]
    [True, True]
    >>> found.write("next.csv")  # doctest: +SKIP
    """
    check(n_params, n_tokens, budget, n, method, tolerance)
    at = Target(fit, n_params, n_tokens, unique_tokens(fit, available))
    problem = problem_for(at, n_tokens, bounds, available, max_epochs, target)
    free = problem is not None and (problem.upper - problem.lower > RESOLUTION).sum() > 1
    if method == "regret" and not free:
        why = "the bounds leave one mixture only"
        if problem is None:
            why = (
                f"law {fit.law.name} does not depend on weights"
                if fit.sources
                else "the runs have no sources"
            )
        raise OptimizeError(
            f"there is no mixture to choose ({why}), so no regret: use method 'variance' to predict the loss "
            "better"
        )
    # Which domains count also matters to laws without a mixture to choose.
    goal = (problem or MixtureProblem.build(("any",), fit.domains, target=target)).target
    choice = None
    h = None
    if problem is not None:
        best = optimize_mixture(
            fit, n_params=n_params, n_tokens=n_tokens, seed=seed,
            bounds=bounds, available=available, max_epochs=max_epochs, target=target, draws=0,
        )  # fmt: skip
        h = np.array([best.weights[s] for s in fit.sources])
        choice = decision(at, problem, h, seed) if free else None
    near = (
        np.zeros((0, len(fit.sources)))
        if h is None
        else h[None]
        if choice is None
        else np.vstack([h, choice.plausible[::4]])
    )
    pool, warnings = pool_for(fit, problem, candidates, near, n_params, n_tokens, budget, seed)
    judge = _criterion(
        "regret" if choice else "mspe" if method == "mspe" else "variance", at, goal, problem, h, choice, seed
    )
    factor = judge if method == "regret" else None  # 'd-optimal' has no factor, 'random' no criterion
    if method in ("variance", "mspe"):
        factor = _criterion(method, at, goal, problem, h, choice, seed)
    limits = Limits(budget=budget, number=MOST_RUNS if n is None else n, tolerance=tolerance)
    posterior, slopes = Posterior.of(fit), Slopes(fit, pool)
    batch = (
        random(pool, limits, seed) if method == "random" else greedy(pool, slopes, posterior, factor, limits)
    )
    judged = replay(batch.picks, slopes, posterior, judge)
    own = replay(batch.picks, slopes, posterior, factor) if factor is not None else None
    warnings += warnings_for(fit, n_params, n_tokens, budget, judged[0] if choice else None, method)
    return Proposal(
        runs=_runs(fit, pool, batch, judged if choice else None, own),
        expected_regret_now=judged[0] if choice else None,
        criterion_now=own[0] if own else None,
        efficiency=_efficiency(judged, pool, slopes, posterior, judge, limits, batch),
        method=method,
        budget=float(budget),
        spent=float(pool.flops[batch.picks].sum()),
        stopped=_reason(batch, limits, n, method),
        mixture=None if h is None else dict(zip(fit.sources, h.tolist(), strict=True)),
        n_candidates=len(pool),
        sources=fit.sources,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _criterion(
    method: str,
    at: Target,
    goal: np.ndarray,
    problem: MixtureProblem | None,
    h: np.ndarray | None,
    choice: Decision | None,
    seed: int,
) -> np.ndarray:
    """The factor of what is judged by: 'regret' where there is a choice, 'variance' or 'mspe'."""
    if method == "regret" and choice is not None:
        return choice.factor
    if problem is None:
        K = len(at.fit.sources)
        where = np.full((1, K), 1 / max(K, 1))
    elif method == "mspe":
        where = space_filling(problem, REGION, seed)
    else:
        assert h is not None
        where = h[None] if choice is None else np.vstack([h, choice.plausible])
    return prediction_factor(at, where, None if method == "mspe" else goal)


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


def _reason(batch: Batch, limits: Limits, n: int | None, method: str) -> str:
    return {
        "budget": "budget: no candidate fits in what is left",
        "number": f"n: {limits.number} runs"
        if n is not None
        else f"n: {limits.number} runs, the most without n",
        "tolerance": f"{method} below tolerance: {limits.tolerance:g}",
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
