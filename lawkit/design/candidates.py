"""Which runs could be trained next: affordable scales with sensible mixtures, or the rows of a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture.problem import MixtureProblem
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: About how many candidates are generated.
MOST = 20_000
#: Largest number of distinct sizes taken from the runs, of each kind.
SIZES = 6
#: Sizes closer than this (relatively) are one size; weights closer than this (absolutely) are one mixture.
SAME = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Runs that could be trained, n of them.

    Attributes
    ----------
    n_params, n_tokens
        (n,) sizes.
    weights
        (n, K) mixtures.
    flops
        (n,) cost.
    unique
        (n, K) tokens that exist of each source, or None.
    rows
        (n,) data row of the table they come from, or None for generated ones.
    seed
        (n,) seed that the table names, -1 for none; or None.
    once
        Whether a candidate may be chosen only once (a row of a table is one run); otherwise choosing it again
        means another seed.
    """

    n_params: np.ndarray
    n_tokens: np.ndarray
    weights: np.ndarray
    flops: np.ndarray
    unique: np.ndarray | None = None
    rows: np.ndarray | None = None
    seed: np.ndarray | None = None
    once: bool = False

    def __len__(self) -> int:
        return len(self.flops)

    def select(self, which: np.ndarray) -> Candidates:
        """Those at a mask or at indices."""
        part = {k: None if (v := getattr(self, k)) is None else v[which] for k in ("unique", "rows", "seed")}
        return Candidates(
            n_params=self.n_params[which],
            n_tokens=self.n_tokens[which],
            weights=self.weights[which],
            flops=self.flops[which],
            once=self.once,
            **part,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Generation:
    """What tokens cost that have to be generated first.

    Attributes
    ----------
    cost
        (K,) flops per token of each source.
    stock
        (K,) tokens of it that exist already, infinity for text that need not be generated.
    """

    cost: np.ndarray
    stock: np.ndarray

    def flops(self, n_tokens: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(n,) flops for the tokens that runs of `n_tokens` (n,) and `weights` (n, K) need beyond the stock."""
        missing = np.maximum(n_tokens[:, None] * weights - self.stock, 0.0)
        return np.where(self.cost > 0, missing * self.cost, 0.0).sum(1)


def training_flops(n_params: np.ndarray | float, n_tokens: np.ndarray | float) -> np.ndarray:
    """Cost of training, 6 N D."""
    return 6.0 * np.asarray(n_params, float) * np.asarray(n_tokens, float)


def generate(
    fit: Fit,
    problem: MixtureProblem | None,
    *,
    n_params: float,
    n_tokens: float,
    budget: float,
    near: np.ndarray,
    seed: int,
    generation: Generation | None = None,
) -> Candidates:
    """Every scale of `ladder` that the budget pays for with every mixture of `mixtures`.

    Parameters
    ----------
    problem
        The mixtures to choose from; None for a law that does not depend on mixtures.
    n_params, n_tokens
        The target: no candidate is larger.
    near
        (m, K) mixtures to include: the optimum and where else it may be.
    generation
        What a run pays beside training, each as if it were alone.

    Raises
    ------
    OptimizeError
        If the cheapest scale costs more than the budget.
    """
    sizes, unique = ladder(fit, n_params, n_tokens)
    cost = training_flops(sizes[:, 0], sizes[:, 1])
    if cost.min() > budget:
        raise too_small(
            budget,
            cost.min(),
            f"{sizes[cost.argmin(), 0]:.4g} parameters on {sizes[cost.argmin(), 1]:.4g} tokens",
        )
    keep = cost <= budget
    sizes, cost = sizes[keep], cost[keep]
    if problem is None:
        h = np.unique(fit.runs.weights, axis=0)[: MOST // len(sizes) + 1] if fit.sources else np.zeros((1, 0))
    else:
        h = mixtures(problem, fit.runs, near, int(np.clip(MOST // len(sizes), 128, 4096)), seed)
    at, of = (i.ravel() for i in np.meshgrid(np.arange(len(sizes)), np.arange(len(h)), indexing="ij"))
    found = Candidates(
        n_params=sizes[at, 0],
        n_tokens=sizes[at, 1],
        weights=h[of],
        flops=cost[at],
        unique=None if unique is None else unique[keep][at],
    )
    if generation is None:
        return found
    found = replace(found, flops=found.flops + generation.flops(found.n_tokens, found.weights))
    if found.flops.min() > budget:
        i = int(found.flops.argmin())
        what = f"{found.n_params[i]:.4g} parameters on {found.n_tokens[i]:.4g} tokens, generation included"
        raise too_small(budget, found.flops[i], what)
    return found.select(found.flops <= budget)


def too_small(budget: float, cost: float, what: str) -> OptimizeError:
    """The error for a budget that buys nothing."""
    return OptimizeError(
        f"the budget of {budget:.4g} flops does not pay for one run: the cheapest candidate, {what}, "
        f"costs {cost:.4g}"
    )


def ladder(fit: Fit, n_params: float, n_tokens: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Sizes (m, 2) to train at, and for laws that count repetition the unique tokens (m, K) of each.

    Recorded sizes, one step of 2 below them and as many above as stay under the target. A size that the runs
    do not record is the target's. Laws with unique tokens keep to the recorded combinations.
    """
    runs = fit.runs
    n = len(runs)
    goal = (("n_params", n_params), ("n_tokens", n_tokens))
    recorded = np.column_stack([np.full(n, v) if (c := getattr(runs, k)) is None else c for k, v in goal])
    if "unique" in fit.law.columns and runs.unique is not None:
        rows = np.unique(np.column_stack([recorded, np.nan_to_num(runs.unique)]), axis=0)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), 200)).astype(int)]
        return rows[:, :2], rows[:, 2:]
    axes = []
    for i, (column, most) in enumerate(goal):
        values = _distinct(recorded[:, i])
        if getattr(runs, column) is not None:
            below = values[0] / 2
            above = values[-1] * 2.0 ** np.arange(1, 40)
            values = np.concatenate([[below], values, above[above <= most * (1 + SAME)]])
        axes.append(values)
    grid = np.array([(a, b) for a in axes[0] for b in axes[1]])
    inside = training_flops(grid[:, 0], grid[:, 1]) < training_flops(n_params, n_tokens) * (1 - SAME)
    if not inside.any():  # everything costs as much as the target: the cheapest is still a run
        inside = np.arange(len(grid)) == training_flops(grid[:, 0], grid[:, 1]).argmin()
    return grid[inside], None


