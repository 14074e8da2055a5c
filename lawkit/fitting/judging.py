"""How a law would have done: fitted to a part of the runs, it forecasts the others, for every part and law alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.bands import ELASTICITY, ORIGINS, compute
from lawkit.fitting.clusters import training_runs, trained_settings
from lawkit.fitting.estimate import estimate
from lawkit.fitting.prediction import hold, parameter_sd
from lawkit.fitting.prepare import Prepared, distinct, fitted_cells, recorded_sizes
from lawkit.fitting.result import Fit
from lawkit.laws._average import Average
from lawkit.laws._law import Law
from lawkit.runs import Runs

#: Into so many parts runs of one scale are divided, each to be forecast from the others.
FOLDS = 5
#: What a law that ignores a size which never varied may be wrong by for each unit of its logarithm: a standard deviation.
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
    in_sample
        (M, E) mean absolute log residuals of that fit on the cells that each of M parts forecasts.
    guess
        (E,) see `Judge.guess`.
    errors
        (M, E) the same of the forecasts; NaN where the law could not be fitted to the rest. None before `forecast`.
    """

    fit: Fit
    ready: Prepared
    in_sample: np.ndarray
    guess: np.ndarray
    errors: np.ndarray | None = None


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

    def __init__(self, runs: Runs, seed: int = 0, delta: float | None = None, min_weight: float = 0.0) -> None:
        self.runs, self.seed, self.delta, self.min_weight = runs, seed, delta, min_weight
        cuts = above_cuts(runs)
        self.rolling = bool(cuts)
        self.parts = cuts or random_parts(runs, seed)
        self._found: dict[tuple[int, int], np.ndarray] = {}

    # ---- fits ---------------------------------------------------------------------------------------------

    def fit(self, law: Law) -> Judged:
        """Fits to all runs.

        Raises
        ------
        FitError
            If the law cannot be fitted to them.
        """
        fit, ready = self._fit(law, -1, None)
        x = fit.estimate.inputs(self.runs.weights, self.runs.n_params, self.runs.n_tokens, self.runs.unique)
        miss = self._miss(fit, self.runs)
        inside = np.array([mean(miss[part], 0) for part in self.parts]).reshape(len(self.parts), -1)
        del x
        return Judged(fit=fit, ready=ready, in_sample=inside, guess=self.guess(fit))

    def forecast(self, judged: Judged) -> Judged:
        """Fits to what each part leaves, and forecasts it."""
        law, domains = judged.fit.law, judged.fit.domains
        out = np.full(judged.in_sample.shape, np.nan)
        warm = judged.fit.z
        for k in reversed(range(len(self.parts))):  # neighbours start from each other
            try:
                earlier, _ = self._fit(law, k, warm)
            except FitError:  # too few runs
                continue
            if earlier.domains == domains:
                warm = earlier.z
                out[k] = mean(self._miss(earlier, self.runs.select(self.parts[k])), 0)
        return replace(judged, errors=out)

    def _fit(self, law: Law, part: int, warm: np.ndarray | None) -> tuple[Fit, Prepared]:
        """To all runs (part -1), or to those that a part leaves. The members of an average are not fitted twice."""
        runs = self.runs if part < 0 else self.runs.select(~self.parts[part])
        if isinstance(law, Average):
            members = [self._found.get((id(m), part)) for m in law.members]
            if all(m is not None for m in members):
                warm = np.concatenate(members, 1)  # type: ignore[arg-type]
        objective = law.objective if self.delta is None else replace(law.objective, kind="huber", delta=self.delta)
        e, ready = estimate(runs, law, objective, self.min_weight, self.seed, warm=warm)
        self._found[id(law), part] = e.z
        return Fit(runs=runs, estimate=e, train={}, domain_train={}), ready

    # ---- errors -------------------------------------------------------------------------------------------

    def guess(self, fit: Fit) -> np.ndarray:
        """(E,) what may be wrong of log losses at e times a size that takes one value in the runs; over such sizes.

        Where the law has the size, this rests on its priors: the mean over the runs of the standard deviation by the
        covariance of the parameters. A law that ignores it may be wrong by `IGNORED`.
        """
        runs, e = self.runs, fit.estimate
        out = np.zeros(len(fit.domains))
        for name in unvaried(runs):
            if name not in fit.law.columns:
                out = np.hypot(out, IGNORED)
                continue
            sizes = {"n_params": runs.n_params, "n_tokens": runs.n_tokens}
            sizes[name] = sizes[name] * np.e  # type: ignore[operator]
            x = e.inputs(runs.weights, sizes["n_params"], sizes["n_tokens"], runs.unique)
            sd = parameter_sd(fit, x, e.losses(x))
            out = np.hypot(out, mean(np.where(np.isfinite(sd), sd, np.nan), 0))
        return np.where(np.isfinite(out), out, np.inf)

    def _miss(self, fit: Fit, runs: Runs) -> np.ndarray:
        """(n, E) absolute log errors; NaN where no loss was observed."""
        e = fit.estimate
        x = e.inputs(runs.weights, runs.n_params, runs.n_tokens, runs.unique)
        observed = runs.losses[:, [runs.domains.index(d) for d in e.domains]]
        observed = np.where(fitted_cells(runs, e.own, e.min_weight), observed, np.nan)
        with np.errstate(all="ignore"):
            miss = np.abs(np.log(hold(fit, x, e.losses(x)) / observed))
        return np.where(np.isnan(observed), np.nan, np.fmin(miss, _WORST))


def unvaried(runs: Runs) -> list[str]:
    """Which of 'n_params' and 'n_tokens' are recorded and take one value."""
    return sorted(name for name in recorded_sizes(runs) if distinct(getattr(runs, name)) == 1)


def above_cuts(runs: Runs) -> list[np.ndarray]:
    """Masks (n,) of the runs above each cut in compute, the lowest first; none where the runs have one scale."""
    order = compute(runs)
    masks: list[np.ndarray] = []
    for share in ORIGINS if order is not None else ():
        above = order > np.quantile(order, share) * 1.001  # type: ignore[operator]
        if above.any() and not (masks and masks[-1].sum() == above.sum()):
            masks.append(above)
    return masks


def random_parts(runs: Runs, seed: int) -> list[np.ndarray]:
    """Masks (n,) of `FOLDS` random parts; rows of one training run, or of one setting, are in one part."""
    labels = np.arange(len(runs))
    for shared in (training_runs(runs), trained_settings(runs)):
        # The smallest label of those that a row is tied to, until no tie is left.
        for _ in range(len(runs)):
            least = np.full(shared.max() + 1, len(runs))
            np.minimum.at(least, shared, labels)
            labels = least[shared]
            break
    unique, group = np.unique(labels, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(unique))
    part = order[group] % min(FOLDS, len(unique))
    return [part == k for k in range(part.max() + 1)] if len(unique) > 1 else []


def mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean along an axis of what is not NaN; NaN where nothing is."""
    seen = ~np.isnan(values)
    count = seen.sum(axis)
    return np.where(count > 0, np.where(seen, values, 0.0).sum(axis) / np.maximum(count, 1), np.nan)
