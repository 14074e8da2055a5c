"""The capacity law's optimum, global and proven, though the loss is not convex in the weights.

In u = log x, s = log h and m = log of the inner problem's multiplier, the law reads

    minimise   sum_i v_i [c_i e^(-b_i u_i) + A_i D^-a_i e^(-a_i s_i)]
    subject to s_i  = m + (b_i + 1) u_i - log(b_i c_i)    where source i has capacity above its floor H,
               s_i <= m + (b_i + 1) log H - log(b_i c_i)  where u_i = log H,
               log sum e^u <= log(N + (K - 1) H),  log sum e^s <= 0,  u >= log H.

With the sources at their floor given this is convex. Which ones are is settled by branching: a source that is
undecided has the inequality with its own u_i, which both cases satisfy. Most branches fall to a bound that
needs no program at all, and every bound is a linear program of the true objective and constraints linearised,
so no solver's word is taken for it. Both sums are equalities in the law; where limits keep the relaxed optimum
from meeting them, the bound stays valid but below the best mixture, and the gap says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture._cones import ConeProgram, SolverError, constant
from lawkit.mixture._form import Scale
from lawkit.mixture.certificate import linear_minimum
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.smooth import Derivatives, minimise

#: The law is infinite at zero weight; its authors keep every weight above this when they optimise.
MIN_WEIGHT = 1e-4
#: A branch that cannot beat the best mixture by more than this is closed, nats.
CLOSED = 1e-9

UNDECIDED, ABOVE, AT_FLOOR = 0, 1, -1


@dataclass(frozen=True)
class CapacitySolution:
    """The best mixture found and the proven bound.

    Attributes
    ----------
    h
        Mixture (K,).
    lower_bound
        No feasible mixture has a lower loss.
    programs
        Convex programs solved.
    """

    h: np.ndarray
    lower_bound: float
    programs: int


@dataclass(frozen=True)
class _Point:
    """Log capacities (K,), log weights (K,) and the log multiplier."""

    u: np.ndarray
    s: np.ndarray
    m: float


class CapacityForm:
    """One target of one fit, in logarithms.

    Parameters
    ----------
    parameters
        The coupled natural parameters: b, c, E and, with the noise term, A, a (K,); H.
    scale
        The run to plan.
    problem
        Limits and target; domains in the order of the sources.
    """

    def __init__(self, parameters: Mapping[str, Any], scale: Scale, problem: MixtureProblem) -> None:
        K = len(problem.sources)
        b, c, E = (np.broadcast_to(np.asarray(parameters[k], float), (K,)) for k in ("b", "c", "E"))
        self.floor = float(np.max(parameters["H"]))
        self.capacity = scale.n_params + (K - 1) * self.floor
        if scale.n_params <= self.floor:
            raise OptimizeError(
                f"n_params {scale.n_params:g} is under the floor H = {self.floor:g} that this capacity fit gives "
                "every source: plan a larger model"
            )
        self.b, self.offset, self.problem = b, np.log(b * c), problem
        self.gain, self.base = problem.target * c, float(problem.target @ E)
        if "A" in parameters:
            self.a = np.broadcast_to(np.asarray(parameters["a"], float), (K,))
            self.noise = problem.target * np.asarray(parameters["A"], float) * scale.n_tokens**-self.a
        else:
            self.a, self.noise = np.ones(K), np.zeros(K)
        self.low, self.high = np.log(problem.lower), np.log(problem.upper)
        self.log_floor, self.log_capacity = np.log(self.floor), np.log(self.capacity)

    def point(self, h: np.ndarray) -> _Point:
        """Capacities and multiplier that the law's inner problem gives a mixture (K,)."""
        from scipy.optimize import brentq

        s = np.log(h)

        def log_x(m: float) -> np.ndarray:
            return np.maximum(self.log_floor, (s + self.offset - m) / (self.b + 1))

        each = s + self.offset - (self.b + 1) * self.log_floor
        lowest = float((s + self.offset - (self.b + 1) * self.log_capacity).min())
        excess = lambda m: float(np.exp(log_x(m) - self.log_capacity).sum() - 1)  # noqa: E731
        m = float(brentq(excess, lowest - 1, float(each.max()), xtol=1e-14, rtol=1e-15, maxiter=200))
        return _Point(log_x(m), s, m)

    def objective(self, p: _Point) -> float:
        """Loss at a point, as this form reads the law."""
        return self.base + float(self.gain @ np.exp(-self.b * p.u) + self.noise @ np.exp(-self.a * p.s))

    def relaxed(self, state: np.ndarray) -> _Point:
        """Optimum of one branch (its conic program).

        Raises
        ------
        SolverError
            When Clarabel gives no usable point; `.infeasible` for an empty branch.
        """
        K = len(state)
        program = ConeProgram()
        u, s, m = program.variable(K), program.variable(K), program.variable(1)
        link = m.tile(K) + u * (self.b + 1) - self.offset - s
        program.equal_zero(link.where(state == ABOVE))
        program.nonnegative(link.where(state != ABOVE))
        program.equal_zero((u - self.log_floor).where(state == AT_FLOOR))
        program.nonnegative((u - self.log_floor).where(state != AT_FLOOR))
        program.nonnegative(s - self.low)
        program.nonnegative(self.high - s)
        for logs, limit in ((u, self.log_capacity), (s, 0.0)):
            share = program.variable(K)
            program.at_least_exp(share, logs - limit)
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
        return _Point(program.value(u, x), program.value(s, x), float(program.value(m, x)[0]))

    def bound(self, p: _Point, state: np.ndarray) -> float:
        """Lower bound over a branch from the objective and both sums linearised at any point p."""
        K = len(state)
        slope_u = -self.gain * self.b * np.exp(-self.b * p.u)
        slope_s = -self.noise * self.a * np.exp(-self.a * p.s)
        zero, eye = np.zeros(K), np.eye(K)
        share_u, share_s = np.exp(p.u), np.exp(p.s)
        total_u, total_s = share_u.sum(), share_s.sum()
        share_u, share_s = share_u / total_u, share_s / total_s
        # Rows: both sums, then s - (b + 1) u - m <= -offset.
        link = np.hstack([-np.diag(self.b + 1), eye, -np.ones((K, 1))])
        above = state == ABOVE
        at_most = np.vstack([np.r_[share_u, zero, 0.0], np.r_[zero, share_s, 0.0], link[~above]])
        at_most_to = np.r_[
            self.log_capacity - np.log(total_u) + share_u @ p.u,
            -np.log(total_s) + share_s @ p.s,
            -self.offset[~above],
        ]
        u_high = np.where(state == AT_FLOOR, self.log_floor, self.log_capacity)
        u_low = np.full(K, self.log_floor)
        # Some source is above its floor, and its equation puts m within its own range.
        m_low = float((self.low - (self.b + 1) * u_high + self.offset).min())
        m_high = float((self.high - (self.b + 1) * u_low + self.offset).max())
        least = linear_minimum(
            np.r_[slope_u, slope_s, 0.0],
            np.r_[u_low, self.low, m_low],
            np.r_[u_high, self.high, m_high],
            link[above] if above.any() else None,
            -self.offset[above] if above.any() else None,
            at_most,
            at_most_to,
        )
        return self.objective(p) + least - float(slope_u @ p.u + slope_s @ p.s)

    def floor_bounds(self) -> np.ndarray:
        """For each source, a lower bound over all mixtures that leave it at its floor (K,).

        The links between weights and capacities are dropped, which leaves two separate resources to share out.
        """
        K = len(self.b)
        noise = _share_out(self.noise, self.a, 1.0, np.exp(self.low), np.exp(self.high))
        out = np.empty(K)
        for i in range(K):
            most = np.full(K, self.capacity)
            most[i] = self.floor
            out[i] = _share_out(self.gain, self.b, self.capacity, np.full(K, self.floor), most)
        return self.base + noise + out


