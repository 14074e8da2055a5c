"""Runs that one budget of flops pays for: the loss of the best mixture at each split, with its slope.

With g_j flops to generate a token of source j, and s = sum of g_j h_j / max g the most that is spent on generation per
token in units of the dearest, n_params N leaves n_tokens D = C / (6 N + max g s). At each (N, s) the mixture is one
certified problem, with a row for s; its multipliers give the slope of the loss by N and s exactly (the envelope
theorem), so that the best N is the root of a slope, not the bottom of a flat curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture import prices
from lawkit.mixture._checks import target_weights
from lawkit.mixture.limits import generation_cost
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.result import ActiveConstraint
from lawkit.mixture.solve import Solution, solve
from lawkit.mixture.target import Target, unique_tokens

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: Training costs this many flops per parameter and token (Kaplan et al. 2020, arXiv:2001.08361).
FLOPS_PER = 6.0
#: Tokens per parameter that are searched between.
RATIOS = (1e-2, 1e5)
#: Points of the first search over them: without mixtures, and with.
FINE, COARSE = 400, 25
#: Shares of generation that are searched first.
SHARES = (0.0, 0.01, 0.05, 0.12, 0.25, 0.45, 0.7, 1.0)
#: The generation nearest to none, and to all, that is told from it.
EDGE = 1e-5
#: Step of finite differences in log n_params and log n_tokens, fourth order.
STEP = 5e-3


class Budget:
    """One fit, one budget, one set of limits.

    Parameters
    ----------
    fit
        A law of both sizes.
    flops
        The budget C.
    asked
        Arguments of `MixtureProblem.build`.
    seed
        For laws that are not convex in the weights.
    held
        A size that is given, n_params or n_tokens, with its value.

    Raises
    ------
    OptimizeError
        For generation beside a size that is held.
    """

    def __init__(
        self,
        fit: Fit,
        flops: float,
        asked: Mapping[str, Any],
        seed: int,
        held: tuple[str, float] | None = None,
    ) -> None:
        self.fit, self.flops, self.asked, self.seed, self.held = fit, flops, dict(asked), seed, held
        self.mixed = "weights" in fit.law.columns
        generation = self.asked.pop("generation", None)
        self.cost, self.own_budget = np.zeros(len(fit.sources)), None
        if generation is not None:
            self.cost = generation_cost(generation["cost"], fit.sources)
            self.own_budget = generation.get("budget")
        self.dearest = float(self.cost.max(initial=0.0))
        if held is not None and self.dearest:
            raise OptimizeError(
                f"law {fit.law.name} is fitted at one {held[0]}, so that a budget cannot be split between training and "
                "generation: leave generation out, or fit a law of both sizes"
            )
        self.target = target_weights(self.asked.get("target"), fit.domains)
        # Laws that count repetition need the unique tokens at any split.
        self.unique = unique_tokens(fit, self.asked.get("available"))
        low, high = (np.sqrt(flops / FLOPS_PER / r) for r in RATIOS[::-1])
        self.ends = np.array([low, high])
        if held is not None:
            n = held[1] if held[0] == "n_params" else flops / (FLOPS_PER * held[1])
            self.ends = np.array([n, n])
        self.kept: dict[tuple[float, float], tuple[np.ndarray, float, Solution | None]] = {}

    def tokens(self, n: Any, share: float) -> Any:
        """n_tokens that the budget leaves."""
        return self.flops / (FLOPS_PER * np.asarray(n, float) + self.dearest * share)

    def problem(self, n: float, share: float) -> MixtureProblem:
        """The mixtures to choose from at a split."""
        d = float(self.tokens(n, share))
        generation = None
        if self.dearest:
            names = {s: c for s, c in zip(self.fit.sources, self.cost.tolist(), strict=True) if c > 0}
            most = d * self.dearest * share
            most = most if self.own_budget is None else min(most, self.own_budget)
            generation = {"cost": names, "budget": most}
        return MixtureProblem.build(
            self.fit.sources, self.fit.domains, n_tokens=d, generation=generation, **self.asked
        )

    def at(self, n: float, share: float) -> tuple[np.ndarray, float, Solution | None]:
        """The best mixture at a split, its loss, and what is known of it (None for a law without mixtures)."""
        key = (float(n), float(share))
        if key not in self.kept:
            if self.mixed:
                found = solve(self.where(n, share), self.problem(n, share), self.seed)
                self.kept[key] = found.h, found.objective, found
            else:
                h = np.full(
                    len(self.fit.sources), 1 / max(len(self.fit.sources), 1)
                )  # any: it does not count
                losses = self.where(n, share).losses(h[None])[0]
                self.kept[key] = h, float(losses @ self.target), None
        return self.kept[key]

    def where(self, n: float, share: float) -> Target:
        """The scale of a split."""
        return Target(self.fit, n, float(self.tokens(n, share)), self.unique)

    def active(self, n: float, share: float) -> tuple[ActiveConstraint, ...]:
        """Limits that bind at a split, with their prices, all sizes held."""
        _, _, found = self.at(n, share)
        if found is None:
            return ()
        at = self.where(n, share)
        problem = self.problem(n, share).raised(at.floor)
        return tuple(prices.active(problem, found, lambda other: solve(at, other, self.seed).objective))

    def binding(self, n: float, share: float) -> tuple[ActiveConstraint, ...]:
        """Limits that bind at the best split, with their prices when generation is paid for at the worth of a flop."""
        _, _, found = self.at(n, share)
        if found is None or not self.dearest or self._own(n, share):
            return self.active(n, share)
        _, by_d = self.slopes(n, share)
        fee = -by_d * self.cost / (FLOPS_PER * n + self.dearest * share)
        problem = self.problem(n, share).raised(self.where(n, share).floor)
        problem = replace(problem, rows=tuple(r for r in problem.rows if r.kind != "generation"))

        def unknown(_: MixtureProblem) -> float:
            raise OptimizeError("a split has been chosen already")

        # Where a limit in tokens and the generation meet, the search over the latter stops this near.
        return tuple(prices.active(problem, replace(found, gradient=found.gradient + fee), unknown, 1e-4))

    def slopes(self, n: float, share: float) -> tuple[float, float]:
        """Change of the best loss by log n_params and by log n_tokens, generation per token being held."""
        h, _, found = self.at(n, share)
        d = float(self.tokens(n, share))
        used = np.flatnonzero(self.target > 0)
        weights = self.target[used] if found is None else found.weights[0]

        def loss(log_n: float, log_d: float) -> float:
            at = Target(self.fit, n * np.exp(log_n), d * np.exp(log_d), self.unique)
            out = float(at.losses(h[None])[0][used] @ weights)
            if found is not None and len(found.outer):  # limits on losses move with the size as well
                problem = self.problem(n, share)
                own = at.losses(h[None])[0][problem.ceilings]
                out += float(found.outer[: len(own)] @ own)
            return out

        by_n = _slope(lambda t: loss(t, 0.0))
        by_d = _slope(lambda t: loss(0.0, t))
        if found is not None:
            for a in self.active(n, share):
                # Limits on tokens are limits of weight that fall as 1 / n_tokens.
                if a.kind == "availability" or (a.kind == "generation" and self._own(n, share)):
                    by_d -= a.price * a.limit
        return by_n, by_d

    def _own(self, n: float, share: float) -> bool:
        """Whether it is the user's own budget of generation that binds."""
        return self.own_budget is not None and self.own_budget < self.tokens(n, share) * self.dearest * share

    def by_share(self, n: float, share: float) -> float:
        """Change of the best loss by the generation per token, at the whole budget."""
        _, by_d = self.slopes(n, share)
        own = [a.price for a in self.active(n, share) if a.kind == "generation"]
        gained = own[0] if own and not self._own(n, share) else 0.0
        return gained - by_d * self.dearest / (FLOPS_PER * n + self.dearest * share)

    def along(self, n: float, share: float) -> float:
        """Change of the best loss by log n_params at the whole budget."""
        by_n, by_d = self.slopes(n, share)
        training = FLOPS_PER * n
        return by_n - by_d * training / (training + self.dearest * share)

    def prices(self, n: float, share: float) -> tuple[float, float | None]:
        """Change of the loss per 1e18 more flops of training (more tokens) and of generation."""
        by_n, by_d = self.slopes(n, share)
        d = float(self.tokens(n, share))
        bought = by_n if self.held is not None and self.held[0] == "n_tokens" else by_d
        training = bought / (d * (FLOPS_PER * n + self.dearest * share))
        if not self.dearest:
            return 1e18 * training, None
        of = next((a for a in self.active(n, share) if a.kind == "generation"), None)
        return 1e18 * training, 0.0 if of is None or of.price_per_unit is None else of.price_per_unit


