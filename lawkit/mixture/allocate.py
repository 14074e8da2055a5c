"""A compute budget split between model size and tokens, and the best mixture there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture._warnings import edge_warnings, scale_warnings
from lawkit.mixture.problem import MixtureProblem, target_weights
from lawkit.mixture.solve import solve
from lawkit.mixture.target import Target, check_size

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: Training costs this many flops per parameter and token (Kaplan et al. 2020, arXiv:2001.08361).
FLOPS_PER = 6.0
#: Tokens per parameter that are searched between.
RATIOS = (1e-2, 1e5)
#: Points of the search over that range: at a given mixture, and where each has a best mixture of its own.
_FINE, _COARSE = 400, 30
#: Draws by default, where the fit has some.
DRAWS = 200


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The run that a budget is best spent on.

    Attributes
    ----------
    flops
        The budget, 6 x n_params x n_tokens.
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
    warnings
        What to know before acting on it.
    """

    flops: float
    n_params: float
    n_tokens: float
    weights: dict[str, float] | None
    objective: float
    intervals: dict[str, tuple[float, float]]
    regret: float | None
    interval: float | None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The object that `lawkit allocate --json` prints."""
        return {
            "flops": self.flops,
            "n_params": self.n_params,
            "n_tokens": self.n_tokens,
            "tokens_per_parameter": self.n_tokens / self.n_params,
            "weights": self.weights,
            "objective": self.objective,
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "interval": self.interval,
            "regret": self.regret,
            "warnings": list(self.warnings),
        }


def allocate(
    fit: Fit,
    flops: float,
    *,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    available: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = 4.0,
    target: Mapping[str, float] | None = None,
    draws: int | None = None,
    interval: float = 0.9,
    seed: int = 0,
) -> Allocation:
    """The n_params and n_tokens, and the mixture, with the least predicted loss for a training budget.

    Parameters
    ----------
    fit
        A fitted law in which the loss falls with both n_params and n_tokens.
    flops
        The budget, counted as 6 n_params n_tokens.
    bounds, available, max_epochs, target
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
    for name in ("n_params", "n_tokens"):
        if name not in law.columns or getattr(fit.runs, name) is None:
            why = (
                f"law {law.name} does not use it"
                if name not in law.columns
                else "the runs have no such column"
            )
            raise OptimizeError(
                f"a budget is split between n_params and n_tokens, but the fit says nothing of {name}: {why}; fit "
                "runs of several sizes and token counts by a law of both"
            )
    if "unique" in law.columns:
        raise OptimizeError(
            f"law {law.name} counts repetition, which a split of flops does not know yet: fit a law without it"
        )
    mixed = "weights" in law.columns
    if not mixed and (bounds or available):
        raise OptimizeError(
            f"law {law.name} does not depend on mixture weights: leave bounds and available out"
        )
    v = target_weights(target, fit.domains)
    log_n = 0.5 * (np.log(flops / FLOPS_PER) - np.log(np.array(RATIOS)[::-1]))

    def tokens(n: np.ndarray) -> np.ndarray:
        return flops / (FLOPS_PER * n)

    def best_mixture(n: float) -> tuple[float, np.ndarray]:
        d = float(tokens(np.array(n)))
        problem = MixtureProblem.build(
            fit.sources, fit.domains, n_tokens=d, bounds=bounds, available=available, max_epochs=max_epochs,
            target=target,
        )  # fmt: skip
        found = solve(Target(fit, n, d), problem, seed)
        return found.objective, found.h

    h = np.zeros(len(fit.sources))
    if mixed:
        n = float(np.exp(_least(lambda u: best_mixture(float(np.exp(u)))[0], log_n, _COARSE)))
        objective, h = best_mixture(n)
    else:

        def at_one(u: float) -> float:
            return float(_losses(fit, fit.z[None], np.exp([u]), tokens, h, v)[0, 0])

        n = float(np.exp(_least(at_one, log_n)))
        objective = float(_losses(fit, fit.z[None], np.array([n]), tokens, h, v)[0, 0])
    d = float(tokens(np.array(n)))
    warnings = [*_fixed_sizes(fit), *scale_warnings(fit, n, d), *(edge_warnings(fit, h) if mixed else [])]
    count = draws if draws is not None else (DRAWS if fit.draws is not None else 0)
    intervals, regret = {}, None
    if count:
        intervals, regret = _under_draws(fit, fit.draw(count, seed), n, tokens, h, v, interval, log_n)
    return Allocation(
        flops=flops, n_params=n, n_tokens=d, weights=dict(zip(fit.sources, h.tolist(), strict=True)) if mixed else None,
        objective=objective, intervals=intervals, regret=regret, interval=interval if count else None,
        warnings=tuple(dict.fromkeys(warnings)),
    )  # fmt: skip


