"""The capacity law's optimum, global and proven, though the loss is not convex in the weights.

Given m, the log of the inner problem's multiplier, everything is separable in the weights, and `lower_bounds` bounds the
loss over a box of weights for a whole range of m at once. At the optimum its prices are those of the optimality
conditions, so that one local search of a box nearly always is the proof as well, once its range of m is cut into bands.
Where the bound stays low in ever narrower bands (upper limits may make it pay to leave weights unspent, and a source may
do well both at its floor and far above), the box is cut at the weight that the bound would rather have elsewhere.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture._capacity_bound import Prices, lower_bounds
from lawkit.mixture.capacity import CapacityObjective
from lawkit.mixture.feasible import strict_start
from lawkit.mixture.polytope import Polytope, linear_program
from lawkit.mixture.smooth import minimise_full

#: A box that cannot beat the best mixture by more than this many nats is closed.
CLOSED = 1e-8
#: Bands that a range of m is cut into, rounds of it at most, and bands that are worth another round.
BANDS, ROUNDS, MOST_BANDS = 8, 12, 64
#: A round of cutting has to leave no more than this part of the gap.
SHRINKS = 0.3


class Found(NamedTuple):
    """A mixture (K,) with what proves it: weights of the losses (1, used), prices of the constraints (c,)."""

    h: np.ndarray
    value: float
    weights: np.ndarray
    outer: np.ndarray
    lower_bound: float


class Local(NamedTuple):
    """Where the local search of a box ended: a mixture (K,), its s, u and m, and prices."""

    h: np.ndarray
    s: np.ndarray
    u: np.ndarray
    m: float
    prices: Prices
    weights: np.ndarray
    outer: np.ndarray


@dataclass(frozen=True)
class Box:
    """Limits (K,) of the weights and of m, and the local search whose prices bound it."""

    lower: np.ndarray
    upper: np.ndarray
    m_low: float
    m_high: float
    local: Local


def solve(objective: CapacityObjective, polytope: Polytope, max_boxes: int = 400) -> Found:
    """The best mixture, with a bound on what any mixture could reach.

    Parameters
    ----------
    objective, polytope
        What is minimised, and the linear limits with room inside.
    max_boxes
        Boxes to bound before the rest is left open.

    Raises
    ------
    OptimizeError
        As `strict_start`, and if the parameters read here do not give the law's own loss.
    """
    return _Search(objective, polytope).run(max_boxes)


class _Search:
    def __init__(self, objective: CapacityObjective, polytope: Polytope) -> None:
        self.objective, self.form, self.polytope = objective, objective.form, polytope
        self.best: Local | None = None
        self.h, self.value = polytope.center, np.inf
        self.proven = np.inf  # over all boxes that are closed
        self.order = itertools.count()
        self.open: list[tuple[float, int, Box]] = []

    def run(self, max_boxes: int) -> Found:
        p = self.polytope
        root = self.searched(p, 1e-2)
        self.visit(Box(p.lower, p.upper, *self.range(p.lower, p.upper), root), -np.inf)
        for _ in range(max_boxes):
            if not self.open or self.open[0][0] >= self.value - CLOSED:
                break
            inherited, _, box = heapq.heappop(self.open)
            self.visit(box, inherited)
        best = self.best
        assert best is not None
        bound = min(self.proven, *(b for b, _, _ in self.open), self.value)
        return Found(self.h, self.value, best.weights, best.outer, float(bound))

    def range(self, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
        """What m can be: it rises with every weight."""
        low, high = (self.form.inner(np.log(h)).m for h in (lower, upper))
        return low - 1e-9, high + 1e-9

    def searched(self, polytope: Polytope, barrier: float) -> Local:
        """A local search of a polytope; its mixture is kept if it is the best so far."""
        objective, begin = self.objective, polytope.center
        objective.rounding = 0.0
        if objective.constrained:
            begin = strict_start(objective, polytope, [begin])
        found = minimise_full(objective, polytope, begin, barrier, corners=True)
        local = self.priced(polytope, found.h, found.rows, found.outer, found.barrier)
        objective.rounding = 0.0
        for h in (found.h, polytope.snap(found.h, 1e-8)):
            if objective.constrained and not (objective.constraints(h)[0] <= 1e-12).all():
                continue
            value, _ = objective.exact(h)
            if value < self.value:
                self.h, self.value, self.best = h, value, local
        return local

    def priced(
        self, polytope: Polytope, h: np.ndarray, rows: np.ndarray, outer: np.ndarray, barrier: float
    ) -> Local:
        """Prices of the optimality conditions at a mixture, with the multipliers that the search ended with."""
        objective, form, problem = self.objective, self.form, self.objective.problem
        weights = objective.weights(h, barrier)
        _, slope = objective.lagrangian(h, weights, outer)
        by_source = np.zeros(len(h))
        np.add.at(by_source, objective.place[objective.used], weights[0])
        ceilings = outer[: len(objective.ceilings)]
        np.add.at(by_source, objective.place[objective.ceilings], ceilings)
        constant = float(by_source @ form.E - ceilings @ objective.most)
        linear = np.zeros(len(h))
        if len(outer) > len(ceilings) and (prior := problem.prior) is not None:
            # The divergence is convex: at least its tangent here.
            used = prior > 0
            steep = outer[-1] * np.where(used, np.log(np.where(used, h / np.where(used, prior, 1.0), 1.0)) + 1, 0.0)
            linear += steep
            constant += -outer[-1] * problem.max_kl - float(outer[-1] * h[used].sum())
        count = len(polytope.most)
        y, w = np.maximum(rows[:count], 0.0), rows[count:]
        sums = y @ polytope.rows + w @ polytope.equal[1:]
        constant -= float(y @ polytope.most + w @ polytope.equal_to[1:])
        price = polytope.unit_price(slope + sums)
        linear += sums - price
        constant += price
        m, u, moves, _ = form.inner(np.log(h), objective.rounding)
        gain, x = by_source * form.c * form.b * np.exp(-form.b * u), np.exp(u)
        share = moves / (form.b + 1)
        q = float(share @ gain / (share @ x))
        prices = Prices(by_source, linear, q, share * (q * x - gain), constant)
        return Local(h, np.log(h), u, m, prices, weights, outer)

    def bounded(self, box: Box) -> tuple[float, tuple[float, float], np.ndarray]:
        """A bound over a box, the range of m that is left, and where the sources (K,) would rather be there."""
        s_low, s_high = np.log(box.lower), np.log(box.upper)
        low, high = np.array([box.m_low]), np.array([box.m_high])
        closed, gap = np.inf, np.inf
        for k in range(ROUNDS):
            found = lower_bounds(self.form, box.local.prices, s_low, s_high, low, high)
            open_ = found.bound < self.value - CLOSED
            closed = min(closed, float(found.bound[~open_].min(initial=np.inf)))
            if not open_.any():
                return closed, (0.0, 0.0), box.local.s
            i = int(np.argmin(found.bound))
            left, low, high = self.value - found.bound[i], low[open_], high[open_]
            if (k > 2 and left > SHRINKS * gap) or len(low) * BANDS > MOST_BANDS * BANDS or k == ROUNDS - 1:
                break
            gap = left
            edges = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, BANDS + 1)
            low, high = edges[:, :-1].ravel(), edges[:, 1:].ravel()
        return min(closed, float(found.bound[i])), (float(low.min()), float(high.max())), found.s[i]

    def visit(self, box: Box, inherited: float) -> None:
        """Bound one box and close or split it."""
        bound, (m_low, m_high), rather = self.bounded(box)
        bound = max(bound, inherited)
        if bound >= self.value - CLOSED:
            self.proven = min(self.proven, bound)
            return
        box = replace(box, m_low=m_low, m_high=m_high)
        far = np.abs(rather - np.clip(box.local.s, np.log(box.lower), np.log(box.upper)))
        i = int(np.argmax(far))
        if far[i] < 1e-7:
            self.push_range(box, bound)
            return
        cut = float(np.exp(0.5 * (rather[i] + np.clip(box.local.s[i], np.log(box.lower[i]), np.log(box.upper[i])))))
        for side in ("lower", "upper"):
            limit = getattr(box, side).copy()
            limit[i] = cut
            self.push(replace(box, **{side: limit}), bound)

    def push_range(self, box: Box, bound: float) -> None:
        """Halves of the range of m."""
        middle = 0.5 * (box.m_low + box.m_high)
        if box.m_high - box.m_low < 1e-12:
            self.proven = min(self.proven, bound)  # nothing left to split
            return
        for part in (replace(box, m_high=middle), replace(box, m_low=middle)):
            heapq.heappush(self.open, (bound, next(self.order), part))

    def push(self, box: Box, bound: float) -> None:
        """A box without what its limits exclude, searched unless its parent's mixture is in it."""
        lower, upper = box.lower, box.upper
        lower = np.maximum(lower, 1 - (upper.sum() - upper) - 1e-12)
        upper = np.minimum(upper, 1 - (lower.sum() - lower) + 1e-12)
        if (lower > upper + 1e-12).any():
            return
        low, high = self.range(lower, upper)
        box = replace(
            box, lower=lower, upper=np.maximum(lower, upper), m_low=max(low, box.m_low), m_high=min(high, box.m_high)
        )  # fmt: skip
        if box.m_low > box.m_high:
            return
        h = box.local.h
        if (h < lower - 1e-9).any() or (h > upper + 1e-9).any():
            part = replace(self.polytope, lower=box.lower, upper=box.upper)
            if _empty(part):
                return
            try:
                box = replace(box, local=self.searched(part.inner(), 1e-2))
            except OptimizeError:
                pass  # too narrow to search: its parent's prices bound it
        heapq.heappush(self.open, (bound, next(self.order), box))


def _empty(polytope: Polytope) -> bool:
    """Whether no mixture keeps to the limits, proven by weak duality."""
    if polytope.simple:
        return polytope.lower.sum() > 1 + 1e-12 or polytope.upper.sum() < 1 - 1e-12
    m, K = len(polytope.most), len(polytope.lower)
    equal = np.vstack([polytope.equal[1:], -polytope.equal[1:]])
    rows = np.vstack([polytope.rows, equal])
    found = linear_program(
        np.r_[np.zeros(K), 1.0], np.r_[polytope.lower, 0.0], np.r_[polytope.upper, np.inf],
        np.r_[np.ones(K), 0.0][None], np.ones(1), np.hstack([rows, -np.ones((len(rows), 1))]),
        np.r_[polytope.most, polytope.equal_to[1:], -polytope.equal_to[1:]],
    )  # fmt: skip
    if found.status != 0 or found.fun < 1e-9:
        return found.status == 2 and bool(polytope.lower.sum() > 1 or polytope.upper.sum() < 1)
    y = np.maximum(-found.ineqlin.marginals, 0.0)
    q = (len(rows) - m) // 2
    return polytope.minimum(np.zeros(K), np.r_[y[:m], y[m : m + q] - y[m + q :]]) > 1e-10