def split(budget: Budget) -> tuple[float, float]:
    """The best n_params and generation per token (a fraction of the dearest source's cost).

    A grid first, as the loss need not have one valley; then the root of its slope by n_params within a search over the
    generation.

    Raises
    ------
    OptimizeError
        For a law without a best split of this budget.
    """
    if budget.held is not None:
        return float(budget.ends[0]), 0.0
    if not budget.dearest:
        return best_size(budget, 0.0)[0], 0.0
    losses, sizes = [], []
    near = None
    for share in SHARES:
        try:
            n, loss = best_size(budget, share, near)
            near = n
        except OptimizeError:
            n, loss = np.nan, np.inf
        sizes.append(n)
        losses.append(loss)
    i = int(np.argmin(losses))
    if not np.isfinite(losses[i]):
        best_size(budget, 0.0)  # raises with the reason
    low, high = SHARES[max(i - 1, 0)], SHARES[min(i + 1, len(SHARES) - 1)]
    share, n = _best_share(budget, max(low, EDGE), min(high, 1 - EDGE), sizes[i])
    try:
        better = best_size(budget, share, n)[1] < losses[i] - 1e-12
    except OptimizeError:  # no mixture spends so little: every source is generated
        better = False
    if not better:
        share, n = SHARES[i], sizes[i]
    # What the best mixture does not spend on generation is spent on tokens.
    spent = float(budget.cost @ budget.at(n, share)[0]) / budget.dearest
    if spent < share - 1e-9:
        share = spent
    return best_size(budget, share, n)[0], share


