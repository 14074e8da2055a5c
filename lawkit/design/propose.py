"""From a fit and a budget to the runs that are worth training next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.design._criteria import METHODS, criterion
from lawkit.design._goals import Goals
from lawkit.design._inputs import check, generation_of, pool_for, warnings_for
from lawkit.design.batch import Batch, Limits, replay
from lawkit.design.candidates import SAME, Candidates
from lawkit.design.foresight import Foresight
from lawkit.design.misfit import misfit_regret
from lawkit.design.proposal import Proposal, ProposedRun
from lawkit.design.relaxation import least
from lawkit.design.value import Posterior, Slopes
from lawkit.errors import LawkitError
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.fitting import Fit

__all__ = ["METHODS", "propose_runs"]

#: Runs at most where the caller names no number.
MOST_RUNS = 32


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
    choices: Runs | None = None,
    also: Sequence[Mapping[str, Any]] = (),
    generation: Mapping[str, float] | None = None,
    stock: Mapping[str, float] | None = None,
    points: int = 1,
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
        'a-optimal': the mean variance of the parameters, each over what it is now. 'random' and 'grid' look
        at no criterion.
    bounds, available, max_epochs, target
        As for `lawkit.optimize_mixture`: the mixture to be chosen obeys them.
    choices
        A table whose mixtures are all there is to choose from, instead of every mixture within the bounds;
        those outside the bounds are left out.
    also
        More targets that the same runs are to serve: mappings with n_params and n_tokens, and optionally
        target, bounds and share, which is what the target's regret counts beside that of the first (1).
    generation
        Flops per token of sources that have to be generated; a run pays for those beyond the `stock`, each run
        as if it were alone.
    stock
        Tokens of such sources that exist; none if not named.
    points
        Fitted vectors at which the law is linearised: the mode, and draws of the posterior beside it, over
        which criteria are averaged.
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
    check(n_params, n_tokens, budget, n, method, tolerance, points)
    rule = criterion(method)
    goals = Goals.build(
        fit, {"n_params": n_params, "n_tokens": n_tokens, "bounds": bounds, "target": target},
        also, available, max_epochs, choices, points, seed,
    )  # fmt: skip
    goal = goals.first
    choice = goal.choice
    if rule.needs_choice:
        rule.factor(goal)  # refuses where there is no choice, before the work
    costs = generation_of(fit, generation, stock)
    pool, warnings = pool_for(
        fit, goal.problem, candidates, goals.near, n_params, n_tokens, budget, seed, costs
    )
    slopes = goals.slopes(pool)
    judge = goals.factor(criterion("regret" if choice else "mspe" if method == "mspe" else "variance"))
    assert judge is not None
    factor = judge if method == "regret" else goals.factor(rule)
    posterior = Posterior.of(fit, len(goals.points))
    ahead = None
    if choice:
        try:
            ahead = Foresight(fit, goals.of[0], seed)
        except LawkitError as error:
            warnings.append(f"expected regret is to first order only: {error}")
    small = tolerance
    if ahead is not None and method == "regret":
        # To first order regret may be the smaller: runs are worth their flops until both are small.
        small *= min(1.0, posterior.trace(judge) / max(float(ahead.before.mean()), 1e-300))
    limits = Limits(budget=budget, number=MOST_RUNS if n is None else n, tolerance=small)
    batch = rule.batch(pool, slopes, posterior, factor, limits, seed)
    judged = replay(batch.picks, slopes, posterior, judge)
    own = replay(batch.picks, slopes, posterior, factor) if factor is not None else None
    warnings += goals.warnings
    expected, errors = (judged, None) if choice else (None, None)
    if ahead is not None:
        chosen = pool.select(np.array(batch.picks, int))
        expected, errors = _simulated(judged, ahead.before, ahead.after(chosen))
        if batch.picks and expected[-1] > expected[0] + 2 * errors["saved"]:
            warnings.append(
                f"these runs are not expected to improve the choice: {expected[0]:.3g} nats are given away now, "
                f"{expected[-1]:.3g} after a fit to them too"
            )
        if method == "regret" and batch.stopped == "tolerance" and expected[-1] > 2 * tolerance:
            warnings.append(
                "small errors of the parameters leave the best mixture where it is, yet larger ones put "
                f"{expected[-1]:.3g} nats at stake, which this criterion cannot see: use method 'variance', or name "
                "mixtures to choose from"
            )
    warnings += warnings_for(fit, n_params, n_tokens, budget, expected[0] if expected else None, method)
    h = goal.h
    return Proposal(
        runs=_runs(fit, pool, batch, expected, own),
        expected_regret_now=expected[0] if expected else None,
        regret_errors=errors,
        regret_misfit=misfit_regret(goals.of[0], seed) if expected else None,
        criterion_now=own[0] if own else None,
        efficiency=_efficiency(judged, pool, slopes, posterior, judge, limits, batch),
        method=method,
        budget=float(budget),
        spent=float(pool.flops[batch.picks].sum()),
        stopped=_reason(batch, n, method, tolerance),
        mixture=None if h is None else dict(zip(fit.sources, h.tolist(), strict=True)),
        n_candidates=len(pool),
        sources=fit.sources,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _simulated(
    judged: list[float], before: np.ndarray, after: np.ndarray
) -> tuple[list[float], dict[str, float]]:
    """Expected regret before and after each run, and the Monte Carlo errors of its ends and of what all runs save.

    The ends are the means of the simulated regrets (S,); between them it falls as the criterion `judged` does.
    """
    start, end = float(before.mean()), float(after.mean())
    fall = judged[0] - judged[-1]
    left = [(value - judged[-1]) / fall if fall > 0 else 1.0 for value in judged[:-1]]
    told = {"now": before, "after": after, "saved": before - after}
    errors = {k: float(v.std(ddof=1) / np.sqrt(len(v))) for k, v in told.items()}
    return [*(end + share * (start - end) for share in left), end], errors


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


def _reason(batch: Batch, n: int | None, method: str, tolerance: float) -> str:
    return {
        "budget": "budget: no candidate fits in what is left",
        "number": f"n: {MOST_RUNS} runs, the most without n" if n is None else f"n: {n} run{'s' * (n != 1)}",
        "tolerance": f"{method} below tolerance: {tolerance:g}",
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
