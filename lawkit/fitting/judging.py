"""How a law would have done: fitted to a part of the runs it forecasts the others, for every part and law alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.bands import ELASTICITY, ORIGINS, compute
from lawkit.fitting.clusters import tied
from lawkit.fitting.estimate import estimate
from lawkit.fitting.prediction import hold, parameter_sd
from lawkit.fitting.prepare import Prepared, distinct, fitted_cells, recorded_sizes
from lawkit.fitting.result import Fit
from lawkit.laws._average import Average
from lawkit.laws._law import Law
from lawkit.runs import Runs

#: Runs of one scale are divided into so many parts.
FOLDS = 5
#: What a law that ignores a size which never varied may be wrong by for each unit of its log: a standard deviation.
IGNORED = ELASTICITY / 1.645
#: Log errors count as this at most, and forecasts that are no number as this much.
_WORST = 1.0


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A law's fit to all runs, and what it did on the parts.

    Attributes
    ----------
    fit, ready
        To all runs.
    guess
        (E,) see `Judge.guess`.
    in_sample
        (M, E) mean absolute log residuals of that fit on the cells that each of M parts forecasts.
    errors
        (M, E) the same of forecasts of each part by a fit to the rest; NaN where there is none. Before
        `Judge.forecast`, all of it.
    """

    fit: Fit
    ready: Prepared
    guess: np.ndarray
    in_sample: np.ndarray
    errors: np.ndarray

    @property
    def forecast(self) -> np.ndarray:
        """(M,) which parts the law forecasts."""
        return np.any(~np.isnan(self.errors), axis=1)

    @property
    def least(self) -> float:
        """What the score is at least: no forecast is better than the fit to what is forecast, but for chance."""
        return float(score(self.in_sample, self.guess).mean())


