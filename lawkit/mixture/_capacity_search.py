"""Branch and bound over the capacity law's convex relaxations; see `lawkit.mixture.capacity`."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture._cones import SolverError
from lawkit.mixture._form import Scale
from lawkit.mixture.capacity import ABOVE, AT_FLOOR, UNDECIDED, Branch, CapacityForm, Point
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.smooth import Derivatives, minimise, multi_start

#: A branch that cannot beat the best mixture by more than this many nats is closed.
CLOSED = 1e-9
#: The same once boxes have to be split: halving a box quarters its error, so the last digits cost most.
CLOSED_BOX = 5e-7


@dataclass(frozen=True)
class CapacitySolution:
    """The best mixture found and the proven bound.

    Attributes
    ----------
    h
        Mixture (K,).
    lower_bound
        No feasible mixture has a lower loss.
    """

    h: np.ndarray
    lower_bound: float


def solve(
    parameters: Mapping[str, Any],
    scale: Scale,
    problem: MixtureProblem,
    derivatives: Derivatives,
    max_programs: int = 60,
) -> CapacitySolution:
    """The best mixture, with a bound on what any mixture could reach.

    Parameters
    ----------
    parameters, scale, problem
        As for `CapacityForm`.
    derivatives
        The law's own objective: it polishes and judges every mixture.
    max_programs
        Convex programs to solve before the remaining branches are left open.

    Raises
    ------
    OptimizeError
        If the parameters read here do not give the law's own loss.
    """
    return _Search(CapacityForm(parameters, scale, problem), problem, derivatives).run(max_programs)


class _Search:
    def __init__(self, form: CapacityForm, problem: MixtureProblem, derivatives: Derivatives) -> None:
        self.form, self.problem, self.derivatives = form, problem, derivatives
        self.best, self.value = problem.interior(), np.inf
        self.point: Point | None = None
        self.proven = np.inf  # over all branches that are closed
        self.order = itertools.count()
        self.open: list[tuple[float, int, Branch]] = []

    def run(self, max_programs: int) -> CapacitySolution:
        K = len(self.problem.sources)
        floor_bounds = self.form.floor_bounds()
        # Nearly always no source is at its floor: that branch first, for a mixture to beat.
        self.visit(self.form.whole(np.full(K, ABOVE)), -np.inf, floor_bounds)
        if self.point is None:
            self.consider(self.problem.interior())
        ruled_out = floor_bounds >= self.value - CLOSED
        self.proven = min(self.proven, float(np.min(floor_bounds[ruled_out], initial=np.inf)))
        for i in np.flatnonzero(~ruled_out):
            # One branch for each source that may be at its floor, earlier ones then being above it.
            state = np.where(ruled_out | (np.arange(K) < i), ABOVE, UNDECIDED)
            state[i] = AT_FLOOR
            self.push(float(floor_bounds[i]), self.form.whole(state))
        programs = 1
        while self.open and programs < max_programs:
            inherited, _, branch = heapq.heappop(self.open)
            if inherited >= self.value - CLOSED:
                self.proven = min(self.proven, inherited)
                continue
            self.visit(branch, inherited, floor_bounds)
            programs += 1
        bound = min([self.proven, *(b for b, _, _ in self.open)])
        if bound < self.value - CLOSED_BOX:  # not proven: look elsewhere too
            for found in multi_start(self.derivatives, self.problem, starts=2, max_iterations=40):
                self.consider(found.h)
        return CapacitySolution(self.best, float(min(bound, self.value)))

    def push(self, bound: float, branch: Branch) -> None:
        heapq.heappush(self.open, (bound, next(self.order), branch))

    def visit(self, branch: Branch, inherited: float, floor_bounds: np.ndarray) -> None:
        """Bound one branch, try its mixture, and close or split it."""
        solved = True
        try:
            at = self.form.relaxed(branch)
        except SolverError:
            # Also where it says that the branch is empty: only the linear program's bound may close it.
            solved = False
            at = Point((branch.u_low + branch.u_high) / 2, (branch.s_low + branch.s_high) / 2, 0.0)
        found, branch = self.form.bound(at, branch, self.value)
        bound = max(inherited, found)
        if solved and bound < self.value - CLOSED:
            h = np.exp(at.s)
            self.consider(self.problem.snap(h / h.sum(), 0.0))
        if self.point is not None and bound < self.value - CLOSED:
            found, branch = self.form.bound(self.point, branch, self.value)
            bound = max(bound, found)
        free = np.flatnonzero(branch.state == UNDECIDED)
        if bound >= self.value - (CLOSED if len(free) else CLOSED_BOX):
            self.proven = min(self.proven, bound)
            return
        if len(free):
            slack = at.m + (self.form.b + 1) * at.u - self.form.offset - at.s
            i = int(free[np.argmax(np.minimum(slack, at.u - self.form.log_floor)[free])])
            for choice in (AT_FLOOR, ABOVE):
                state = branch.state.copy()
                state[i] = choice
                if choice == AT_FLOOR:
                    high = branch.u_high.copy()
                    high[i] = self.form.log_floor
                    if branch.u_low[i] <= high[i]:
                        self.push(max(bound, floor_bounds[i]), replace(branch, state=state, u_high=high))
                else:
                    self.push(bound, replace(branch, state=state))
            return
        self.split_box(branch, at, bound)

    def split_box(self, branch: Branch, at: Point, bound: float) -> None:
        """Two halves of the box, cut where the secant is furthest above the exponential."""
        cuts = []
        for part, x, limit in (("u", at.u, self.form.log_capacity), ("s", at.s, 0.0)):
            low, high = getattr(branch, f"{part}_low"), getattr(branch, f"{part}_high")
            middle = np.clip(x, low + 0.2 * (high - low), high - 0.2 * (high - low))
            weight = np.where(high > low, (middle - low) / np.where(high > low, high - low, 1.0), 0.0)
            chord = np.exp(low - limit) + weight * (np.exp(high - limit) - np.exp(low - limit))
            error = chord - np.exp(middle - limit)
            i = int(np.argmax(error))
            cuts.append((float(error[i]), part, i, float(middle[i])))
        _, part, i, cut = max(cuts)
        for side, end in (("high", "low"), ("low", "high")):
            edge = getattr(branch, f"{part}_{side}").copy()
            if abs(cut - getattr(branch, f"{part}_{end}")[i]) < 1e-9:
                self.proven = min(self.proven, bound)  # nothing left to split
                return
            edge[i] = cut
            self.push(bound, replace(branch, **{f"{part}_{side}": edge}))

    def consider(self, h: np.ndarray) -> None:
        """Keep a mixture, polished, if it is the best so far."""
        if self.point is not None and self.form.objective(self.form.point(h)) >= self.value - CLOSED:
            return
        start = self.problem.interior(h, depth=1e-6)
        polished = minimise(self.derivatives, self.problem, start=start, barrier=1e-8, max_iterations=40)
        for mixture in (polished.h, self.problem.snap(polished.h, 1e-8)):
            loss = self.derivatives(mixture)[0]
            if not loss < self.value:
                continue
            point = self.form.point(mixture)
            read = self.form.objective(point)
            if abs(read - loss) > 1e-6 * abs(loss):
                raise OptimizeError(
                    f"the capacity program reads a loss of {read:.9g} where the law says {loss:.9g}: "
                    "its parameters are not those of the law in 2606.08167"
                )
            self.best, self.value, self.point = mixture, loss, point