def _distinct(values: np.ndarray) -> np.ndarray:
    """At most `SIZES` of the distinct values, both ends included."""
    found = np.sort(values)
    found = found[np.r_[True, np.diff(np.log(found)) > SAME]]
    return found[np.unique(np.linspace(0, len(found) - 1, min(len(found), SIZES)).round().astype(int))]


def mixtures(problem: MixtureProblem, runs: Runs, near: np.ndarray, count: int, seed: int) -> np.ndarray:
    """About `count` distinct feasible mixtures (m, K), none `beyond` what the recorded ones let a law be trusted with.

    Corners of the feasible set, the mixtures `near`, recorded ones, and the rest filling the space: scrambled
    Sobol points turned into Dirichlet quantiles, half of them even over the simplex and half near its faces.
    """
    problem = beyond(problem, runs)
    rng = np.random.default_rng(seed)
    recorded = np.unique(runs.weights.round(6), axis=0)
    if len(recorded) > count // 2:
        recorded = recorded[np.sort(rng.choice(len(recorded), count // 2, replace=False))]
    recorded = recorded / recorded.sum(1, keepdims=True)
    inside = ((recorded >= problem.lower - SAME) & (recorded <= problem.upper + SAME)).all(1)
    fixed = np.vstack([_pulled(problem, near), corners(problem), recorded[inside]])
    filling = space_filling(problem, max(count - len(fixed), count // 4), seed)
    every = np.vstack([fixed, filling])
    _, first = np.unique((every / SAME).round().astype(int), axis=0, return_index=True)
    return every[np.sort(first)]


def beyond(problem: MixtureProblem, runs: Runs) -> MixtureProblem:
    """The problem with no weight more than half way from the largest recorded one to 1.

    A law that has seen 40% of a source says little of a run on nothing else, and such a run little of mixtures.
    """
    most = np.minimum(problem.upper, np.maximum((1 + runs.weights.max(0)) / 2, problem.lower))
    return replace(problem, upper=most) if most.sum() >= 1 else problem


def corners(problem: MixtureProblem) -> np.ndarray:
    """(K, K): for each source the feasible mixture with most of it; the rest where there is most room."""
    out = []
    for i in range(len(problem.sources)):
        h = problem.lower.copy()
        for k in (i, *np.argsort(problem.lower - problem.upper)):
            h[k] += min(problem.upper[k] - h[k], 1 - h.sum())
        out.append(h)
    return np.array(out)


def space_filling(problem: MixtureProblem, count: int, seed: int) -> np.ndarray:
    """(count, K) feasible mixtures; points outside the limits are pulled back to them, towards the middle."""
    from scipy.special import gammaincinv
    from scipy.stats import qmc

    K = len(problem.sources)
    size = 1 << max(int(np.ceil(np.log2(max(count, 2)))), 1)
    points = qmc.Sobol(K + 1, scramble=True, rng=np.random.default_rng(seed)).random(size)[:count]
    concentration = np.where(points[:, :1] < 0.5, 1.0, 0.3)
    gamma = gammaincinv(concentration, np.clip(points[:, 1:], 1e-9, 1 - 1e-9))
    h = gamma / gamma.sum(1, keepdims=True)
    return _pulled(problem, problem.lower + (1 - problem.lower.sum()) * h)


def _pulled(problem: MixtureProblem, h: np.ndarray) -> np.ndarray:
    """Mixtures (m, K) above the lower limits, those above an upper one moved back to it, towards the middle."""
    middle = problem.interior()
    step = h - middle
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step > SAME * 1e-6, (problem.upper - middle) / step, np.inf)
    return middle + np.minimum(room.min(1, keepdims=True), 1.0) * step


def spread(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count,) rows of `points` (n, K) that lie far apart: each the farthest from those before it.

    The first is drawn with the seed.
    """
    picks = [int(np.random.default_rng(seed).integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    while len(picks) < min(count, len(points)):
        nearest = np.minimum(nearest, np.abs(points - points[picks[-1]]).sum(1))
        nearest[picks] = -1.0
        picks.append(int(nearest.argmax()))
    return np.array(picks)


def from_table(
    fit: Fit,
    table: Runs,
    *,
    n_params: float,
    n_tokens: float,
    budget: float,
    generation: Generation | None = None,
) -> Candidates:
    """The rows of a table as candidates; they need not keep to the bounds of the target's mixture.

    Where the table says what a run costs, that is all it costs.

    Raises
    ------
    OptimizeError
        If the table is empty, its sources or sizes are not the fit's, or no row is within the budget.
    """
    where = table.path or "the candidates"
    if not len(table):
        raise OptimizeError(f"{where} has no rows: nothing to choose from")
    if set(table.sources) != set(fit.sources):
        missing, extra = (
            sorted(set(fit.sources) - set(table.sources)),
            sorted(set(table.sources) - set(fit.sources)),
        )
        what = (
            f"lacks weight_{missing[0]}"
            if missing
            else f"has weight_{extra[0]}, a source the fit does not know"
        )
        raise OptimizeError(
            f"{where} {what}; candidates need the sources of the fit: {', '.join(fit.sources) or '(none)'}"
        )
    order = [table.sources.index(s) for s in fit.sources]
    sizes = []
    for column, goal in (("n_params", n_params), ("n_tokens", n_tokens)):
        values = getattr(table, column)
        if values is None and getattr(fit.runs, column) is not None:
            raise OptimizeError(f"{where} has no column {column}: candidates need the size of each run")
        sizes.append(np.full(len(table), goal) if values is None else values)
    if "unique" in fit.law.columns and table.unique is None:
        raise OptimizeError(f"{where} has no unique_<source> columns, which law {fit.law.name!r} needs")
    cost = training_flops(*sizes)
    if generation is not None:
        cost = cost + generation.flops(sizes[1], table.weights[:, order])
    if table.flops is not None:
        cost = np.where(np.isfinite(table.flops) & (table.flops > 0), table.flops, cost)
    found = Candidates(
        n_params=sizes[0],
        n_tokens=sizes[1],
        weights=table.weights[:, order],
        flops=cost,
        unique=None if table.unique is None else table.unique[:, order],
        rows=table.rows,
        seed=table.seed,
        once=True,
    )
    if cost.min() > budget:
        raise too_small(budget, cost.min(), f"row {table.rows[cost.argmin()]} of {where}")
    return found.select(cost <= budget)