def solve(
    parameters: Mapping[str, Any],
    scale: Scale,
    problem: MixtureProblem,
    derivatives: Derivatives,
    max_programs: int = 200,
) -> CapacitySolution:
    """The best mixture, with a bound on what any mixture could reach.

    Parameters
    ----------
    parameters, scale, problem
        As for `CapacityForm`; the problem's lower limits are all positive.
    derivatives
        The law's own objective: it polishes and judges every mixture.
    max_programs
        Convex programs to solve before the remaining branches are left open.

    Raises
    ------
    OptimizeError
        If the parameters read here do not give the law's own loss.
    """
    form = CapacityForm(parameters, scale, problem)
    best, value, point = problem.interior(), np.inf, None
    undecided = np.zeros(len(problem.sources), dtype=int)
    floor_bounds = form.floor_bounds()

    def consider(p: _Point) -> None:
        nonlocal best, value, point
        start = problem.snap(np.exp(p.s) / np.exp(p.s).sum(), 0.0)
        polished = minimise(derivatives, problem, start=problem.interior(start, depth=1e-6), barrier=1e-8)
        for h in (polished.h, problem.snap(polished.h, 1e-8)):
            loss = derivatives(h)[0]
            if loss < value:
                best, value, point = h, loss, form.point(h)
                if abs(form.objective(point) - value) > 1e-6 * abs(value):
                    raise OptimizeError(
                        f"the capacity program reads a loss of {form.objective(point):.9g} where the law says "
                        f"{value:.9g}: its parameters are not those of the law in 2606.08167"
                    )

    def settled(bound: float) -> bool:
        return bound >= value - CLOSED

    # Nearly always no source is at its floor: that branch first, then prove the others empty of better ones.
    programs, lower = 0, np.inf
    open_branches = [(-np.inf, undecided + ABOVE)]
    first = True
    while open_branches:
        inherited, state = open_branches.pop()
        if settled(inherited) or programs >= max_programs:
            lower = min(lower, inherited)
            continue
        programs += 1
        bound, p = inherited, None
        try:
            p = form.relaxed(state)
        except SolverError as error:
            bound = np.inf if error.infeasible else inherited
        if p is not None:
            bound = max(bound, form.bound(p, state))
            if not settled(bound):
                consider(p)
            if point is not None and not settled(bound):
                bound = max(bound, form.bound(point, state))
        split = _most_violated(form, p, state)
        if settled(bound) or split is None:
            lower = min(lower, bound)
        else:
            for choice in (AT_FLOOR, ABOVE):
                child = state.copy()
                child[split] = choice
                known = max(bound, floor_bounds[split]) if choice == AT_FLOOR else bound
                open_branches.append((known, child))
        if first:
            first = False
            ruled_out = floor_bounds >= value - CLOSED
            lower = min(lower, float(np.min(floor_bounds[ruled_out], initial=np.inf)))
            if not ruled_out.all():
                open_branches.append((-np.inf, np.where(ruled_out, ABOVE, UNDECIDED)))
    if point is None:
        polished = minimise(derivatives, problem)
        best = polished.h
    return CapacitySolution(best, float(lower), programs)


