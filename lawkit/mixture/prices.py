"""What the limits of a mixture cost: which of them bind, and what moving them would change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture.limits import Limit
from lawkit.mixture.problem import RESOLUTION, MixtureProblem
from lawkit.mixture.result import ActiveConstraint
from lawkit.mixture.solve import Solution

#: A steeper slope is that of a power at zero weight: infinite, or as good as.
STEEPEST = 1e6
#: A weight or a sum of weights this near a limit is on it, and so is a loss or a divergence this near.
NEAR, NEAR_NATS = 1e-9, 1e-7
#: How far a limit is moved where slopes say nothing.
STEP = 0.01


def active(
    problem: MixtureProblem,
    found: Solution,
    best: Callable[[MixtureProblem], float],
    near: float = NEAR,
) -> list[ActiveConstraint]:
    """Limits that the mixture sits on, priced by the multipliers of its optimality conditions.

    Weights strictly between their limits share one slope, once those of the sums, losses and divergence that bind are
    paid for at their prices; a weight on a limit of its own has another, and the difference is that limit's price.

    Parameters
    ----------
    problem
        The limits, raised to the law's floor.
    found
        The mixture and the slopes of its losses.
    best
        The least objective within other limits.
    near
        A weight or a sum this near its limit is on it.
    """
    h = found.h
    binding = [s for s in problem.limits if _slack(s, h) < near]
    # A limit that others imply (an upper one where lower ones leave no more) is kept: it may still have a price.
    single = [s for s in binding if np.count_nonzero(s.coefficients) == 1 and s not in problem.rows]
    rows, held = _rows(problem, binding)
    smooth = _smooth(problem, found)
    inside = (h - problem.lower >= near) & (problem.upper - h >= near)
    columns = np.column_stack(
        [*[s.row[0] for s in rows], *[slope for _, _, slope in smooth], np.ones(len(h))]
    )
    least = np.r_[np.where(held, -np.inf, 0.0), np.zeros(len(smooth)), -np.inf]
    prices, known = _multipliers(found.gradient, columns, inside, h, least)
    paid = found.gradient + columns[:, :-1] @ prices[:-1]
    out: list[ActiveConstraint] = []
    for i, name in enumerate(problem.sources):
        if not (own := [s for s in single if s.name == name]):
            continue
        s, both = own[-1], len(own) == 2
        price = float(paid[i]) - _elsewhere(paid, i, h, inside, problem, s.sense)
        if s.kind == "law" and not price > 0:
            continue
        if not (known or len(prices) == 1) or not abs(price) < STEEPEST:
            price = _moved(problem, s, found.objective, best, both)
        if both and s.kind != "upper":  # two limits of different kinds meet: the one that has a price
            s, both = own[0] if price > 0 else s, False
        out.append(_told(s, price, both))
    for s, both, y in zip(rows, held, prices, strict=False):
        sign = -1.0 if s.sense == "<=" else 1.0
        price = sign * float(y) if known else _moved(problem, s, found.objective, best, both)
        out.append(_told(s, price, both))
    for (name, kind, _), y in zip(smooth, prices[len(rows) :], strict=False):
        value = problem.max_kl if kind == "divergence" else _ceiling(problem, name)
        price = -float(y)
        out.append(
            ActiveConstraint(name=name, kind=kind, limit=value, price=price, text=_smooth_text(name, value))
        )
    return out


def _slack(s: Limit, h: np.ndarray) -> float:
    row, most = s.row
    return float(most - row @ h)


def _rows(problem: MixtureProblem, binding: list[Limit]) -> tuple[list[Limit], list[bool]]:
    """The rows that bind, and which of them hold a sum at one value: both ends of a group are one limit."""
    rows = [s for s in binding if s in problem.rows]
    held = [any(r.name == s.name and r.sense != s.sense for r in rows) for s in rows]
    kept = [(s, both) for s, both in zip(rows, held, strict=True) if not both or s.sense == "<="]
    return [s for s, _ in kept], [both for _, both in kept]


def _smooth(problem: MixtureProblem, found: Solution) -> list[tuple[str, str, np.ndarray]]:
    """(name, kind, slope) of the smooth constraints that bind: those with a price of their own."""
    names = [f"loss_{problem.domains[e]}" for e in problem.ceilings]
    kinds = ["loss"] * len(names)
    if problem.max_kl < np.inf:
        names, kinds = [*names, "divergence"], [*kinds, "divergence"]
    priced = found.outer * np.maximum(1.0, np.abs(found.slopes).max(axis=1, initial=0.0)) > NEAR_NATS
    return [(n, k, s) for n, k, s, on in zip(names, kinds, found.slopes, priced, strict=True) if on]


def _multipliers(
    slope: np.ndarray, columns: np.ndarray, inside: np.ndarray, h: np.ndarray, least: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Prices (n,) of the columns, `least` (n,) or more, and whether the weights inside determine them."""
    from scipy.optimize import lsq_linear

    n = columns.shape[1]
    if n == 1 or not inside.any():
        return np.zeros(n), n == 1
    weigh = np.sqrt(h[inside])[:, None]
    matrix = columns[inside] * weigh
    size = np.maximum(np.linalg.norm(matrix, axis=0), 1e-300)
    found = lsq_linear(
        matrix / size,
        -slope[inside] * weigh[:, 0],
        bounds=(least, np.full(n, np.inf)),
        method="bvls",
        tol=1e-15,
    )
    return found.x / size, bool(np.linalg.matrix_rank(matrix / size, tol=1e-6) == n)


