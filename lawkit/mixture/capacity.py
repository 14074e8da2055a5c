"""The capacity law's optimum, global and proven, though the loss is not convex in the weights.

In u = log x, s = log h and m = log of the inner problem's multiplier, the law reads

    minimise   sum_i v_i [c_i e^(-b_i u_i) + A_i D^-a_i e^(-a_i s_i)]
    subject to s_i  = m + (b_i + 1) u_i - log(b_i c_i)    where source i has capacity above its floor H,
               s_i <= m + (b_i + 1) log H - log(b_i c_i)  where u_i = log H,
               sum e^u = N + (K - 1) H,  sum e^s = 1,  u >= log H.

Limits on sums of weights are convex too, once written without negative coefficients. Three things stand between this
and a convex program, and `solve` branches on each. Which sources are at their floor: an undecided source gets the
inequality with its own u_i, which both cases satisfy. And the two sums: "at most" is convex and nearly always tight by
itself; "at least" is relaxed to the secants of the exponentials over the branch's box, exact as the box shrinks.
Without caps on the weights one program is as a rule the whole proof. Every bound is a linear program of the objective
and the rows linearised, so no conic solver's word is taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture._cones import ConeProgram, constant
from lawkit.mixture._form import Scale
from lawkit.mixture._linear import linear_minimum
from lawkit.mixture.problem import MixtureProblem

UNDECIDED, ABOVE, AT_FLOOR = 0, 1, -1


@dataclass(frozen=True)
class Point:
    """Log capacities u (K,), log weights s (K,) and the log multiplier m."""

    u: np.ndarray
    s: np.ndarray
    m: float


@dataclass(frozen=True)
class Branch:
    """A part of the feasible set: which sources are at their floor (K,), and a box (4 of shape (K,))."""

    state: np.ndarray
    u_low: np.ndarray
    u_high: np.ndarray
    s_low: np.ndarray
    s_high: np.ndarray


class CapacityForm:
    """One target of one fit, in logarithms.

    Parameters
    ----------
    parameters
        The coupled natural parameters: b, c, E and, with the noise term, A, a (K,); H.
    scale
        The run to plan.
    problem
        Limits, all lower ones positive, and target; domains in the order of the sources.

    Raises
    ------
    OptimizeError
        For a run no larger than one source's floor.
    """

    def __init__(self, parameters: Mapping[str, Any], scale: Scale, problem: MixtureProblem) -> None:
        K = len(problem.sources)
        b, c, E = (np.broadcast_to(np.asarray(parameters[k], float), (K,)) for k in ("b", "c", "E"))
        self.floor = float(np.max(parameters["H"]))
        self.capacity = scale.n_params + (K - 1) * self.floor
        if scale.n_params <= self.floor:
            raise OptimizeError(
                f"n_params {scale.n_params:g} is under the floor H = {self.floor:g} that this fit gives "
                "every source: plan a larger model"
            )
        self.b, self.offset, self.problem = b, np.log(b * c), problem
        self.gain, self.base = problem.target * c, float(problem.target @ E)
        self.sums, self.most = _sums(problem)
        if "A" in parameters:
            self.a = np.broadcast_to(np.asarray(parameters["a"], float), (K,))
            self.noise = problem.target * np.asarray(parameters["A"], float) * scale.n_tokens**-self.a
        else:
            self.a, self.noise = np.ones(K), np.zeros(K)
        self.log_floor, self.log_capacity = np.log(self.floor), np.log(self.capacity)

    def whole(self, state: np.ndarray) -> Branch:
        """The feasible set, as far as it agrees with `state` (K,)."""
        K, problem = len(state), self.problem
        spare = 1 - (problem.lower.sum() - problem.lower)
        most = np.full(K, np.log(self.capacity - (K - 1) * self.floor))
        return Branch(
            state=state,
            u_low=np.full(K, self.log_floor),
            u_high=np.where(state == AT_FLOOR, self.log_floor, most),
            s_low=np.log(problem.lower),
            s_high=np.log(np.minimum(problem.upper, spare)),
        )

    def point(self, h: np.ndarray) -> Point:
        """Capacities and multiplier that the law's inner problem gives a mixture (K,)."""
        from scipy.optimize import brentq

        s = np.log(h)

        def log_x(m: float) -> np.ndarray:
            return np.maximum(self.log_floor, (s + self.offset - m) / (self.b + 1))

        def excess(m: float) -> float:
            return float(np.exp(log_x(m) - self.log_capacity).sum() - 1)

        lowest = float((s + self.offset - (self.b + 1) * self.log_capacity).min())
        highest = float((s + self.offset - (self.b + 1) * self.log_floor).max())
        m: Any = brentq(excess, lowest - 1, highest, xtol=1e-14, maxiter=200)
        return Point(log_x(m), s, float(m))

    def objective(self, p: Point) -> float:
        """Loss at a point, as this form reads the law."""
        return self.base + float(self.gain @ np.exp(-self.b * p.u) + self.noise @ np.exp(-self.a * p.s))

    def relaxed(self, branch: Branch) -> Point:
        """Optimum of a branch's convex relaxation.

        Raises
        ------
        SolverError
            When Clarabel gives no usable point, as for an empty branch.
        """
        K, above = len(self.b), branch.state == ABOVE
        program = ConeProgram()
        u, s, m = program.variable(K), program.variable(K), program.variable(1)
        link = m.tile(K) + u * (self.b + 1) - self.offset - s
        program.equal_zero(link.where(above))
        program.nonnegative(link.where(~above))
        fixed = branch.u_high - branch.u_low < 1e-12
        program.equal_zero((u - branch.u_low).where(fixed))
        program.nonnegative((u - branch.u_low).where(~fixed))
        program.nonnegative((branch.u_high - u).where(~fixed))
        program.nonnegative(s - branch.s_low)
        program.nonnegative(branch.s_high - s)
        for logs, low, high, limit in (
            (u, branch.u_low, branch.u_high, self.log_capacity),
            (s, branch.s_low, branch.s_high, 0.0),
        ):
            share = program.variable(K)
            program.at_least_exp(share, logs - limit)
            program.nonnegative(1.0 - share.sum())
            slope, intercept = secant(low - limit, high - limit)
            program.nonnegative(((logs - limit) * slope + intercept).sum() - 1.0)
        for row, most in zip(self.sums, self.most, strict=True):
            used = row > 0
            share = program.variable(int(used.sum()))
            program.at_least_exp(share, s.where(used) + np.log(row[used] / most))
            program.nonnegative(1.0 - share.sum())
        total = constant(np.zeros(1))
        for coefficient, power, logs in ((self.gain, self.b, u), (self.noise, self.a, s)):
            used = coefficient > 0
            if used.any():
                term = program.variable(int(used.sum()))
                exponent = logs * -power + np.log(np.where(used, coefficient, 1.0))
                program.at_least_exp(term, exponent.where(used))
                total = total + term.sum()
        x = program.minimise(total)
        return Point(program.value(u, x), program.value(s, x), float(program.value(m, x)[0]))

    def bound(self, p: Point, branch: Branch, best: float = np.inf) -> tuple[float, Branch]:
        """A lower bound over a branch, by linearising at a point p (any point gives a valid one).

        Returns also the branch's box without what the bound's reduced costs show to be worse than `best`.
        """
        K, above = len(self.b), branch.state == ABOVE
        # A conic solver that stopped short may be far outside, where the exponentials overflow.
        p = Point(
            np.clip(np.nan_to_num(p.u), branch.u_low, branch.u_high),
            np.clip(np.nan_to_num(p.s), branch.s_low, branch.s_high),
            p.m,
        )
        slope_u = -self.gain * self.b * np.exp(-self.b * p.u)
        slope_s = -self.noise * self.a * np.exp(-self.a * p.s)
        zero, eye = np.zeros(K), np.eye(K)
        rows, limits = [], []
        for part, logs, low, high, limit in (
            (0, p.u, branch.u_low, branch.u_high, self.log_capacity),
            (1, p.s, branch.s_low, branch.s_high, 0.0),
        ):
            share = np.exp(logs - limit)
            total = share.sum()
            slope, intercept = secant(low - limit, high - limit)
            for row, most in (
                (share / total, (share / total) @ logs - np.log(total)),
                (-slope, float((intercept - slope * limit).sum()) - 1.0),
            ):
                rows.append(np.r_[(row, zero, 0.0) if part == 0 else (zero, row, 0.0)])
                limits.append(most)
        for row, most in zip(self.sums, self.most, strict=True):
            share = row / most * np.exp(p.s)
            total = share.sum()
            rows.append(np.r_[zero, share / total, 0.0])
            limits.append((share / total) @ p.s - np.log(total))
        link = np.hstack([-np.diag(self.b + 1), eye, -np.ones((K, 1))])  # s - (b + 1) u - m <= -offset
        # Some source is above its floor, and its equation puts m within its own range.
        m_low = float((branch.s_low - (self.b + 1) * branch.u_high + self.offset).min())
        m_high = float((branch.s_high - (self.b + 1) * branch.u_low + self.offset).max())
        lower, upper = np.r_[branch.u_low, branch.s_low, m_low], np.r_[branch.u_high, branch.s_high, m_high]
        least, reduced = linear_minimum(
            np.r_[slope_u, slope_s, 0.0],
            lower,
            upper,
            link[above] if above.any() else None,
            -self.offset[above] if above.any() else None,
            np.vstack([*rows, link[~above]]),
            np.r_[limits, -self.offset[~above]],
        )
        bound = self.objective(p) + least - float(slope_u @ p.u + slope_s @ p.s)
        if np.isfinite(bound) and bound < best < np.inf:
            with np.errstate(divide="ignore"):
                reach = 1.001 * (best - bound) / np.abs(reduced)
            upper = np.where(reduced > 0, np.minimum(upper, lower + reach), upper)
            lower = np.where(reduced < 0, np.maximum(lower, upper - reach), lower)
            branch = replace(
                branch, u_low=lower[:K], u_high=upper[:K], s_low=lower[K : 2 * K], s_high=upper[K : 2 * K]
            )
        return bound, branch

    def floor_bounds(self) -> np.ndarray:
        """For each source, a lower bound over all mixtures that leave it at its floor (K,).

        The links between weights and capacities are dropped, which leaves two resources to share out.
        """
        K = len(self.b)
        noise = _share_out(self.noise, self.a, 1.0, self.problem.lower[None], self.problem.upper[None])
        most = np.where(np.eye(K, dtype=bool), self.floor, self.capacity)
        least = np.full((K, K), self.floor)
        return self.base + noise + _share_out(self.gain, self.b, self.capacity, least, most)