def _best_share(budget: Budget, low: float, high: float, near: float) -> tuple[float, float]:
    """The share of generation where the loss stops falling, and the best n_params there."""
    from scipy.optimize import brentq, minimize_scalar

    sizes = [near]

    def loss_at(share: float) -> float:
        try:
            sizes[0], loss = best_size(budget, share, sizes[0])
        except OptimizeError:
            return np.inf
        return loss

    def slope_at(share: float) -> float:
        sizes[0], _ = best_size(budget, share, sizes[0])
        return budget.by_share(sizes[0], share)

    try:
        left, right = slope_at(low), slope_at(high)
        if left < 0 < right:
            share: Any = brentq(slope_at, low, high, xtol=1e-7)
        else:
            share = low if left >= 0 else high
    except OptimizeError:
        share = minimize_scalar(loss_at, bounds=(low, high), method="bounded", options={"xatol": 1e-5}).x
    loss_at(float(share))
    return float(share), sizes[0]


def best_size(budget: Budget, share: float, near: float | None = None) -> tuple[float, float]:
    """The best n_params at a share of generation, and its loss; `near` is where to look first.

    Raises
    ------
    OptimizeError
        Where the loss is least at an end of the range.
    """
    from scipy.optimize import brentq, minimize_scalar

    def slope_at(u: float) -> float:
        return budget.along(float(np.exp(u)), share)

    ends, points = np.log(budget.ends), COARSE if budget.mixed else FINE
    if near is not None and np.isfinite(near):
        for reach in (0.02, 0.2, 1.0):
            try:
                left, right = np.clip(np.log(near) + np.array([-reach, reach]), *ends)
                if slope_at(left) < 0 < slope_at(right):
                    n = float(np.exp(brentq(slope_at, left, right, xtol=1e-9)))
                    return n, budget.at(n, share)[1]
            except OptimizeError:
                break
    grid = np.linspace(ends[0], ends[1], points)

    def loss_at(u: float) -> float:
        try:
            return budget.at(float(np.exp(u)), share)[1]
        except OptimizeError:  # limits in tokens that a split this far out cannot keep
            return np.inf

    values = np.array([loss_at(u) for u in grid])
    values[~np.isfinite(values)] = np.inf
    at = int(np.argmin(values))
    if not np.isfinite(values[at]):
        budget.at(float(np.exp(grid[len(grid) // 2])), share)  # raises with the reason
    if at in (0, points - 1):
        raise OptimizeError(
            f"the law has no best split of this budget between {RATIOS[0]:g} and {RATIOS[1]:g} tokens per parameter: "
            f"its loss is least at {'the most' if at == 0 else 'the fewest'} tokens; look at the fit's parameters"
        )
    low, high = grid[at - 1], grid[at + 1]
    try:
        left, right = slope_at(low), slope_at(high)
        if left < 0 < right:
            u = float(brentq(slope_at, low, high, xtol=1e-11, rtol=1e-13))
            if loss_at(u) <= values[at] + 1e-12:
                return float(np.exp(u)), loss_at(u)
    except OptimizeError:
        pass
    found: Any = minimize_scalar(loss_at, bounds=(low, high), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x)), float(found.fun)


def _slope(f: Callable[[float], float]) -> float:
    """The derivative at 0 to fourth order."""
    return (8 * (f(STEP) - f(-STEP)) - (f(2 * STEP) - f(-2 * STEP))) / (12 * STEP)