def _elsewhere(
    slope: np.ndarray, i: int, h: np.ndarray, inside: np.ndarray, problem: MixtureProblem, sense: str
) -> float:
    """Slope of what makes room for (or takes) weight of source i: the weights inside, else the best of the others."""
    others = np.arange(len(h)) != i
    if (pool := others & inside).any():
        return float(h[pool] @ slope[pool] / h[pool].sum())
    if sense == "<=":
        return float(slope[others & (h - problem.lower >= NEAR)].max(initial=-np.inf))
    return float(slope[others & (problem.upper - h >= NEAR)].min(initial=np.inf))


def _moved(
    problem: MixtureProblem,
    s: Limit,
    objective: float,
    best: Callable[[MixtureProblem], float],
    both: bool = False,
) -> float:
    """Change of the objective per unit of a limit over its first hundredth, where slopes do not tell.

    Limits are loosened, except the law's own floor, which can only be raised, and a weight or a sum held at one value
    (`both`), whose two limits rise together. NaN where there is no room.
    """
    if s.kind == "law" and not both:
        i = int(np.argmax(s.coefficients))
        room, sign = float(problem.upper[i]) - s.value, 1.0
    elif s.sense == ">=":
        room, sign = s.value, -1.0
    else:
        room, sign = float(s.coefficients.max()) - s.value, 1.0
    step = min(STEP, room)
    if step <= RESOLUTION:
        return math.nan
    try:
        return (best(shifted(problem, s, sign * step, both)) - objective) / (sign * step)
    except OptimizeError:
        return math.nan


def shifted(problem: MixtureProblem, s: Limit, by: float, both: bool = False) -> MixtureProblem:
    """The problem with one linear limit moved by so much weight; with `both`, its other end as well."""
    if s in problem.rows:
        rows = tuple(
            replace(r, value=s.value + by) if r is s or (both and r.name == s.name) else r
            for r in problem.rows
        )
        return replace(problem, rows=rows)
    i, sides = int(np.argmax(s.coefficients)), {}
    for side, sense in (("lower", ">="), ("upper", "<=")):
        if both or s.sense == sense:
            sides[side] = getattr(problem, side).copy()
            sides[side][i] = s.value + by
    return replace(problem, **sides)


def _ceiling(problem: MixtureProblem, name: str) -> float:
    assert problem.max_loss is not None
    return float(problem.max_loss[problem.domains.index(name.removeprefix("loss_"))])


def _smooth_text(name: str, value: float) -> str:
    what = "divergence from the prior" if name == "divergence" else f"loss of {name.removeprefix('loss_')}"
    return f"{what} <= {value:.6g}"


def _told(s: Limit, price: float, fixed: bool) -> ActiveConstraint:
    """The limit and its price, of the sign that its sense allows: at a corner, slopes alone may say otherwise."""
    if fixed:
        s = replace(s, kind="fixed")
    else:
        price = min(price, 0.0) if s.sense == "<=" else max(price, 0.0)
    each = {"availability": (1e9, "1B tokens"), "generation": (1e18, "1e18 flops"), "cap": (1.0, "1 x prior")}
    amount, unit = each.get(s.kind, (0.0, "")) if math.isfinite(s.per_unit) else (0.0, "")
    text = s.text()
    if s.kind == "availability":
        text = f"{s.name} <= {s.value:.6g} (availability)"
    elif s.kind == "law":
        text += " (the law's own floor)"
    elif s.kind == "fixed":
        text = f"{s.label or s.name} = {s.value:.6g}"
    return ActiveConstraint(
        name=s.name, kind=s.kind, limit=s.value, price=price, text=text,
        price_per_unit=price * amount / s.per_unit if unit else None, unit=unit or None,
    )  # fmt: skip
