"""A compute budget split between model size, tokens and generated text, and the best mixture there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.io._json import finite
from lawkit.mixture._warnings import edge_warnings, scale_warnings
from lawkit.mixture.budget import FINE, FLOPS_PER, Budget, split
from lawkit.mixture.constraints import merged, read_constraints
from lawkit.mixture.result import ActiveConstraint
from lawkit.mixture.target import check_size, over_domains

if TYPE_CHECKING:
    from lawkit.fitting import Fit

__all__ = ["FLOPS_PER", "Allocation", "allocate"]

#: Draws by default, where the fit has some.
DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The run that a budget is best spent on.

    Attributes
    ----------
    flops
        The budget: 6 x n_params x n_tokens, plus what generating text costs.
    generation_flops
        The part of it that is spent on generating text.
    n_params, n_tokens
        Non-embedding parameters and training tokens.
    weights
        The best mixture there; None for a law without weights.
    objective
        Its target-weighted mean loss, nats per token.
    intervals
        `n_params`, `n_tokens` and `objective` to central intervals (lower, upper) over the draws, the mixture being
        held; empty without draws.
    regret
        Loss given up by this split on average over the draws, each of which has a best one of its own; nats per token.
    interval
        Nominal coverage of `intervals`; None without draws.
    price_of_training, price_of_generation
        Change of the objective per 1e18 more flops spent on training at this size, and on generating text; the second
        is None where text costs nothing. Where some is generated they agree: a flop does as much good either way.
    active
        Limits that bind there, with their prices; generation within the budget is paid for at the worth of a flop.
    gap, certificate
        How good the mixture is known to be at this size, as `MixtureResult.optimality_gap`.
    warnings
        What to know before acting on it.
    """

    flops: float
    generation_flops: float
    n_params: float
    n_tokens: float
    weights: dict[str, float] | None
    objective: float
    intervals: dict[str, tuple[float, float]]
    regret: float | None
    interval: float | None
    price_of_training: float
    price_of_generation: float | None = None
    active: tuple[ActiveConstraint, ...] = ()
    gap: float = 0.0
    certificate: str = "global"
    warnings: tuple[str, ...] = ()

    @property
    def shadow_prices(self) -> dict[str, float]:
        """The prices of `active` by name, nats per unit weight (or per nat)."""
        return {a.name: a.price for a in self.active}

    def to_dict(self) -> dict[str, Any]:
        """The object that `lawkit allocate --json` prints."""
        return finite(
            {
                "flops": self.flops,
                "generation_flops": self.generation_flops,
                "n_params": self.n_params,
                "n_tokens": self.n_tokens,
                "tokens_per_parameter": self.n_tokens / self.n_params,
                "weights": self.weights,
                "objective": self.objective,
                "intervals": {name: list(pair) for name, pair in self.intervals.items()},
                "interval": self.interval,
                "regret": self.regret,
                "price_per_1e18_flops_of_training": self.price_of_training,
                "price_per_1e18_flops_of_generation": self.price_of_generation,
                "active_constraints": [str(a) for a in self.active],
                "shadow_prices": self.shadow_prices,
                "optimality_gap": self.gap,
                "certificate": self.certificate,
                "warnings": list(self.warnings),
            }
        )


def allocate(
    fit: Fit,
    flops: float,
    *,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    available: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] | None = None,
    target: Mapping[str, float] | None = None,
    groups: Mapping[str, Any] | None = None,
    constraints: Mapping[str, Any] | str | Path | None = None,
    draws: int | None = None,
    interval: float = 0.9,
    seed: int = 0,
) -> Allocation:
    """The n_params and n_tokens, and the mixture, with the least predicted loss for a budget of flops.

    Where `constraints` say what generating a source costs, generation and training share the budget:
    6 n_params n_tokens + n_tokens * sum of cost * weight = flops.

    Parameters
    ----------
    fit
        A fitted law in which the loss falls with both n_params and n_tokens, or with one where all runs have the
        same other one: that is held, and the budget buys the first.
    flops
        The budget, counted as 6 n_params n_tokens and the cost of generation.
    bounds, available, max_epochs, target, groups, constraints
        As for `optimize_mixture`; for laws with weights.
    draws
        Of the parameters, each with its own best split at the mixture found; by default 200 where the fit has
        draws of its own. 0 for none.
    interval
        Nominal coverage of the intervals, in (0, 1).
    seed
        For the choice of draws.

    Returns
    -------
    Allocation

    Raises
    ------
    OptimizeError
        For a budget that is no positive number, a law without both sizes, runs without them, limits that no mixture
        satisfies, and a law with no best split.

    Examples
    --------
    >>> import numpy as np, lawkit
    >>> n, d = (g.ravel() for g in np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10]))
    >>> runs = lawkit.Runs(sources=(), domains=("web",), n_params=n, n_tokens=d, weights=np.zeros((9, 0)),
    ...     losses=(1.8 + 480 / n**.35 + 2000 / d**.35)[:, None])
    >>> best = allocate(lawkit.fit(runs, law="chinchilla", holdout="none"), 6e20)
    >>> round(best.n_tokens / best.n_params, 1)  # (2000 / 480) ** (1 / .35)
    59.0
    """
    check_size("flops", flops)
    if not 0 < interval < 1:
        raise OptimizeError(f"interval must lie between 0 and 1, got {interval!r}")
    law = fit.law
    held = _held(fit)
    asked = merged(
        read_constraints(constraints, fit.sources, fit.domains), bounds=bounds, available=available,
        max_epochs=max_epochs, target=target, groups=groups,
    )  # fmt: skip
    if asked.pop("risk", "point") != "point":
        raise OptimizeError(
            "allocate takes the fit's own parameters: leave risk out; intervals say how sure the split is"
        )
    mixed = "weights" in law.columns
    # A law of sizes alone may still count repetition.
    allowed = {"target", *(("available", "max_epochs") if "unique" in law.columns else ())}
    if not mixed and (extra := set(asked) - allowed):
        raise OptimizeError(
            f"law {law.name} does not depend on mixture weights: leave {', '.join(sorted(extra))} out"
        )
    budget = Budget(fit, flops, asked, seed, held)
    n, share = split(budget)
    d = float(budget.tokens(n, share))
    h, objective, solution = budget.at(n, share)
    warnings = [*_fixed_sizes(fit), *scale_warnings(fit, n, d), *(edge_warnings(fit, h) if mixed else [])]
    count = draws if draws is not None else (DRAWS if fit.draws is not None else 0)
    intervals, regret = {}, None
    if count:
        intervals, regret = _under_draws(
            budget, share, fit.draw(count, seed), n, h, interval, np.log(budget.ends)
        )
        warnings += _apart(n, objective, intervals, interval)
    training, generation = budget.prices(n, share)
    return Allocation(
        flops=flops, generation_flops=flops - FLOPS_PER * n * d if budget.dearest else 0.0, n_params=n, n_tokens=d,
        weights=dict(zip(fit.sources, h.tolist(), strict=True)) if mixed else None, objective=objective,
        intervals=intervals, regret=regret, interval=interval if count else None, price_of_training=training,
        price_of_generation=generation, active=budget.binding(n, share), gap=0.0 if solution is None else solution.gap,
        certificate="global" if solution is None else solution.certificate,
        warnings=tuple(dict.fromkeys([*warnings, *(() if solution is None else solution.notes)])),
    )  # fmt: skip