class Judge:
    """The runs, and the parts of them that every law forecasts.

    Parameters
    ----------
    runs
        The runs.
    seed
        Of the fits' starts, and of random parts.
    delta, min_weight
        As for `lawkit.fit`.

    Attributes
    ----------
    parts
        M masks (n,) of the runs to be forecast from the others.
    rolling
        Whether these are the runs above a cut in compute, forecast from those below; else they are random.
    """

    def __init__(self, runs: Runs, seed: int = 0, delta: float | None = None, min_weight: float = 0.0):
        self.runs, self.seed, self.delta, self.min_weight = runs, seed, delta, min_weight
        self.rolling = compute(runs) is not None
        self.parts = above_cuts(runs) if self.rolling else random_parts(runs, seed)
        self._found: dict[tuple[int, int], np.ndarray] = {}

    def fit(self, law: Law, starts: int | None = None) -> Judged:
        """Fits to all runs.

        Raises
        ------
        FitError
            If the law cannot be fitted to them.
        """
        fit, ready = self._fit(law, -1, None, starts)
        miss = self._miss(fit, self.runs)
        inside = np.array([mean(miss[part]) for part in self.parts]).reshape(-1, len(fit.domains))
        return Judged(
            fit=fit, ready=ready, guess=self.guess(fit), in_sample=inside,
            errors=np.full(inside.shape, np.nan),
        )  # fmt: skip

    def forecast(self, judged: Judged) -> Judged:
        """Fits to what each part leaves, and forecasts it."""
        out, warm = judged.errors.copy(), judged.fit.z
        for k in reversed(range(len(self.parts))):  # each starts from its neighbour's parameters
            try:
                part, _ = self._fit(judged.fit.law, k, warm)
            except FitError:  # too few runs
                continue
            warm = part.z
            out[k] = mean(self._miss(part, self.runs.select(self.parts[k])))
        return replace(judged, errors=out)

    def guess(self, fit: Fit) -> np.ndarray:
        """(E,) what log losses may be wrong by at e times each size that takes one value in the runs.

        Where the law has the size, this rests on its priors: the mean over the runs of the standard deviation by the
        covariance of the parameters. A law that ignores it may be wrong by `IGNORED`, and one without priors by no
        less: its term may have ended anywhere, at nothing too. Where no size varies, only what a law guesses worse
        than one that ignores the sizes counts: the runs speak of other mixtures alone.
        """
        runs, e, constant = self.runs, fit.estimate, unvaried(self.runs)
        least = IGNORED if self.groundless(fit.law) else 0.0
        variance = np.full(len(fit.domains), len(set(constant) - fit.law.columns) * IGNORED**2)
        for name in sorted(set(constant) & fit.law.columns):
            sizes = {"n_params": runs.n_params, "n_tokens": runs.n_tokens}
            sizes[name] = sizes[name] * np.e  # type: ignore[operator]
            x = e.inputs(runs.weights, sizes["n_params"], sizes["n_tokens"], runs.unique)
            with np.errstate(all="ignore"):
                sd = parameter_sd(fit, x, e.losses(x)).mean(0)
            variance = variance + np.where(np.isfinite(sd), np.maximum(sd, least), np.inf) ** 2
        free = 0.0 if self.rolling else len(constant) * IGNORED**2
        return np.sqrt(np.maximum(variance - free, 0.0))

    def ignorance(self, law: Law) -> float:
        """The least that `guess` can be, known without a fit."""
        constant = set(unvaried(self.runs))
        count = len(constant if self.groundless(law) else constant - law.columns)
        return float(np.sqrt(count) * IGNORED) if self.rolling else 0.0

    @staticmethod
    def groundless(law: Law) -> bool:
        """Whether a law has no priors."""
        return law.objective.sigma is None or not any(p.prior for p in law.parameters)

    def _fit(
        self, law: Law, part: int, warm: np.ndarray | None, starts: int | None = None
    ) -> tuple[Fit, Prepared]:
        """To all runs (part -1), or to those that a part leaves. Members of an average are not searched for twice."""
        runs = self.runs if part < 0 else self.runs.select(~self.parts[part])
        if isinstance(law, Average):
            known = [z for m in law.members if (z := self._found.get((id(m), part))) is not None]
            warm = np.concatenate(known, 1) if len(known) == len(law.members) else warm
        objective = law.objective
        if self.delta is not None:
            objective = replace(objective, kind="huber", delta=self.delta)
        e, ready = estimate(runs, law, objective, self.min_weight, self.seed, starts, warm)
        if starts is None:
            self._found[id(law), part] = e.z
        return Fit(runs=runs, estimate=e, train={}, domain_train={}), ready

    def _miss(self, fit: Fit, runs: Runs) -> np.ndarray:
        """(n, E) absolute log errors; NaN where no loss was observed."""
        e = fit.estimate
        x = e.inputs(runs.weights, runs.n_params, runs.n_tokens, runs.unique)
        observed = runs.losses[:, [runs.domains.index(d) for d in e.domains]]
        observed = np.where(fitted_cells(runs, e.own, e.min_weight), observed, np.nan)
        with np.errstate(all="ignore"):
            miss = np.abs(np.log(hold(fit, x, e.losses(x)) / observed))
        return np.where(np.isnan(observed), np.nan, np.fmin(miss, _WORST))


def score(errors: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """(M,) errors to be expected beyond the runs, by those (M, E) on each part: means over the domains that it has."""
    return mean(np.hypot(errors, guess), 1)


def unvaried(runs: Runs) -> list[str]:
    """Which of 'n_params' and 'n_tokens' are recorded and take one value."""
    return sorted(name for name in recorded_sizes(runs) if distinct(getattr(runs, name)) == 1)


def above_cuts(runs: Runs) -> list[np.ndarray]:
    """Masks (n,) of the runs above each cut in compute, the lowest first."""
    order = compute(runs)
    assert order is not None
    masks: list[np.ndarray] = []
    for share in ORIGINS:
        above = order > np.quantile(order, share) * 1.001
        if above.any() and not (masks and masks[-1].sum() == above.sum()):
            masks.append(above)
    return masks


def random_parts(runs: Runs, seed: int) -> list[np.ndarray]:
    """Masks (n,) of random parts; rows that share a training run or a setting are in one part."""
    group = tied(runs)
    order = np.random.default_rng(seed).permutation(group.max() + 1)
    part = order[group] % FOLDS
    return [part == k for k in range(part.max() + 1)] if len(order) > 1 else []


def mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean along an axis of what is not NaN; NaN where nothing is."""
    seen = ~np.isnan(values)
    count = seen.sum(axis)
    total = np.where(seen, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
