"""A batch of runs, chosen one by one: each choice updates the posterior, none is trained in between."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lawkit.design.candidates import Candidates
from lawkit.design.value import Posterior, Slopes

#: Runs are ranked by what they save over flops to each of these powers; the batch that ends best is kept. The
#: first is the usual greedy rule, which spends little where cheap runs are good value; the last ignores cost
#: but for the budget.
POWERS = (1.0, 0.75, 0.5, 0.25, 0.0)

#: Candidates that a batch is chosen from; of more, those worth most at the start.
WIDE = 20_000
#: Sums of flops are exact to this, relatively.
ROUNDING = 1e-12
#: How many batches are improved by exchange; how many of the best candidates, at the start and at the end,
#: are tried in exchange; and how often each pick is tried.
IMPROVED, SHORT, PASSES = 3, 1500, 4

Stop = Literal["budget", "number", "tolerance", "candidates"]


@dataclass(frozen=True)
class Batch:
    """Chosen runs.

    Attributes
    ----------
    picks
        Indices of candidates, in the order chosen; one may come more than once.
    value
        What is left of the criterion.
    stopped
        What ended the choice.
    """

    picks: list[int]
    value: float
    stopped: Stop


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What ends a batch: flops spent, runs chosen, or the criterion at or below the tolerance."""

    budget: float
    number: int
    tolerance: float = 0.0


class Valuation:
    """What each candidate would save of a criterion, kept up to date as runs are added.

    Parameters
    ----------
    factor
        (G, r, P) of a criterion tr(A Sigma A'); None for half the log determinant of Sigma.
    """

    def __init__(self, slopes: Slopes, posterior: Posterior, factor: np.ndarray | None) -> None:
        self.slopes, self.factor, self.posterior = slopes, factor, posterior
        groups, n, m, _ = slopes.shape
        self.spread = np.empty((groups, n, m, m))
        self.reach = np.empty((groups, n, m, 0 if factor is None else factor.shape[1]))
        carried = None if factor is None else np.swapaxes(factor @ posterior.covariance, 1, 2)[:, None]
        for part, block in slopes.blocks():
            moved = np.matmul(block, posterior.covariance[:, None])
            self.spread[:, part] = np.matmul(moved, np.swapaxes(block, 2, 3))
            if carried is not None:
                self.reach[:, part] = np.matmul(block, carried)

    def copy(self) -> Valuation:
        """One to add other runs to."""
        other = copy(self)
        other.spread, other.reach = self.spread.copy(), self.reach.copy()
        return other

    def saved(self) -> np.ndarray:
        """(n,) decrease of the criterion by one run of each candidate."""
        noise = self.posterior.noise**2
        if self.spread.shape[-1] == 1:
            total = self.spread[..., 0, 0] + noise
            if self.factor is None:
                return 0.5 * np.log(total / noise).sum(0)
            return (np.einsum("gnr,gnr->gn", self.reach[:, :, 0], self.reach[:, :, 0]) / total).sum(0)
        total = self.spread + (noise[:, None, :, None] * np.eye(noise.shape[1]))
        if self.factor is None:
            return 0.5 * (np.linalg.slogdet(total)[1] - np.log(noise).sum(1)[:, None]).sum(0)
        return np.einsum("gnmr,gnmr->n", np.linalg.solve(total, self.reach), self.reach)

    def add(self, pick: int) -> None:
        """Take one run of candidate `pick` as done: an exact update of rank m."""
        self._move(self.posterior.gain(self.slopes.at(pick)), -1.0)

    def remove(self, pick: int) -> None:
        """Take one run of candidate `pick` back."""
        self._move(self.posterior.gain(self.slopes.at(pick), taken=True), 1.0)

    def _move(self, gain: np.ndarray, sign: float) -> None:
        """Add sign * gain gain' to the covariance; `gain` (G, P, m)."""
        carried = None if self.factor is None else np.swapaxes(self.factor @ gain, 1, 2)[:, None]
        for part, block in self.slopes.blocks():
            moved = np.matmul(block, gain[:, None])  # (G, part, m, m)
            self.spread[:, part] += sign * np.matmul(moved, np.swapaxes(moved, 2, 3))
            if carried is not None:
                self.reach[:, part] += sign * np.matmul(moved, carried)
        self.posterior = Posterior(
            self.posterior.covariance + sign * gain @ np.swapaxes(gain, 1, 2), self.posterior.noise
        )


def greedy(
    candidates: Candidates, slopes: Slopes, posterior: Posterior, factor: np.ndarray | None, limits: Limits
) -> Batch:
    """The best of several greedy batches, see `POWERS`, with runs exchanged one by one while that helps.

    Where batches reach the tolerance, the cheapest of them.
    """
    start = Valuation(slopes, posterior, factor)
    saved = start.saved()
    if len(candidates) > WIDE:
        # What never comes first by any rule at the start rarely does later; the efficiency tells if it did.
        ranks = [np.argsort(np.argsort(-saved / candidates.flops**power)) for power in POWERS]
        wide = np.sort(np.argsort(np.min(ranks, axis=0), kind="stable")[:WIDE])
        part = slopes.select(wide)
        batch = greedy(part.candidates, part, posterior, factor, limits)
        return Batch(wide[batch.picks].tolist(), batch.value, batch.stopped)
    states = [start.copy() for _ in POWERS]
    found = [_greedy(candidates, s, saved, limits, p) for s, p in zip(states, POWERS, strict=True)]
    cost = [float(candidates.flops[b.picks].sum()) for b in found]
    done = [i for i, b in enumerate(found) if b.stopped == "tolerance"]
    if done:
        return found[min(done, key=lambda i: cost[i])]
    order = sorted(range(len(found)), key=lambda i: (found[i].value, cost[i]))[:IMPROVED]
    tried = [c for i in order for c in (*found[i].picks, *np.argsort(-states[i].saved())[:SHORT])]
    short = np.unique([*tried, *np.argsort(-saved)[:SHORT]])
    part = slopes.select(short)
    return min(
        (_improved(found[i], part, short, posterior, factor, limits) for i in order), key=lambda b: b.value
    )


