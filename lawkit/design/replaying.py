"""The circle turned over a recorded table: what a study would have decided, and when, had it chosen other runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from lawkit import laws
from lawkit.design._criteria import METHODS, criterion
from lawkit.design._goals import Goals
from lawkit.design.batch import Limits, Valuation
from lawkit.design.candidates import Candidates, training_flops
from lawkit.design.grid import sizes_in_turn
from lawkit.design.misfit import misfit_regret
from lawkit.design.policy import LEAST, RATION, method_now, ration, settled
from lawkit.design.published import cheapest, most_saved
from lawkit.design.start import start_number, start_rows
from lawkit.design.value import Posterior, usable
from lawkit.errors import LawkitError
from lawkit.fitting import Fit
from lawkit.fitting.estimate import estimate
from lawkit.runs import Runs

#: Sizes within this fraction are one size.
SAME = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """What was known after each turn.

    Attributes
    ----------
    flops, runs
        Spent so far, and on how many runs.
    regret
        Recorded target loss of the chosen mixture over that of the best recorded one, less 1.
    expected
        What the fit expects of that, the law's own error included.
    misfit
        The part of it that is by the law's own error, see `lawkit.design.misfit`.
    """

    flops: np.ndarray
    runs: np.ndarray
    regret: np.ndarray
    expected: np.ndarray
    misfit: np.ndarray

    def stopped(self, tolerance: float) -> Trace:
        """Up to where a study ends that stops when `expected` stays within the tolerance, see `settled`."""
        turns = range(1, len(self.expected) + 1)
        end = next((n for n in turns if settled(self.expected[:n], tolerance)), len(self.expected))
        return Trace(**{f.name: getattr(self, f.name)[:end] for f in fields(self)})

    def needed(self, tolerance: float) -> float:
        """Flops from which on regret stays at or below the tolerance; infinity if it does not at the end."""
        bad = np.flatnonzero(self.regret > tolerance)
        first = int(bad[-1]) + 1 if len(bad) else 0
        return float(self.flops[first]) if first < len(self.flops) else float("inf")


def replay_study(
    recorded: Runs,
    *,
    method: str = "regret",
    law: str = "transfer-plain",
    target: Mapping[str, float] | None = None,
    start: int | None = None,
    budget: float,
    tolerance: float = 0.0,
    rationed: bool | None = None,
    seed: int = 0,
) -> Trace:
    """Turn the circle over recorded runs: fit, choose a mixture, propose the next runs among those left.

    The mixture is chosen among those recorded at the largest n_params and n_tokens, by the fit's prediction
    there, whatever the method; every recorded run, those too, may be bought at its own cost. A rationed study
    begins with `start_rows` and spends in a turn no more than a fifth of what it has spent so far, or two runs'
    worth at first; so it climbs the sizes slowly. 'regret' goes by the variance of
    the target loss as long as the regret cannot be told, see `lawkit.design.policy.method_now`. Of others, 'random'
    and 'grid' buy two runs in a turn, later a fifth of those so far, from the start by their own rule; 'mspe' goes
    as its authors have it, see `lawkit.design.published`.

    Parameters
    ----------
    recorded
        The table. Rows with a missing target loss are left out.
    method
        One of `METHODS`.
    law
        The law that is fitted.
    target
        Weights of domains; all alike by default.
    start
        How many runs to begin with; by default `start_number`.
    budget
        Flops at which to end.
    tolerance
        Expected regret, as a fraction of the loss, at which to end, see `settled`; 0 for never.
    rationed
        By default all are but 'random' and 'grid', which know no cost. 'mspe' can be either.
    seed
        Of the start and of what is random.

    Raises
    ------
    LawkitError
        For a table without sizes or with fewer than two mixtures at the largest, or an unknown method; for
        an unrationed method other than 'random', 'grid' and 'mspe'.

    Examples
    --------
    >>> runs = Runs(sources=("a", "b"), domains=("c",), n_params=None, n_tokens=None,
    ...     weights=np.eye(2), losses=np.ones((2, 1)))
    >>> replay_study(runs, budget=1e20)
    Traceback (most recent call last):
    lawkit.errors.LawkitError: a replay needs n_params and n_tokens of every recorded run
    """
    if method not in METHODS:
        raise LawkitError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if recorded.n_params is None or recorded.n_tokens is None:
        raise LawkitError("a replay needs n_params and n_tokens of every recorded run")
    blind = method in ("random", "grid")
    rationed = not blind if rationed is None else rationed
    published = method == "mspe" and not rationed
    if not (rationed or blind or published):
        raise LawkitError(f"method {method!r} weighs what a run costs: it is always rationed")
    table = recorded.with_domains(list(target or recorded.domains))
    table = table.select(np.flatnonzero(np.isfinite(table.losses).all(1)))
    assert table.n_params is not None
    assert table.n_tokens is not None
    cost = training_flops(table.n_params, table.n_tokens) if table.flops is None else table.flops
    goal = {"n_params": float(table.n_params.max())}
    largest = table.n_params >= (1 - SAME) * goal["n_params"]
    goal["n_tokens"] = float(table.n_tokens[largest].max())
    choices = table.select(np.flatnonzero(largest & (table.n_tokens >= (1 - SAME) * goal["n_tokens"])))
    if len(choices) < 2:
        raise LawkitError("a replay needs two recorded mixtures at the largest size")
    v = np.array([(target or {}).get(d, 1.0) for d in table.domains])
    truth = choices.losses @ (v / v.sum())
    best = truth.min()

    count = start_number(laws.get(law), len(table.sources)) if start is None else start
    order = _order(table, cost, method, seed)
    have = start_rows(table, count, seed) if rationed else order[:count]
    if published and start is None:
        have = cheapest(cost, laws.get(law), len(table.sources), len(table.domains), seed)
    found: list[tuple[float, int, float, float, float]] = []
    fit: Fit | None = None
    while True:
        fit = _fitted(table.select(have), law, fit)
        spent = float(cost[have].sum())
        goals = Goals.build(fit, {**goal, "target": target}, (), None, 4.0, choices, 1, seed)
        h, choice = goals.first.h, goals.first.choice
        assert h is not None
        regret = truth[np.abs(choices.weights - h).max(1).argmin()] / best - 1
        posterior = Posterior.of(fit)
        loss = float(goals.first.at.losses(h[None])[0] @ goals.first.target)
        if_right = 0.0 if choice is None else posterior.trace(choice.factor) / loss
        misfit = (misfit_regret(goals.of[0], seed) or 0.0) / loss
        found.append((spent, len(have), float(regret), if_right + misfit, misfit))
        left = order[~np.isin(order, have)]
        if (
            spent >= budget
            or not len(left)
            or (tolerance > 0 and settled([row[3] for row in found], tolerance))
        ):
            break
        if blind and not rationed:
            have = np.concatenate([have, left[: _number(have)]])
            continue
        most = budget - spent if published else ration(spent, float(cost[left].min()))
        pool = _candidates(table, cost, left[cost[left] <= most * (1 + 1e-9)])
        if not len(pool):
            break
        good = usable(fit, pool)
        pool = pool.select(good) if good.any() else pool
        rule = criterion(method_now(method, if_right))
        slopes, factor = goals.slopes(pool), goals.factor(rule)
        if published:
            picks = [most_saved(Valuation(slopes, posterior, factor), pool.flops)]
        else:
            limits = Limits(budget=most, number=_number(have))
            picks = rule.batch(pool, slopes, posterior, factor, limits, seed + len(have)).picks
        # A criterion that is 0 buys nothing, but a study that is not to end buys what is cheapest.
        assert pool.rows is not None
        have = np.concatenate([have, pool.rows[picks or np.argsort(pool.flops)[:LEAST].tolist()]])
    flops, runs, regrets, expected, misfits = np.array(found).T
    return Trace(flops=flops, runs=runs.astype(int), regret=regrets, expected=expected, misfit=misfits)


def _number(have: np.ndarray) -> int:
    """Runs of the next turn: a part of those so far, so that late turns are not many."""
    return max(LEAST, int(RATION * len(have)))


def _order(table: Runs, cost: np.ndarray, method: str, seed: int) -> np.ndarray:
    """(n,) rows in the order in which an unrationed study buys them."""
    every = np.arange(len(table))
    if method != "grid":
        return np.random.default_rng(seed).permutation(every)
    return np.array(sizes_in_turn(_candidates(table, cost, every), len(every), seed))


def _candidates(table: Runs, cost: np.ndarray, rows: np.ndarray) -> Candidates:
    assert table.n_params is not None
    assert table.n_tokens is not None
    return Candidates(
        n_params=table.n_params[rows],
        n_tokens=table.n_tokens[rows],
        weights=table.weights[rows],
        flops=cost[rows],
        unique=None if table.unique is None else table.unique[rows],
        rows=rows,
        once=True,
    )


def _fitted(runs: Runs, law: str, last: Fit | None) -> Fit:
    """A fit that starts where the last one ended, or from one start."""
    chosen = laws.get(law)
    found, _ = estimate(runs, chosen, chosen.objective, starts=1, warm=None if last is None else last.z)
    return Fit(runs=runs, estimate=found, train={}, domain_train={})