def _sums(problem: MixtureProblem) -> tuple[np.ndarray, np.ndarray]:
    """Limits on sums as rows . h <= most (m, K), (m,) without negative coefficients.

    As the weights sum to 1, a row may have the same number added to all coefficients and to its right-hand side: then
    it is convex in the logarithms of the weights.
    """
    p = problem.polytope
    rows = np.vstack([p.rows, p.equal[1:], -p.equal[1:]])
    most = np.r_[p.most, p.equal_to[1:], -p.equal_to[1:]]
    shift = np.minimum(rows.min(axis=1, initial=0.0), 0.0)
    return rows - shift[:, None], most - shift


def secant(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept (K,) of the chord of exp between `low` and `high`, its tightest line from above."""
    width = high - low
    narrow = width < 1e-9
    slope = np.where(narrow, 0.0, (np.exp(high) - np.exp(low)) / np.where(narrow, 1.0, width))
    return slope, np.where(narrow, np.exp(high), np.exp(low) - slope * low)


def _share_out(
    gain: np.ndarray, power: np.ndarray, total: float, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Lower bounds (n,) on sum gain * x^-power over lower <= x <= upper (n, K) with sum x <= total.

    The Lagrangian's minimum at the price where the shares add up: a bound at any price.
    """
    used = gain > 0
    if not used.any():
        return np.zeros(len(lower))
    spare = total - lower[:, ~used].sum(axis=1)
    gain, power, lower, upper = gain[used], power[used], lower[:, used], upper[:, used]
    log_slope = np.log(gain * power)

    def shares(log_price: np.ndarray) -> np.ndarray:
        return np.clip(np.exp((log_slope - log_price[:, None]) / (power + 1)), lower, upper)

    cheap = (log_slope - (power + 1) * np.log(upper)).min(axis=1) - 1
    dear = (log_slope - (power + 1) * np.log(lower)).max(axis=1) + 1
    for _ in range(48):
        middle = 0.5 * (cheap + dear)
        over = shares(middle).sum(axis=1) > spare
        cheap, dear = np.where(over, middle, cheap), np.where(over, dear, middle)
    price, x = np.exp(dear), shares(dear)
    return (gain * x**-power + price[:, None] * x).sum(axis=1) - price * spare
