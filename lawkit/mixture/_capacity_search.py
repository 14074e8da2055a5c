"""The capacity law's optimum, global and proven, though the loss is not convex in the weights.

Given m, the log of the inner problem's multiplier, everything is separable in the weights, and `lower_bounds` bounds
the loss over a box of weights for a whole range of m at once. At the optimum its prices are those of the optimality
conditions, so that one local search of a box nearly always is the proof as well, once its range of m is cut into bands.
Where the bound stays low, better prices are found for the middle of the range; where no prices do (upper limits may
make it pay to leave weight unspent, and a source may do well both at its floor and far above), the box is cut.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture._capacity_bound import Prices, lower_bounds
from lawkit.mixture.capacity import CapacityObjective
from lawkit.mixture.feasible import strict_start
from lawkit.mixture.infeasible import proven_empty
from lawkit.mixture.polytope import Polytope, linear_program
from lawkit.mixture.smooth import minimise_full, starting_mixtures

#: A box that cannot beat the best mixture by more than this many nats is closed.
CLOSED = 1e-7
#: Bands that a range of m is cut into, rounds of it at most, and bands that are worth another round.
BANDS, ROUNDS, MOST_BANDS = 8, 12, 64
#: Steps towards better prices.
KELLEY = 30
#: Cuts leave at least this part of a box.
EDGE = 0.01
#: A round of cutting has to leave no more than this part of the gap.
SHRINKS = 0.3


class Found(NamedTuple):
    """A mixture (K,) with what proves it: weights of the losses (1, used), prices of the constraints (c,)."""

    h: np.ndarray
    value: float
    weights: np.ndarray
    outer: np.ndarray
    lower_bound: float


class Charges(NamedTuple):
    """`Prices` in parts: p of a unit of weight, y (r,) of the rows and further equations, q of capacity."""

    weights: np.ndarray
    charge: np.ndarray
    constant: float
    p: float
    y: np.ndarray
    q: float
    mu: np.ndarray


@dataclass(frozen=True)
class Box:
    """Limits (K,) of the weights and of m, prices that bound it, those of a search first, and where (K,) that ended."""

    lower: np.ndarray
    upper: np.ndarray
    m_low: float
    m_high: float
    charges: tuple[Charges, ...]
    h: np.ndarray
    narrowed: bool = False


def solve(objective: CapacityObjective, polytope: Polytope, max_boxes: int = 200) -> Found:
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
        self.rows = np.vstack([polytope.rows, polytope.equal[1:]])
        self.most = np.r_[polytope.most, polytope.equal_to[1:]]
        self.h, self.found, self.value = polytope.center, polytope.center, np.inf
        self.weights, self.outer = np.empty((0, 0)), np.empty(0)
        self.proven = np.inf  # over all boxes that are closed
        self.order = itertools.count()
        self.open: list[tuple[float, int, Box]] = []

    def run(self, max_boxes: int) -> Found:
        p, objective = self.polytope, self.objective
        root = Box(p.lower, p.upper, *self.range(p.lower, p.upper), *self.searched(p))
        self.narrow(root, -np.inf)
        if objective.constrained or objective.corners:
            # Prices of losses are not searched for, so that boxes would not close: other starts instead.
            if self.open:
                for start in starting_mixtures(p, 2, 0):
                    if not objective.constrained or (objective.constraints(start)[0] < -1e-6).all():
                        charges, h = self.searched(p, start)
                        if h is self.found:
                            root = replace(root, charges=charges, h=h)
                self.proven, self.open = np.inf, []
                self.narrow(root, -np.inf)
            max_boxes = 0
        for _ in range(max_boxes):
            if not self.open or self.open[0][0] >= self.value - CLOSED:
                break
            inherited, _, box = heapq.heappop(self.open)
            self.visit(box, inherited)
        bound = min(self.proven, *(b for b, _, _ in self.open), self.value)
        return Found(self.h, self.value, self.weights, self.outer, float(bound))

    def range(self, lower: np.ndarray, upper: np.ndarray) -> tuple[float, float]:
        """What m can be: it rises with every weight."""
        low, high = (self.form.inner(np.log(h)).m for h in (lower, upper))
        return low - 1e-9, high + 1e-9

    # ---- local searches --------------------------------------------------------------------------------------

    def searched(
        self, polytope: Polytope, start: np.ndarray | None = None
    ) -> tuple[tuple[Charges, ...], np.ndarray]:
        """A local search of a polytope: its prices and mixture, which is kept if it is the best so far."""
        objective, begin = self.objective, polytope.center if start is None else start
        objective.round(0.0)
        if objective.constrained and start is None:
            begin = strict_start(objective, polytope, [begin])
        found = minimise_full(objective, polytope, begin, corners=True)
        weights = objective.weights(found.h, found.barrier)
        charges = self.charges(polytope, found.h, weights, found.rows, found.outer)
        objective.round(0.0)
        for h in (found.h, polytope.snap(found.h, 1e-8)):
            if objective.constrained and not (objective.constraints(h)[0] <= 1e-12).all():
                continue
            value, _ = objective.exact(h)
            if value < self.value:
                self.found = found.h
                self.h, self.value, self.weights, self.outer = h, value, weights, found.outer
        return (charges,), found.h

    def charges(
        self, polytope: Polytope, h: np.ndarray, weights: np.ndarray, rows: np.ndarray, outer: np.ndarray
    ) -> Charges:
        """Prices of the optimality conditions at a mixture, with the multipliers that a search ended with."""
        objective, form, problem = self.objective, self.form, self.objective.problem
        _, slope = objective.lagrangian(h, weights, outer)
        ceilings = outer[: len(objective.ceilings)]
        by_source = np.zeros(len(h))
        np.add.at(by_source, objective.place[objective.used], weights[0])
        np.add.at(by_source, objective.place[objective.ceilings], ceilings)
        charge, constant = np.zeros(len(h)), float(by_source @ form.E - ceilings @ objective.most)
        if problem.max_kl < np.inf and (prior := problem.prior) is not None:
            # The divergence is convex: at least its tangent here. Weights that the prior lacks are fixed at zero.
            charge = outer[-1] * (np.log(h / prior) + 1)
            constant -= outer[-1] * (problem.max_kl + h.sum())
        y = np.r_[np.maximum(rows[: len(polytope.most)], 0.0), rows[len(polytope.most) :]]
        p = -polytope.unit_price(slope + y @ self.rows)
        _, u, moves, _ = form.inner(np.log(h), objective.rounding)
        gain, x, share = by_source * form.c * form.b * np.exp(-form.b * u), np.exp(u), moves / (form.b + 1)
        q = float(share @ gain / (share @ x))
        return Charges(by_source, charge, constant, p, y, q, share * (q * x - gain))

    # ---- bounds ----------------------------------------------------------------------------------------------

    def prices(self, c: Charges) -> Prices:
        """Those of the sums added up by source."""
        return Prices(
            c.weights, c.charge + c.p + c.y @ self.rows, c.q, c.mu, c.constant - c.p - float(c.y @ self.most)
        )  # fmt: skip

    def bands(self, box: Box) -> tuple[float, list[tuple[float, float, float]]]:
        """A bound over what was closed of a box, and the ranges of m left open, each with its bound, lowest first."""
        s_low, s_high, prices = np.log(box.lower), np.log(box.upper), [self.prices(c) for c in box.charges]
        low, high = np.array([box.m_low]), np.array([box.m_high])
        closed, gap = np.inf, np.inf
        for k in range(ROUNDS):
            bound = lower_bounds(self.form, prices[0], s_low, s_high, low, high).bound
            for other in prices[1:]:
                if not (still := bound < self.value - CLOSED).any():
                    break
                new = lower_bounds(self.form, other, s_low, s_high, low[still], high[still]).bound
                bound[still] = np.maximum(bound[still], new)
            still = bound < self.value - CLOSED
            closed = min(closed, float(bound[~still].min(initial=np.inf)))
            bound, low, high = bound[still], low[still], high[still]
            if not len(bound):
                return closed, []
            left = self.value - float(bound.min())
            if (k > 2 and left > SHRINKS * gap) or len(low) > MOST_BANDS or k == ROUNDS - 1:
                break
            gap = left
            edges = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, BANDS + 1)
            low, high = edges[:, :-1].ravel(), edges[:, 1:].ravel()
        starts = np.flatnonzero(np.r_[True, low[1:] > high[:-1] + 1e-12])
        runs = np.split(np.arange(len(low)), starts[1:])
        return closed, sorted((float(bound[r].min()), float(low[r[0]]), float(high[r[-1]])) for r in runs)

    def visit(self, box: Box, inherited: float) -> None:
        """Close one box, or split it after finding better prices."""
        cut = None
        if box.narrowed:
            box, cut = self.improved(box)
        if cut is None:
            self.narrow(box, inherited)
            return
        i, at = cut
        for side in ("lower", "upper"):
            limit = getattr(box, side).copy()
            limit[i] = at
            self.halve(replace(box, **{side: limit}, narrowed=False), inherited)

    def narrow(self, box: Box, inherited: float) -> None:
        """Keep of a box the ranges of m that its prices leave open."""
        closed, rest = self.bands(box)
        self.proven = min(self.proven, max(closed, inherited))
        for bound, low, high in rest:
            self.push(replace(box, m_low=low, m_high=high, narrowed=True), max(bound, inherited))

    def improved(self, box: Box) -> tuple[Box, tuple[int, float] | None]:
        """The box with prices that are best for the middle of its range of m; where none close that, a cut instead.

        Kelley's method: the bound is concave in the prices. Where it stays low, the mixtures that the multipliers of
        the last program average differ in a source, which is then cut at their mean.
        """
        c, m = box.charges[-1], np.full(1, 0.5 * (box.m_low + box.m_high))
        s_low, s_high = np.log(box.lower), np.log(box.upper)
        r, free = len(c.y), len(self.polytope.most)
        start = np.r_[c.p, c.q, c.y]
        size = np.r_[1.0, self.value / self.form.capacity, np.ones(r)]
        values, slopes, points, tried, mixtures, program = [], [], [], [], [], None
        theta, enough = start, self.value - CLOSED
        reach = 1.0
        for _ in range(KELLEY):
            now = c._replace(p=float(theta[0]), q=float(theta[1]), y=theta[2:], mu=np.zeros_like(c.mu))
            found = lower_bounds(self.form, self.prices(now), s_low, s_high, m, m)
            h, x = np.exp(found.s[0]), np.exp(found.u[0])
            if not np.isfinite(found.bound[0]):
                break
            values.append(float(found.bound[0]))
            slopes.append(np.r_[h.sum() - 1, x.sum() - self.form.capacity, self.rows @ h - self.most] * size)
            points.append((theta - start) / size)
            tried.append(theta)
            mixtures.append(h)
            a, v = np.array(slopes), np.array(values)
            if v.max() > 2 * enough - v[0]:  # more than enough, as where no mixture has this m
                break
            lowest = np.full(2 + r, -reach)
            lowest[1] = max(-reach, -start[1] / size[1])
            lowest[2 : 2 + free] = np.maximum(-reach, -start[2 : 2 + free])
            program = linear_program(
                np.r_[np.zeros(2 + r), -1.0], np.r_[lowest, -np.inf], np.r_[np.full(2 + r, reach), np.inf], None, None,
                np.hstack([-a, np.ones((len(v), 1))]), v - (a * np.array(points)).sum(1),
            )  # fmt: skip
            if program.status != 0:
                break
            top, step = -program.fun, program.x[:-1]
            if (np.abs(step) > 0.999 * reach).any() and top > v.max():
                reach *= 4
            elif top < enough:
                break
            if v.max() > enough and top - v.max() < 0.3 * (top - enough):
                break
            theta = start + size * step
            theta[1 : 2 + free] = np.maximum(theta[1 : 2 + free], 0.0)  # HiGHS may go below by its tolerance
        if not values:
            return box, None
        k = int(np.argmax(values))
        if values[k] >= enough:
            return self.with_prices(box, tried[k], float(m[0])), None
        share = np.full(len(values), 1e-12)
        if program is not None and program.status == 0:
            share += np.maximum(-program.ineqlin.marginals[: len(values)], 0.0)
        mean = share @ np.array(mixtures) / share.sum()
        width = box.upper - box.lower
        spread = share @ (np.array(mixtures) - mean) ** 2
        i = int(np.argmax(np.where(width > 0, spread / np.where(width > 0, width, 1.0), -1.0)))
        inside = EDGE * width[i]
        return box, (i, float(np.clip(mean[i], box.lower[i] + inside, box.upper[i] - inside)))

    def with_prices(self, box: Box, theta: np.ndarray, m: float) -> Box:
        """The box with other prices, and mu as they ask for at a given m."""
        form, c = self.form, box.charges[-1]._replace(p=float(theta[0]), q=float(theta[1]), y=theta[2:])
        prices = self.prices(c._replace(mu=np.zeros_like(c.mu)))
        at = np.full(1, m)
        found = lower_bounds(form, prices, np.log(box.lower), np.log(box.upper), at, at)
        u = found.u[0]
        gain, x = c.weights * form.c * form.b * np.exp(-form.b * u), np.exp(u)
        above = u > form.log_floor + 1e-9
        mu = np.where(above, (c.q * x - gain) / (form.b + 1), 0.0)
        return replace(box, charges=(box.charges[0], c._replace(mu=mu)))

    def halve(self, box: Box, bound: float) -> None:
        """A box without what its limits exclude, searched unless its parent's mixture is in it."""
        lower, upper = box.lower, box.upper
        lower = np.maximum(lower, 1 - (upper.sum() - upper) - 1e-12)
        upper = np.minimum(upper, 1 - (lower.sum() - lower) + 1e-12)
        if (lower > upper + 1e-12).any():
            return
        upper = np.maximum(lower, upper)
        low, high = self.range(lower, upper)
        box = replace(box, lower=lower, upper=upper, m_low=max(low, box.m_low), m_high=min(high, box.m_high))
        if box.m_low > box.m_high:
            return
        if (box.h < lower - 1e-9).any() or (box.h > upper + 1e-9).any():
            part = replace(self.polytope, lower=lower, upper=upper)
            if proven_empty(part):
                return
            with contextlib.suppress(OptimizeError):  # too narrow to search: its parent's prices bound it
                charges, h = self.searched(part.inner())
                box = replace(box, charges=charges, h=h)
        self.push(box, bound)

    def push(self, box: Box, bound: float) -> None:
        """Leave a box open."""
        heapq.heappush(self.open, (bound, next(self.order), box))
