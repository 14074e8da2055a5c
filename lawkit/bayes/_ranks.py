"""Ranks of true values among draws, and whether they are uniform; see `lawkit.bayes.calibration`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

#: Bins of the chi-square test, and simulations that the test by the distribution function is calibrated by.
_BINS, _SIMULATIONS = 10, 5000


@dataclass(frozen=True, kw_only=True)
class Uniformity:
    """Whether the ranks of one quantity are uniform.

    Attributes
    ----------
    name
        The quantity.
    chi_square
        p-value of a chi-square test over ten bins.
    ecdf
        p-value by the largest departure of the empirical distribution function, over all ranks at once.
    mean, spread
        Of the ranks divided by their number, 1/2 expected; and their standard deviation by that of uniform ones: above
        1 where the posterior is too narrow.
    """

    name: str
    chi_square: float
    ecdf: float
    mean: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Ranks of true values among the draws of their posteriors.

    Attributes
    ----------
    quantities
        Names of the Q quantities.
    ranks
        (tables, Q) 0 to `draws`.
    draws
        How many draws each true value was ranked among.
    diagnostics
        Of the sampler, table by table.
    failures
        Messages of the tables that could not be fitted. They are missing from `ranks`, and what is said of the others
        holds no more than it would if they were the odd ones out.
    """

    quantities: tuple[str, ...]
    ranks: np.ndarray
    draws: int
    diagnostics: tuple[dict[str, Any], ...] = ()
    failures: tuple[str, ...] = ()

    def where(self, chosen: np.ndarray) -> Calibration:
        """Only the tables (a mask) that were chosen by their losses or the sampler's diagnostics."""
        kept = tuple(d for d, c in zip(self.diagnostics, chosen, strict=True) if c)
        return replace(self, ranks=self.ranks[chosen], diagnostics=kept)

    def uniformity(self) -> tuple[Uniformity, ...]:
        """The tests, quantity by quantity."""
        from scipy.stats import chisquare

        edges = np.linspace(0, self.draws + 1, _BINS + 1)
        by_ecdf = ecdf_p_values(self.ranks, self.draws)
        share = (self.ranks + 0.5) / (self.draws + 1)
        return tuple(
            Uniformity(
                name=name,
                chi_square=float(chisquare(np.histogram(self.ranks[:, i] + 0.5, edges)[0]).pvalue),
                ecdf=float(by_ecdf[i]),
                mean=float(share[:, i].mean()),
                spread=float(share[:, i].std() * np.sqrt(12)),
            )
            for i, name in enumerate(self.quantities)
        )

    def worst(self) -> tuple[str, float]:
        """The quantity whose ranks are the least uniform, and its p-value times the number of tests (Bonferroni)."""
        found = self.uniformity()
        p = [min(u.chi_square, u.ecdf) for u in found]
        which = int(np.argmin(p))
        return found[which].name, min(1.0, 2 * len(found) * p[which])


def ecdf_p_values(ranks: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """How often uniform ranks have a distribution function as far off, anywhere, as these have.

    The count of ranks up to each value is binomial; the statistic is the smallest two-sided tail probability of any
    of them, compared with that of simulated uniform ranks.

    Parameters
    ----------
    ranks
        (N, Q) 0 to `draws`.
    draws
        The highest rank.
    seed
        Of the simulation.

    Returns
    -------
    ndarray
        (Q,) p-values.

    References
    ----------
    Säilynoja, Bürkner and Vehtari 2022, Graphical test for discrete uniformity, arXiv:2103.10522.
    """
    from scipy.stats import binom

    count = len(ranks)
    inside = np.arange(1, draws + 1) / (draws + 1)
    below = binom.cdf(np.arange(count + 1)[:, None], count, inside)  # (N + 1, draws)
    above = binom.sf(np.arange(count + 1)[:, None] - 1, count, inside)
    tail = np.minimum(1.0, 2 * np.minimum(below, above))

    def statistic(some: np.ndarray) -> np.ndarray:  # (N, Q) to (Q,)
        each = np.stack([np.bincount(column, minlength=draws + 1) for column in some.T])
        reached = each.cumsum(1)[:, :-1]
        return tail[reached, np.arange(draws)].min(1)

    uniform = np.random.default_rng(seed).integers(0, draws + 1, (count, _SIMULATIONS))
    null = np.sort(statistic(uniform))
    return (1 + np.searchsorted(null, statistic(ranks) * (1 + 1e-9), side="right")) / (1 + _SIMULATIONS)
