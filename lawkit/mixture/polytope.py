"""Mixtures under linear limits: points inside, steps that stay inside, and bounds that need no solver's word."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lawkit.errors import OptimizeError

#: Limits closer than this are one number.
RESOLUTION = 1e-12
#: Slacks (relative to the row's range) up to this are none: the limit holds with equality for every mixture.
TIGHT = 1e-9
#: Narrower sets of mixtures are not searched; the second among several rows, by HiGHS's own tolerance.
NARROW, NARROW_ROWS = 1e-7, 1e-6


@dataclass(frozen=True, eq=False)
class Polytope:
    """The h (K,) with lower <= h <= upper, rows h <= most, and equal h = equal_to.

    Attributes
    ----------
    lower, upper
        (K,) limits of each weight.
    rows, most
        (m, K) and (m,) inequalities.
    equal, equal_to
        (q, K) and (q,) equations, the first of them that the weights sum to 1.
    """

    lower: np.ndarray
    upper: np.ndarray
    rows: np.ndarray
    most: np.ndarray
    equal: np.ndarray
    equal_to: np.ndarray

    @property
    def simple(self) -> bool:
        """Whether nothing but the sum links the weights."""
        return len(self.most) == 0 and len(self.equal_to) == 1

    @cached_property
    def free(self) -> np.ndarray:
        """(K,) which weights have room between their limits."""
        return self.upper - self.lower > RESOLUTION

    @cached_property
    def equations(self) -> tuple[np.ndarray, np.ndarray]:
        """Independent equations in the free weights, (r, free) and (r,)."""
        fixed = np.where(self.free, 0.0, self.lower)
        keep = self.independent
        return self.equal[keep][:, self.free], (self.equal_to - self.equal @ fixed)[keep]

    @cached_property
    def independent(self) -> np.ndarray:
        """(r,) numbers of equations that imply the others, given the weights without room."""
        left = self.equal[:, self.free]
        if len(left) == 1 or left.shape[1] == 0:
            return np.arange(min(len(left), left.shape[1]))
        from scipy.linalg import qr

        _, triangle, order = qr(left.T, mode="economic", pivoting=True)
        size = np.abs(np.diag(triangle))
        return np.sort(order[: int((size > 1e-10 * size.max(initial=1e-300)).sum())])

    @cached_property
    def degrees(self) -> int:
        """Dimension of the set."""
        return int(self.free.sum()) - len(self.equations[1])

    @cached_property
    def center(self) -> np.ndarray:
        """A mixture (K,) strictly inside all limits that leave room."""
        if self.simple:
            width = self.upper - self.lower
            total = width.sum()
            return self.lower + (width * (1 - self.lower.sum()) / total if total > 0 else 0.0)
        return self._deepest[0]

    @cached_property
    def _deepest(self) -> tuple[np.ndarray, float]:
        """The mixture whose least slack, relative to each limit's range, is largest; and that slack.

        Ranges are those that the sum leaves, and the program is in fractions of them: HiGHS's tolerances are absolute.
        """
        low = np.maximum(self.lower, 1 - (self.upper.sum() - self.upper))
        high = np.minimum(self.upper, 1 - (self.lower.sum() - self.lower))
        K, free = len(low), self.free
        low = np.where(free, np.minimum(low, high), self.lower)
        width = np.where(free, high - low, 0.0)
        span = np.maximum(self.most - _least(self.rows, low, low + width), RESOLUTION)
        size = np.maximum(np.abs(self.equal * width).max(axis=1), RESOLUTION)
        rows = np.vstack([
            np.hstack([self.rows * width / span[:, None], np.ones((len(span), 1))]),
            np.hstack([-np.eye(K), np.ones((K, 1))])[free],
            np.hstack([np.eye(K), np.ones((K, 1))])[free],
        ])  # fmt: skip
        found = linear_program(
            np.r_[np.zeros(K), -1.0],
            np.zeros(K + 1),
            np.r_[free.astype(float), 1.0],
            np.hstack([self.equal * width / size[:, None], np.zeros((len(self.equal), 1))]),
            (self.equal_to - self.equal @ low) / size,
            rows,
            np.r_[(self.most - self.rows @ low) / span, np.zeros(free.sum()), np.ones(free.sum())],
        )
        if found.status != 0:
            raise OptimizeError(f"HiGHS found no mixture within the limits ({found.message.strip()})")
        return low + width * found.x[:K], float(found.x[K])

    @property
    def inhabited(self) -> bool:
        """Whether the center keeps to all limits; a set that is not may still hold some mixture."""
        try:
            h, room = self._deepest
        except OptimizeError:
            return False
        return room >= 0 and self.contains(h, 1e-12)

    def inner(self) -> Polytope:
        """The same set written with room inside: limits that always hold with equality become equations.

        Raises
        ------
        OptimizeError
            For a set too narrow to search and too wide to be one mixture.
        """
        if self.simple:
            room = min(1 - self.lower.sum(), self.upper.sum() - 1)
            if room <= 1e3 * RESOLUTION:
                h = self.lower if 1 - self.lower.sum() <= 1e3 * RESOLUTION else self.upper
                return replace(self, lower=h / h.sum(), upper=h / h.sum())
            if room < NARROW:
                raise OptimizeError(
                    f"the limits leave each weight a range of {room:.1g} only, too narrow to search and too wide to "
                    "be one mixture: fix the weights or widen the limits"
                )
            return self
        if self.degrees == 0 or self._deepest[1] > NARROW_ROWS:
            return self
        lower, upper = self.lower.copy(), self.upper.copy()
        tight = []
        for j in np.flatnonzero(self.free):
            unit = np.eye(len(lower))[j]
            low, high = self._extreme(unit), -self._extreme(-unit)
            if high - low <= TIGHT:
                lower[j] = upper[j] = np.clip((low + high) / 2, self.lower[j], self.upper[j])
            elif self.upper[j] - low <= TIGHT:
                lower[j] = upper[j]
            elif high - self.lower[j] <= TIGHT:
                upper[j] = lower[j]
        for i, row in enumerate(self.rows):
            if self.most[i] - self._extreme(row) <= TIGHT * max(1.0, float(np.abs(row).max())):
                tight.append(i)
        keep = np.setdiff1d(np.arange(len(self.most)), tight)
        out = Polytope(
            lower, upper, self.rows[keep], self.most[keep],
            np.vstack([self.equal, self.rows[tight]]), np.r_[self.equal_to, self.most[tight]],
        )  # fmt: skip
        if out.degrees > 0 and out._deepest[1] <= NARROW_ROWS:
            raise OptimizeError(
                "the limits leave a set of mixtures too narrow to search and too wide to be one mixture: fix the "
                "weights or widen the limits"
            )
        return out

    def _extreme(self, cost: np.ndarray) -> float:
        found = linear_program(cost, self.lower, self.upper, self.equal, self.equal_to, self.rows, self.most)
        return float(found.fun) if found.status == 0 else -np.inf

    @property
    def only(self) -> np.ndarray | None:
        """The one mixture (K,) that an `inner` set holds; None where there are more."""
        if self.degrees > 0:
            return None
        h = self.lower.copy()
        left, right = self.equations
        if len(right):
            h[self.free] = np.linalg.solve(left, right)
        return np.clip(h, self.lower, self.upper)

    def reach(self, h: np.ndarray, step: np.ndarray) -> float:
        """Largest factor of `step` (K,) that stays within the limits; infinite for none."""
        with np.errstate(all="ignore"):  # steps may be denormal
            room = np.where(step > 0, (self.upper - h) / step, (self.lower - h) / step)
            reach = float(np.min(room[np.abs(step) > RESOLUTION], initial=np.inf))
            over = self.rows @ step
            more = (self.most - self.rows @ h) / over
            return max(0.0, min(reach, float(np.min(more[over > RESOLUTION], initial=np.inf))))

    def toward(self, point: np.ndarray, depth: float) -> np.ndarray:
        """The mixture (K,) between the center and `point`, or the last within the limits; `depth` of it from there."""
        step = point - self.center
        if not self.simple:  # steps keep to the equations
            left, _ = self.equations
            step = np.where(self.free, step, 0.0)
            step[self.free] -= left.T @ np.linalg.lstsq(left.T, step[self.free], rcond=None)[0]
        return self.center + (1 - depth) * min(1.0, self.reach(self.center, step)) * step

    def snap(self, h: np.ndarray, distance: float, zeros: bool = True) -> np.ndarray:
        """`h` with weights nearer than `distance` to a limit set to it; `h` itself where no others make up for it.

        Without `zeros`, lower limits of 0 are left alone.
        """
        out = np.clip(h, self.lower, self.upper)
        low = (out - self.lower < distance) & (zeros | (self.lower > 0))
        out = np.where(low, self.lower, out)
        high = self.upper - out < distance
        out = np.where(high, self.upper, out)
        if self.simple:
            room = np.minimum(out - self.lower, self.upper - out)
            i = int(np.argmax(room))
            moved = out[i] + 1 - math.fsum(out)
            if not self.lower[i] <= moved <= self.upper[i]:
                return h
            out[i] = moved
            return out
        others = self.free & ~low & ~high
        slack = self.most - self.rows @ out
        close = slack < distance * np.maximum(1.0, np.abs(self.rows).max(axis=1, initial=0.0))
        left = np.vstack([self.equal, self.rows[close]])
        # The others move in proportion to their weights, so that small ones stay positive.
        scale = np.minimum(out - self.lower, 1.0)[others]
        for _ in range(3):
            rest = np.r_[self.equal_to - self.equal @ out, slack[close]]
            if not np.any(rest):
                break
            step = np.linalg.lstsq(left[:, others] * scale, rest, rcond=None)[0]
            out[others] += scale * step
            slack = self.most - self.rows @ out
        return out if self.contains(out, 1e-13) else h

    def contains(self, h: np.ndarray, tolerance: float = 1e-9) -> bool:
        """Whether a mixture (K,) keeps to all limits, rows within `tolerance` of their size."""
        size = np.maximum(1.0, np.abs(self.rows).max(axis=1, initial=0.0))
        return bool(
            np.all(h >= self.lower - tolerance)
            and np.all(h <= self.upper + tolerance)
            and np.all(self.rows @ h <= self.most + tolerance * size)
            and np.all(np.abs(self.equal @ h - self.equal_to) <= tolerance)
        )

    # ---- bounds ----------------------------------------------------------------------------------------------

    def minimum(self, cost: np.ndarray, prices: np.ndarray | None = None) -> float:
        """A lower bound on cost . h over the set, by weak duality.

        Parameters
        ----------
        cost
            (K,)
        prices
            Multipliers (m + q - 1,) of the rows, 0 or more, and of the equations after the first, any. The last
            step, the price of a unit of weight, is exact: with limits on single weights the dual is concave and
            piecewise linear in it, with its corners at the slopes.
        """
        cost, constant = np.asarray(cost, float), 0.0
        if prices is not None and len(prices):
            m = len(self.most)
            y, w = np.maximum(prices[:m], 0.0), prices[m:]
            cost = cost + y @ self.rows + w @ self.equal[1:]
            constant = -float(y @ self.most + w @ self.equal_to[1:])
        fixed = float(cost[~self.free] @ self.lower[~self.free])
        slope = cost[self.free]
        if not np.all(np.isfinite(slope)):
            return -np.inf
        if not len(slope):
            return constant + fixed
        return constant + fixed + float(self._at_unit_prices(slope).max())

    def unit_price(self, cost: np.ndarray) -> float:
        """What a unit of weight is worth where cost . h (K,) is least under the limits of single weights."""
        slope = cost[self.free]
        return float(slope[np.argmax(self._at_unit_prices(slope))]) if len(slope) else 0.0

    def _at_unit_prices(self, slope: np.ndarray) -> np.ndarray:
        """The dual's values where the price of a unit of weight is one of the slopes."""
        low, high = self.lower[self.free], self.upper[self.free]
        over = slope - slope[:, None]  # (prices, sources)
        return slope * (1 - self.lower[~self.free].sum()) + np.minimum(over * low, over * high).sum(1)

    def prices_of(self, cost: np.ndarray) -> np.ndarray | None:
        """Multipliers for `minimum` by HiGHS; None where it fails."""
        size = max(1.0, float(np.median(np.abs(cost))))
        found = linear_program(
            cost / size, self.lower, self.upper, self.equal, self.equal_to, self.rows, self.most
        )
        if found.status != 0:
            return None
        return size * np.r_[-found.ineqlin.marginals[: len(self.most)], -found.eqlin.marginals[1:]]


def linear_program(
    cost: np.ndarray, lower: np.ndarray, upper: np.ndarray, equal: Any, equal_to: Any, rows: Any, most: Any
) -> Any:
    """One call of HiGHS; rows and equations may be None or empty."""
    from scipy.optimize import linprog

    some, eq = rows is not None and len(rows), equal is not None and len(equal)
    return linprog(
        cost,
        A_ub=rows if some else np.zeros((1, len(cost))),
        b_ub=most if some else np.zeros(1),
        A_eq=equal if eq else None,
        b_eq=equal_to if eq else None,
        bounds=np.column_stack([lower, upper]),
        method="highs",
    )


def _least(rows: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Least value (m,) of each row over the box."""
    return np.minimum(rows * lower, rows * upper).sum(1)