def _losses(fit: Fit, z: np.ndarray, n: np.ndarray, tokens: Any, h: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(S, len(n)) target-weighted losses of splits n of the budget at one mixture h (K,)."""
    mixtures = np.broadcast_to(h, (len(n), len(h)))
    with np.errstate(all="ignore"):
        return fit.estimate.losses_at(z, fit.estimate.inputs(mixtures, n, tokens(n))) @ v


def _least(loss: Callable[[float], float], log_n: np.ndarray, points: int = _FINE) -> float:
    """The log n_params of least loss: the best of a grid, then Brent's method between its neighbours."""
    from scipy.optimize import minimize_scalar

    grid = np.linspace(log_n[0], log_n[1], points)
    values = np.array([loss(u) for u in grid])
    values[~np.isfinite(values)] = np.inf
    at = int(np.argmin(values))
    if at in (0, points - 1) or not np.isfinite(values[at]):
        raise OptimizeError(
            f"the law has no best split of this budget between {RATIOS[0]:g} and {RATIOS[1]:g} tokens per parameter: "
            f"its loss is least at {'the most' if at == 0 else 'the fewest'} tokens; look at the fit's parameters"
        )
    return float(
        minimize_scalar(
            loss, bounds=(grid[at - 1], grid[at + 1]), method="bounded", options={"xatol": 1e-9}
        ).x
    )


def _under_draws(
    fit: Fit,
    z: np.ndarray,
    n: float,
    tokens: Any,
    h: np.ndarray,
    v: np.ndarray,
    interval: float,
    log_n: np.ndarray,
) -> tuple[dict[str, tuple[float, float]], float]:
    """Intervals of the best split over draws z (S, G, P) at the mixture h, and the loss that the split n gives up."""
    grid = np.linspace(log_n[0], log_n[1], _FINE)
    losses = _losses(fit, z, np.exp(grid), tokens, h, v)
    losses = np.where(np.isfinite(losses), losses, np.inf)
    at = np.clip(np.argmin(losses, 1), 1, _FINE - 2)
    row = np.arange(len(z))
    left, least, right = (losses[row, at + k] for k in (-1, 0, 1))
    with np.errstate(all="ignore"):  # the parabola through three points of a grid this fine
        bend = left - 2 * least + right
        step = np.where(bend > 0, 0.5 * (left - right) / bend, 0.0)
        least = least - np.where(bend > 0, 0.125 * (left - right) ** 2 / bend, 0.0)
    best = np.exp(grid[at] + np.clip(step, -1, 1) * (grid[1] - grid[0]))
    mine = _losses(fit, z, np.array([n]), tokens, h, v)[:, 0]
    ends = [0.5 - interval / 2, 0.5 + interval / 2]

    def pair(values: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(values, ends)
        return float(low), float(high)

    intervals = {"n_params": pair(best), "n_tokens": pair(tokens(best)), "objective": pair(mine)}
    return intervals, float(np.mean(np.maximum(mine - least, 0.0)))


def _fixed_sizes(fit: Fit) -> list[str]:
    """Sizes that took one value only, so that the split rests on priors."""
    return [
        f"{name} takes one value only in the runs: the split rests on the law and its priors"
        for name in ("n_params", "n_tokens")
        if np.ptp(np.log(getattr(fit.runs, name))) < 0.02
    ]