def _most_violated(form: CapacityForm, p: _Point | None, state: np.ndarray) -> int | None:
    """The undecided source that is furthest from both of its cases, None when all are settled."""
    free = np.flatnonzero(state == UNDECIDED)
    if not len(free):
        return None
    if p is None:
        return int(free[0])
    slack = p.m + (form.b + 1) * p.u - form.offset - p.s
    distance = np.minimum(slack, p.u - form.log_floor)[free]
    return int(free[np.argmax(distance)])


def _share_out(
    gain: np.ndarray, power: np.ndarray, total: float, lower: np.ndarray, upper: np.ndarray
) -> float:
    """Lower bound on sum gain * x^-power over lower <= x <= upper with sum x <= total.

    The Lagrangian's minimum, at the price where the shares add up: a bound at any price.
    """
    used = gain > 0
    if not used.any():
        return 0.0
    total = total - lower[~used].sum()
    gain, power, lower, upper = gain[used], power[used], lower[used], upper[used]

    def shares(log_price: float) -> np.ndarray:
        return np.clip(np.exp((np.log(gain * power) - log_price) / (power + 1)), lower, upper)

    cheap, dear = -700.0, 700.0
    for _ in range(64):
        middle = 0.5 * (cheap + dear)
        if shares(middle).sum() > total:
            cheap = middle
        else:
            dear = middle
    price, x = np.exp(dear), shares(dear)
    return float((gain * x**-power + price * x).sum() - price * total)

