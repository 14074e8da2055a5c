"""Which law to trust beyond the runs: laws beside each other, and the one that is likely to err least.

A law's score is the relative error to be expected of it one e-fold beyond the runs: by domain

    hypot(error of its earlier forecasts, guess),

averaged over the domains and the forecasts. The earlier forecasts are those that bands are made of: the law, fitted
to the runs of least compute, forecasts the others, at several cuts (see `lawkit.fitting.bands`). The guess is for each
size that is recorded and takes one value. What a law says of it rests on its priors, and the standard deviation of the
log loss at e times the size says how much; a law that ignores it, or has no priors, is taken to be wrong by an ordinary
elasticity at least (`lawkit.fitting.judging`).

Where no size varies, random parts of the runs are forecast from the others instead, whole training runs and settings
together, and the score is the error to be expected at other mixtures of that scale.

Two laws tie where the mean difference of their scores over the forecasts is under its standard error. Of those that
tie with the best the one of fewest parameters is chosen. PSIS-LOO and stacking weights stand beside the
score and have no part in the choice: they reward interpolation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lawkit import laws as zoo
from lawkit.errors import FitError, LawkitError
from lawkit.fitting.candidates import candidates, on_shared_domains
from lawkit.fitting.diagnostics import diagnose
from lawkit.fitting.judging import Judge, Judged, mean, score, unvaried
from lawkit.fitting.prepare import check_values
from lawkit.io._json import finite
from lawkit.laws._law import Law
from lawkit.runs import Runs

#: A law is given up when its score cannot come nearer to the best than by this factor: what may tie is kept.
_MARGIN = 1.1
#: Laws that forecast less than this share of what others do are not judged.
_ENOUGH = 0.7
#: Laws of which a larger share of the losses has no reliable elpd have no part in the stacking.
_TRUSTED = 0.1


@dataclass(frozen=True, kw_only=True)
class LawScore:
    """What is known of one law on the runs.

    Attributes
    ----------
    name, law
        The law; None for one that could not be loaded.
    score
        Relative error to be expected one e-fold beyond the runs; where `reason` is given, it is more than this. None
        where nothing is known.
    reason
        Why the law was not judged to the end, or not at all; empty for those that were.
    holdout_mre
        Mean absolute log error (a relative error) of the forecasts, over cuts or random parts and domains.
    guess
        What counts for sizes that take one value, a mean over domains.
    n_parameters
        Of all domains together.
    elpd, elpd_se, p_loo, pareto_k
        Expected log density of the log losses left out one by one, its standard error, the effective number of
        parameters, and the share of losses whose estimate cannot be trusted (PSIS-LOO under Laplace's approximation).
    weight
        Of the law in the stacking of those whose elpd can be trusted for nine in ten losses.
    seconds
        Spent on it.
    warnings
        What a reader should know before trusting its fit.
    """

    name: str
    law: Law | None = field(default=None, repr=False)
    score: float | None = None
    reason: str = ""
    holdout_mre: float | None = None
    guess: float | None = None
    n_parameters: int | None = None
    elpd: float | None = None
    elpd_se: float | None = None
    p_loo: float | None = None
    pareto_k: float | None = None
    weight: float | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As `lawkit compare --json` gives it; `p` is `n_parameters`, and numbers that are not finite are None."""
        names = ("name", "score", "holdout_mre", "guess", "elpd", "elpd_se", "p_loo", "pareto_k", "weight")
        told = {name: getattr(self, name) for name in names}
        return finite(
            {
                **told,
                "p": self.n_parameters,
                "n_parameters": self.n_parameters,
                "reason": self.reason or None,
                "seconds": self.seconds,
                "warnings": list(self.warnings),
            }
        )


_Pair = tuple[LawScore, Judged | None]


def compare_laws(
    runs: Runs,
    laws: Sequence[str | Law] | None = None,
    *,
    domains: Sequence[str] | None = None,
    seed: int = 0,
    elpd: bool = True,
    delta: float | None = None,
    min_weight: float = 0.0,
) -> list[LawScore]:
    """Laws beside each other, best first; those that could not be judged last, with the reason.

    Parameters
    ----------
    runs
        The runs table.
    laws
        Names, or `Law`s; None for all that `select_law` considers.
    domains
        Evaluation domains; all by default. Laws are compared on those that all of them can be fitted to.
    seed
        Of starts, random parts and draws.
    elpd
        Whether to estimate PSIS-LOO and stacking weights, which need Laplace's approximation and ArviZ.
    delta, min_weight
        As for `lawkit.fit`.

    Raises
    ------
    FitError, LawError
        If a name is unknown, none of the laws can be fitted, or the runs are too few to judge any.

    Examples
    --------
    >>> n, d = (g.ravel() for g in np.meshgrid([1e8, 2e8, 4e8, 8e8], [2e9, 4e9, 8e9, 1.6e10]))
    >>> runs = Runs(sources=(), domains=("web",), n_params=n, n_tokens=d, weights=np.zeros((16, 0)),
    ...     losses=(1.8 + 480 / n**.35 + 2000 / d**.37)[:, None])
    >>> [s.name for s in compare_laws(runs, ["chinchilla-data", "chinchilla"], elpd=False)]
    ['chinchilla', 'chinchilla-data']
    """
    if domains is not None:
        runs = runs.with_domains(list(domains))
    check_values(runs)
    notes: list[str] = []
    if laws is None:
        chosen, refused = candidates(runs)
    else:
        named = [zoo.get(law) if isinstance(law, str) else law for law in laws]
        runs, chosen, refused, notes = on_shared_domains(runs, list({id(law): law for law in named}.values()))
    judge = Judge(runs, seed, delta, min_weight)
    ranked = _ranked(_all_judged(judge, chosen, prune=laws is None), len(judge.parts))
    ranked += [(LawScore(name=name, reason=reason), None) for name, reason in refused]
    if not ranked or ranked[0][1] is None:
        raise FitError(_nothing([score for score, _ in ranked]))
    if elpd:
        ranked = _with_elpd(judge, ranked)
    return [replace(told, warnings=(*notes, *told.warnings)) for told, _ in ranked]


def select_law(
    runs: Runs,
    *,
    domains: Sequence[str] | None = None,
    seed: int = 0,
    delta: float | None = None,
    min_weight: float = 0.0,
) -> tuple[Law, list[LawScore]]:
    """The law of least expected error beyond the runs, of all that the table's columns allow, and all scores.

    Considered are the laws of `lawkit.laws.names`, third parties' too, that can be fitted to every domain. Those that
    cannot come near the best one so far are given up early, and say so.

    Parameters
    ----------
    runs, domains, seed, delta, min_weight
        As for `compare_laws`.

    Raises
    ------
    FitError
        If no law can be judged on these runs.
    """
    scores = compare_laws(runs, domains=domains, seed=seed, elpd=False, delta=delta, min_weight=min_weight)
    assert scores[0].law is not None
    return scores[0].law, scores


# ---- one by one, and beside each other -------------------------------------------------------------------


def _one(judge: Judge, law: Law, limit: float) -> _Pair:
    """One law; given up, without forecasts, where its score cannot be below `limit`."""
    start, runs = time.perf_counter(), judge.runs
    count = law.n_parameters(len(runs.sources)) * (1 if law.coupled else len(runs.domains))
    told = LawScore(name=law.name, law=law, n_parameters=count)
    try:
        least, what, found = _unless_hopeless(judge, law, limit)
        if found is None:
            told = replace(told, score=least, reason=f"given up: {what} alone comes to {100 * least:.3g}%")
        else:
            found = judge.forecast(found)
            _, notes = diagnose(runs, found.fit.estimate, found.ready, law.starts)
            told = replace(told, guess=float(found.guess.mean()), warnings=(*found.ready.warnings, *notes))
    except LawkitError as error:
        told, found = replace(told, reason=str(error)), None
    return replace(told, seconds=time.perf_counter() - start), found


def _unless_hopeless(judge: Judge, law: Law, limit: float) -> tuple[float, str, Judged | None]:
    """A lower bound of the score and what it is made of, and the law's fit where the bound is within the limit."""
    constant = unvaried(judge.runs)
    guess = f"its guess for {' and '.join(constant)}"
    if (ignored := judge.ignorance(law)) > limit:
        return ignored, guess, None
    if np.isfinite(limit) and law.starts > 1 and set(constant) & law.columns:
        # A guess that rests on nothing shows from one start.
        wild = float(judge.fit(law, starts=1).guess.mean())
        if wild > limit:
            return wild, guess, None
    found = judge.fit(law)
    what = "the error of its fit" + (f", with {guess}," if constant else "")
    return found.least, what, found if found.least <= limit else None


def _all_judged(judge: Judge, laws: list[Law], prune: bool) -> list[_Pair]:
    best, out = np.inf, []
    for law in laws:
        told, found = _one(judge, law, _MARGIN * best if prune else np.inf)
        if found is not None and found.forecast.mean() >= _ENOUGH:
            best = min(best, float(mean(score(found.errors, found.guess))))
        out.append((told, found))
    return out


def _ranked(pairs: list[_Pair], n_parts: int) -> list[_Pair]:
    """Scores on the parts that all laws forecast, the choice first, then by score; those not judged last."""
    most = max((int(j.forecast.sum()) for _, j in pairs if j is not None), default=0)
    common = np.ones(n_parts, bool)
    live: list[tuple[LawScore, Judged]] = []
    rest: list[_Pair] = []
    for told, found in sorted(pairs, key=lambda p: -1 if p[1] is None else -int(p[1].forecast.sum())):
        if found is None:
            rest.append((told, None))
        elif (common & found.forecast).sum() < max(1, _ENOUGH * most):
            few = f"too few runs: it could be fitted to {found.forecast.sum()} of {n_parts} parts of them"
            rest.append((replace(told, reason=few), None))
        else:
            common &= found.forecast
            live.append((told, found))
    if live:
        by_part = [score(j.errors[common], j.guess) for _, j in live]
        means = [float(s.mean()) for s in by_part]
        best = int(np.argmin(means))
        tied = {i for i in range(len(live)) if _ties(by_part[i] - by_part[best])}
        choice = min(tied, key=lambda i: (live[i][0].n_parameters, means[i]))
        order = sorted(range(len(live)), key=lambda i: (i != choice, means[i]))
        holdout = [float(mean(mean(j.errors[common]))) for _, j in live]
        live = [(replace(live[i][0], score=means[i], holdout_mre=holdout[i]), live[i][1]) for i in order]
    return [*live, *sorted(rest, key=lambda p: (p[0].score is None, p[0].score or 0.0))]


def _ties(difference: np.ndarray) -> bool:
    """Whether scores that differ so (M,) on the parts do not differ by more than chance."""
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return bool(difference.mean() <= error)


def _nothing(scores: list[LawScore]) -> str:
    """Why there is no law to recommend."""
    if not scores:
        return "no law goes with the columns of the table (`lawkit laws` lists what each needs)"
    what = f"law {scores[0].name!r}" if len(scores) == 1 else f"none of {len(scores)} laws"
    return (
        f"{what} {'cannot' if len(scores) == 1 else 'can'} be judged on these runs ({scores[0].name}: "
        f"{scores[0].reason.rstrip('.')}): add runs, or fit a law of your choice with `lawkit fit --law NAME`"
    )


# ---- what else is known of them ---------------------------------------------------------------------------


def _with_elpd(judge: Judge, ranked: list[_Pair]) -> list[_Pair]:
    """PSIS-LOO of the judged laws, and the weights of their stacking."""
    from lawkit.bayes import _arviz
    from lawkit.bayes.elpd import leave_one_out

    try:
        _arviz.arviz()
    except FitError:
        note = f"no elpd and no weights, as ArviZ is not installed: {_arviz.INSTALL}"
        return [(t if j is None else replace(t, warnings=(*t.warnings, note)), j) for t, j in ranked]
    out = list(ranked)
    known: dict[int, np.ndarray] = {}
    for i, (told, found) in enumerate(ranked):
        if found is None:
            continue
        start = time.perf_counter()
        try:
            loo, notes = leave_one_out(
                judge.runs, found.fit.estimate, found.ready, judge.runs.domains, judge.seed
            )
        except LawkitError as error:
            out[i] = replace(told, warnings=(*told.warnings, f"no elpd: {error}")), found
            continue
        if loo.unreliable_share <= _TRUSTED:
            known[i] = loo.pointwise
        out[i] = replace(
            told, elpd=loo.elpd, elpd_se=loo.se, p_loo=loo.p_loo, pareto_k=loo.unreliable_share,
            warnings=(*told.warnings, *notes), seconds=told.seconds + time.perf_counter() - start,
        ), found  # fmt: skip
    weights = _arviz.stacking_weights(list(known.values())) if known else ()
    for i, weight in zip(known, weights, strict=True):
        out[i] = replace(out[i][0], weight=float(weight)), out[i][1]
    return out
