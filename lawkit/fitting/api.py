"""`lawkit.fit`: from a runs table to a fitted law that says how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lawkit import laws
from lawkit.errors import FitError
from lawkit.fitting.diagnostics import diagnose
from lawkit.fitting.draws import Noise
from lawkit.fitting.estimate import estimate
from lawkit.fitting.holdout import errors, split
from lawkit.fitting.prediction import hold, plain_half_width
from lawkit.fitting.prepare import check_values, distinct, fitted_cells
from lawkit.fitting.result import Fit, domain_errors
from lawkit.fitting.sampling import check_draws, with_draws
from lawkit.laws._law import Law, Objective
from lawkit.runs import Runs


def fit(
    runs: Runs,
    *,
    law: str | Law | None = None,
    formula: str | None = None,
    domains: Sequence[str] | None = None,
    holdout: str | float | None = "scale",
    delta: float | None = None,
    min_weight: float = 0.0,
    seed: int = 0,
    starts: int | None = None,
    posterior: str = "none",
    bootstrap: int = 0,
    noise: Noise = "constant",
    pool: bool = False,
    progress: bool = False,
) -> Fit:
    """Fits a law to runs, and once more without the runs that are held out.

    Parameters
    ----------
    runs
        The runs table.
    law
        Name of a law or a `Law`; 'auto' fits all that the columns allow and takes the one with the least error
        expected beyond the runs, see `lawkit.fitting.selection`; None chooses `transfer-average` for two or more
        sources, else `chinchilla` or one of its cuts, by the columns that vary.
    formula
        A law of your own instead, see `lawkit.laws.formula`.
    domains
        Evaluation domains to fit; all by default.
    holdout
        'scale', a fraction, or 'none'; see `lawkit.fitting.holdout.split`.
    delta
        Fit by Huber loss on log residuals with this threshold instead of the law's own objective.
    min_weight
        Leaves out cells whose own source has less than this weight (for laws that are singular there).
    seed
        Of the starting points and a random hold-out.
    starts
        How many starting points; the law's own number by default.
    posterior
        'laplace' or 'nuts' for draws of the posterior, see `lawkit.bayes.posterior`.
    bootstrap
        How many refits to resampled runs to draw instead, see `lawkit.fitting.bootstrap`.
    noise
        What the noise of the posterior depends on beside the domain: 'constant' for nothing, 'size' for 1/n_params,
        'mixture' for the weights.
    pool
        Let the domains of a posterior share a prior for what their parameters have in common; its simulated coverage
        is in `Fit.draws.diagnostics`. See `lawkit.bayes.pooling`.
    progress
        Show sampling at work, on a terminal.

    Returns
    -------
    Fit

    Raises
    ------
    FitError, LawError
        If the table and the law do not go together, nothing can be fitted, or the draws asked for cannot be had.

    Examples
    --------
    >>> import numpy as np
    >>> n, d = (g.ravel() for g in np.meshgrid([1e8, 3e8, 1e9], [2e9, 6e9, 2e10]))
    >>> runs = Runs(sources=(), domains=("web",), n_params=n, n_tokens=d, weights=np.zeros((9, 0)),
    ...     losses=(1.8 + 480 / n**.35 + 2000 / d**.37)[:, None])
    >>> fitted = fit(runs, law="chinchilla")
    >>> round(fitted.parameters["web"]["alpha"], 4)
    0.35
    """
    if domains is not None:
        runs = runs.with_domains(list(domains))
    check_values(runs)
    if delta is not None and not 0 < delta < np.inf:
        raise FitError(f"delta must be a positive number, got {delta!r}")
    if not 0 <= min_weight < 1:
        raise FitError(f"min_weight must lie between 0 and 1, got {min_weight!r}")
    if starts is not None and starts < 1:
        raise FitError(f"starts must be at least 1, got {starts!r}")
    check_draws(posterior, bootstrap, noise, pool)
    scores: list[dict[str, Any]] | None = None
    if law == "auto" and formula is None:
        from lawkit.fitting.selection import select_law

        law, found = select_law(runs, seed=seed, delta=delta, min_weight=min_weight)
        scores = [score.to_dict() for score in found]
    chosen = _resolve(runs, law, formula)
    objective = chosen.objective if delta is None else replace(chosen.objective, kind="huber", delta=delta)
    full, ready = estimate(runs, chosen, objective, min_weight, seed, starts)
    count = chosen.starts if starts is None else starts
    diagnostics, more = diagnose(runs, full, ready, count)
    if scores is not None:
        diagnostics["selection"] = scores
    result = Fit(
        runs=runs,
        estimate=full,
        train={},
        domain_train={},
        diagnostics=diagnostics,
        warnings=(*runs.warnings, *_of_the_table(runs), *ready.warnings, *more),
    )
    cells = np.where(fitted_cells(runs, full.own, min_weight), result.observed, np.nan)
    x = full.inputs(runs.weights, runs.n_params, runs.n_tokens, runs.unique)
    predicted = hold(result, x, full.losses(x))  # as `predict` does, and the errors of the hold-out
    result = replace(
        result,
        train=errors(predicted, cells),
        domain_train=domain_errors(predicted, cells, full.domains),
    )
    result = _with_holdout(result, holdout, objective, min_weight, seed, starts)
    if posterior != "none" or bootstrap:
        result = with_draws(result, ready, posterior, bootstrap, noise, pool, seed, progress)
    if result.holdout is None:
        return result
    rolling = result.rolling  # made here, where the time is expected, and saved with the fit
    if rolling is not None and rolling.bends_away:
        note = (
            f"bands made of earlier forecasts were too narrow at each of {rolling.judged} cuts, and always to the same "
            "side: these runs bend away from the law as they grow; see whether another law holds (`lawkit compare`)"
        )
        result = replace(result, warnings=(*result.warnings, note))
        result.__dict__["rolling"] = rolling
    return result


def _of_the_table(runs: Runs) -> list[str]:
    """What the table says and the fit does not heed."""
    warnings = []
    if runs.is_final is not None and (passing := ~runs.is_final).any():
        warnings.append(
            f"{int(passing.sum())} of {len(runs)} rows are intermediate checkpoints (is_final false), "
            "fitted as if finished"
        )
    given = [] if runs.losses_se is None else (~np.isnan(runs.losses_se)).T
    if any(column.any() for column in given):
        names = [f"loss_{d}_se" for d, column in zip(runs.domains, given, strict=True) if column.any()]
        more = f" and {len(names) - 3} more" if names[3:] else ""
        warnings.append(
            f"{', '.join(names[:3])}{more} {'are' if names[1:] else 'is'} not used yet: all losses count alike"
        )
    return warnings


def default_law(runs: Runs) -> str:
    """Name of the law that is fitted when none is asked for."""
    if len(runs.sources) >= 2:
        return "transfer-average"
    vary = [c for c in ("n_params", "n_tokens") if (v := getattr(runs, c)) is not None and distinct(v) > 1]
    if not vary:
        raise FitError(
            "neither n_params nor n_tokens varies and there are no two sources: no law can be fitted to that"
        )
    return (
        {"n_params": "chinchilla-model", "n_tokens": "chinchilla-data"}[vary[0]]
        if len(vary) == 1
        else "chinchilla"
    )


def _resolve(runs: Runs, law: str | Law | None, formula: str | None) -> Law:
    if formula is not None:
        if law is not None:
            raise FitError("give a law or a formula, not both")
        from lawkit.laws.formula import FormulaLaw

        return FormulaLaw(formula, runs.sources)
    if isinstance(law, Law):
        return law
    return laws.get(default_law(runs) if law is None else law)


def _with_holdout(
    result: Fit,
    holdout: str | float | None,
    objective: Objective,
    min_weight: float,
    seed: int,
    starts: int | None,
) -> Fit:
    runs = result.runs
    cut = split(runs, holdout, seed)
    if cut is None:
        if holdout is None or holdout == "none":
            return result
        note = f"nothing was held out (asked: {holdout}): the table is too small to fit one part and judge by the other"
        return replace(result, warnings=(*result.warnings, note))
    held, what = cut
    kept, test = runs.select(~held), runs.select(held)
    try:
        part, _ = estimate(kept, result.law, objective, min_weight, seed, starts)
    except FitError as error:
        return replace(result, warnings=(*result.warnings, f"nothing could be held out ({what}): {error}"))
    partial = replace(result, runs=kept, estimate=part)
    prediction = partial.predict(test.n_params, test.n_tokens, test.weights, test.unique, interval=0.9)
    observed = test.losses[:, [runs.domains.index(d) for d in part.domains]]
    observed = np.where(fitted_cells(test, part.own, min_weight), observed, np.nan)
    seen = ~np.isnan(observed)
    assert prediction.lower is not None
    assert prediction.upper is not None
    inside = (observed >= prediction.lower) & (observed <= prediction.upper)
    x = part.inputs(test.weights, test.n_params, test.n_tokens, test.unique)
    with np.errstate(all="ignore"):
        plainly = np.abs(np.log(observed / prediction.mean)) <= plain_half_width(
            partial, x, part.losses(x), 0.9
        )
    return replace(
        result,
        holdout={
            **errors(prediction.mean, observed),
            "what": what,
            "n_runs": int(held.sum()),
            # Of the bands as `predict` gives them of a fit without draws, and of the posterior predictive before
            # any widening.
            "coverage_90": float(inside[seen].mean()) if seen.any() else None,
            "coverage_90_plain": float(plainly[seen].mean()) if seen.any() else None,
        },
        domain_holdout=domain_errors(prediction.mean, observed, part.domains),
    )