def _improved(
    batch: Batch,
    part: Slopes,
    short: np.ndarray,
    posterior: Posterior,
    factor: np.ndarray | None,
    limits: Limits,
) -> Batch:
    """A batch after exchange with the candidates `short`, whose slopes are `part`."""
    try:
        better = _exchanged(
            part.candidates, part, posterior, factor, limits, np.searchsorted(short, batch.picks).tolist()
        )
    except (
        np.linalg.LinAlgError
    ):  # a run that nearly all knowledge rests on cannot be taken back in floating point
        return batch
    stopped: Stop = (
        "number" if len(better) == limits.number else "budget" if batch.stopped == "number" else batch.stopped
    )
    return Batch(short[better].tolist(), _value(better, part, posterior, factor), stopped)


def _value(picks: list[int], slopes: Slopes, posterior: Posterior, factor: np.ndarray | None) -> float:
    """What is left of the criterion after the picks, computed afresh."""
    if factor is not None:
        return replay(picks, slopes, posterior, factor)[-1]
    for pick in picks:
        posterior = posterior.observed(slopes.at(pick))
    return 0.5 * float(np.linalg.slogdet(posterior.covariance)[1].sum())


def _exchanged(
    candidates: Candidates,
    slopes: Slopes,
    posterior: Posterior,
    factor: np.ndarray | None,
    limits: Limits,
    picks: list[int],
) -> list[int]:
    """Picks, each in turn taken back and replaced by the best that fits; the rest of the budget filled."""
    state = Valuation(slopes, posterior, factor)
    for pick in picks:
        state.add(pick)
    picks = list(picks)

    def best_fit() -> tuple[int, float]:
        fits = candidates.flops <= limits.budget * (1 + ROUNDING) - candidates.flops[picks].sum()
        if candidates.once:
            fits[picks] = False
        saved = np.where(fits, state.saved(), -np.inf)
        return int(np.argmax(saved)), float(saved.max())

    for _ in range(PASSES):
        changed = False
        for old in list(picks):
            picks.remove(old)
            state.remove(old)
            new, gain = best_fit()
            new = new if gain > -np.inf else old
            state.add(new)
            picks.append(new)
            changed |= new != old
        while len(picks) < limits.number and best_fit()[1] > -np.inf:
            new, _ = best_fit()
            state.add(new)
            picks.append(new)
            changed = True
        if not changed:
            break
    return _ordered(candidates, slopes, posterior, factor, picks)


def _ordered(
    candidates: Candidates, slopes: Slopes, posterior: Posterior, factor: np.ndarray | None, picks: list[int]
) -> list[int]:
    """The picks, those that save most per flop first."""
    left, out = sorted(picks), []
    own = slopes.select(np.array(left))
    state = Valuation(own, posterior, factor)
    open_ = np.ones(len(left), bool)
    while open_.any():
        i = int(np.argmax(np.where(open_, state.saved() / own.candidates.flops, -np.inf)))
        state.add(i)
        open_[i] = False
        out.append(left[i])
    return out


def _greedy(
    candidates: Candidates, state: Valuation, saved: np.ndarray, limits: Limits, power: float
) -> Batch:
    value = _value([], state.slopes, state.posterior, state.factor)
    price = candidates.flops**power
    left, open_, picks = limits.budget, np.ones(len(candidates), bool), []
    while True:
        if state.factor is not None and value <= limits.tolerance:
            return Batch(picks, value, "tolerance")
        if len(picks) == limits.number:
            return Batch(picks, value, "number")
        within = candidates.flops <= left + ROUNDING * limits.budget
        if not (open_ & within).any():
            return Batch(picks, value, "candidates" if within.any() else "budget")
        if picks:
            saved = state.saved()
        pick = int(np.argmax(np.where(open_ & within, saved / price, -np.inf)))
        state.add(pick)
        value = value - float(saved[pick]) if state.factor is None else state.posterior.trace(state.factor)
        left -= candidates.flops[pick]
        picks.append(pick)
        open_[pick] = not candidates.once


def in_order(candidates: Candidates, limits: Limits, following: Callable[[np.ndarray], int]) -> Batch:
    """Runs taken one by one, each once; `following` names the next of a mask (n,) of those that fit."""
    left, open_, picks = limits.budget, np.ones(len(candidates), bool), []
    stopped: Stop = "number"
    while len(picks) < limits.number:
        within = open_ & (candidates.flops <= left + ROUNDING * limits.budget)
        if not within.any():
            stopped = "budget" if open_.any() else "candidates"
            break
        pick = following(within)
        left -= candidates.flops[pick]
        picks.append(pick)
        open_[pick] = False
    return Batch(picks, np.nan, stopped)


def replay(picks: list[int], slopes: Slopes, posterior: Posterior, factor: np.ndarray) -> list[float]:
    """The criterion with factor (G, r, P) before and after each pick."""
    values = [posterior.trace(factor)]
    for pick in picks:
        posterior = posterior.observed(slopes.at(pick))
        values.append(posterior.trace(factor))
    return values