def _held(fit: Fit) -> tuple[str, float] | None:
    """The size that a law of the other one lacks, and its value in the runs; None for a law of both.

    Raises
    ------
    OptimizeError
        For sizes that the runs do not record, and a size that the law lacks though it takes several values.
    """
    law, held = fit.law, None
    for name in ("n_params", "n_tokens"):
        recorded = getattr(fit.runs, name)
        if name in law.columns and recorded is not None:
            continue
        if (
            name not in law.columns
            and recorded is not None
            and held is None
            and np.ptp(np.log(recorded)) < 1e-9
        ):
            held = name, float(recorded[0])
            continue
        why = f"law {law.name} does not use it" if name not in law.columns else "the runs have no such column"
        raise OptimizeError(
            f"a budget is split between n_params and n_tokens, but {name} does not count here: {why}; fit a law of "
            "both to runs of several sizes"
        )
    return held


def _under_draws(
    budget: Budget, share: float, z: np.ndarray, n: float, h: np.ndarray, interval: float, log_n: np.ndarray
) -> tuple[dict[str, tuple[float, float]], float]:
    """Intervals of the best split over draws z (S, G, P) at the mixture h, and the loss that the split n gives up."""
    estimate = budget.fit.estimate
    over = budget.problem(n, share).over if budget.mixed else ("mean", 0.0)

    def tokens(m: np.ndarray) -> np.ndarray:
        return budget.tokens(m, share)

    def objectives(m: np.ndarray) -> np.ndarray:
        """(S, len(m)) of splits m of the budget."""
        mixtures = np.broadcast_to(h, (len(m), len(h)))
        unique = None if budget.unique is None else np.broadcast_to(budget.unique, mixtures.shape)
        with np.errstate(all="ignore"):
            losses = estimate.losses_at(z, estimate.inputs(mixtures, m, tokens(m), unique))
            return over_domains(losses, budget.target, over)

    grid = np.linspace(log_n[0], log_n[1], FINE)
    losses = objectives(np.exp(grid))
    losses = np.where(np.isfinite(losses), losses, np.inf)
    at = np.clip(np.argmin(losses, 1), 1, FINE - 2)
    row = np.arange(len(z))
    left, least, right = (losses[row, at + k] for k in (-1, 0, 1))
    with np.errstate(all="ignore"):  # the parabola through three points of a grid this fine
        bend = left - 2 * least + right
        step = np.where(bend > 0, 0.5 * (left - right) / bend, 0.0)
        least = least - np.where(bend > 0, 0.125 * (left - right) ** 2 / bend, 0.0)
    best = np.exp(grid[at] + np.clip(step, -1, 1) * (grid[1] - grid[0]))
    mine = objectives(np.array([n]))[:, 0]
    ends = [0.5 - interval / 2, 0.5 + interval / 2]

    def pair(values: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(values, ends)
        return float(low), float(high)

    intervals = {"n_params": pair(best), "n_tokens": pair(tokens(best)), "objective": pair(mine)}
    return intervals, float(np.mean(np.maximum(mine - least, 0.0)))


def _apart(
    n: float, objective: float, intervals: dict[str, tuple[float, float]], interval: float
) -> list[str]:
    """A warning where the point fit lies outside what its draws say."""
    names = []
    for name, value in (("n_params", n), ("objective", objective)):
        low, high = intervals[name]
        if not low <= value <= high:
            names.append(name)
    if not names:
        return []
    return [
        f"{' and '.join(names)} of the point fit {'lies' if len(names) == 1 else 'lie'} outside the {100 * interval:g}%"
        " interval of the draws, so the runs say little of this split: add runs of other sizes, or look at the draws' "
        "own warnings (`lawkit fit`)"
    ]


def _fixed_sizes(fit: Fit) -> list[str]:
    """Sizes that took one value only, so that the split rests on priors."""
    return [
        f"{name} takes one value only in the runs: the split rests on the law and its priors"
        for name in ("n_params", "n_tokens")
        if name in fit.law.columns and np.ptp(np.log(getattr(fit.runs, name))) < 0.02
    ]
