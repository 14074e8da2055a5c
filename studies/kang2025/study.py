"""What the study computes, through lawkit's public functions; see `run`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import lawkit
from lawkit.fitting.scoring import spearman
from lawkit.runs import Runs
from lawkit.studies.kang2025 import curves
from lawkit.studies.kang2025.curves import BILLION, DOMAIN, SOURCES

#: The largest budget the paper extrapolates table 4 to, and the largest model it extrapolates table 5 to.
FAR_TOKENS = 8e12
FAR_PARAMS = 200 * BILLION
BASELINE = "CC"
#: What the paper's grid search over ratios found best, to compare with; section 5.1.
PUBLISHED_BEST_RATIO = {"HQ": "about 30%", "QA": "50% falling to 30%", "TXBK": "under 5%, rising with scale"}
#: Relative errors the paper reports on its own held-out runs; appendices D.1 and D.2.
PUBLISHED_HOLDOUT = {"data": 0.0041, "model": 0.0030}
#: Compute of the runs to be proposed: about three models of table 4 at 50B tokens.
PROPOSAL_BUDGET = 1e21


@dataclass(frozen=True)
class FittedCurve:
    """One mixture's law, fitted by lawkit to that mixture's points alone."""

    curve: curves.Curve
    fit: lawkit.Fit
    varies: str

    def loss(self, x: float) -> float:
        """Loss in nats per token at `x` tokens or parameters."""
        weights = np.array([self.curve.weights])
        at: dict[str, Any] = {"n_params": None, "n_tokens": None, self.varies: np.array([x])}
        return float(self.fit.losses(**at, weights=weights)[0, 0])

    @property
    def coefficients(self) -> dict[str, float]:
        """Fitted coefficients in the paper's units: tokens and parameters in billions."""
        values = self.fit.parameters[DOMAIN]
        scale, exponent = ("B", "beta") if self.varies == "n_tokens" else ("A", "alpha")
        per_billion = values[scale] * BILLION ** -values[exponent]
        return {scale: float(per_billion), exponent: float(values[exponent]), "E": float(values["E"])}

    def where(self, loss: float) -> float | None:
        """Tokens or parameters at which the curve reaches `loss`; None if it never does."""
        return _root(lambda x: self.loss(x) - loss, 1e3, 1e30)

    def speedup(self, baseline: FittedCurve, x: float) -> float | None:
        """How many times fewer tokens than `x` reach what the baseline reaches at `x`; None for never."""
        needed = self.where(baseline.loss(x))
        return None if needed is None else x / needed


def run() -> dict[str, Any]:
    """Do the whole study.

    Returns
    -------
    dict
        'published' says what is not computed here; 'data_scaling', 'model_scaling' and 'mixture_law' hold the
        results, in nats per token and plain counts (not billions) of tokens and parameters.
    """
    data, data_fits = scaling("n_tokens")
    model, _ = scaling("n_params")
    model["tables_apart"] = tables_apart()
    return {
        "citation": curves.CITATION,
        "published": "coefficients of tables 4 and 5, and every value whose key begins with published",
        "computed": "everything else, from points that lie exactly on the published curves",
        "data_scaling": data,
        "model_scaling": model,
        "mixture_law": mixture_law(data_fits),
    }


# ---- one mixture at a time ----------------------------------------------------------------------------


def fit_curves(varies: str) -> dict[str, FittedCurve]:
    """Fit each mixture's law to its points up to 100B tokens, or up to 2B parameters."""
    by_tokens = varies == "n_tokens"
    runs = curves.data_runs() if by_tokens else curves.model_runs()
    law = "chinchilla-data" if by_tokens else "chinchilla-model"
    published = curves.data_curves() if by_tokens else curves.model_curves()
    return {
        c.mixture: FittedCurve(
            c, lawkit.fit(curves.of_mixture(runs, c.mixture), law=law, holdout="none"), varies
        )
        for c in published
    }


def scaling(varies: str) -> tuple[dict[str, Any], dict[str, FittedCurve]]:
    """Fit, hold out, extrapolate and rank along tokens (table 4) or parameters (table 5)."""
    by_tokens = varies == "n_tokens"
    fits = fit_curves(varies)
    held = curves.HELD_OUT_TOKENS if by_tokens else curves.HELD_OUT_PARAMS
    held_names = curves.HELD_OUT_MIXTURES if by_tokens else tuple(fits)
    far = FAR_TOKENS if by_tokens else FAR_PARAMS
    misses = [abs(fits[m].loss(held) / fits[m].curve.loss(held) - 1) for m in held_names]
    coefficients = {
        m: {
            "published": dict(zip(f.coefficients, _published(f.curve), strict=True)),
            "fitted": f.coefficients,
        }
        for m, f in fits.items()
    }
    out: dict[str, Any] = {
        "law": next(iter(fits.values())).fit.law.name,
        "fitted_at": list(curves.TOKENS if by_tokens else curves.PARAMS),
        "n_runs": sum(len(f.fit.runs) for f in fits.values()),
        "train_mre": max(f.fit.train["mre"] or 0.0 for f in fits.values()),
        "coefficients": coefficients,
        "coefficients_off_by": max(
            abs(c["fitted"][k] / c["published"][k] - 1) for c in coefficients.values() for k in c["published"]
        ),
        "holdout": {varies: held, "mixtures": list(held_names), "mre": float(np.mean(misses))},
        "published_holdout_mre": PUBLISHED_HOLDOUT["data" if by_tokens else "model"],
        "ranking": _ranking(fits, far, varies),
    }
    if by_tokens:
        out["crossing"] = {
            "mixtures": ["33% TXBK + 67% CC", BASELINE],
            "n_tokens": crossing(fits["33% TXBK + 67% CC"], fits[BASELINE]),
        }
    return out, fits


def crossing(one: FittedCurve, other: FittedCurve, low: float = BILLION, high: float = 8e12) -> float | None:
    """Tokens between `low` and `high` at which two curves cross; None if they do not change sides."""
    return _root(lambda x: one.loss(x) - other.loss(x), low, high)


def tables_apart() -> float:
    """Mean relative difference of the two tables at 1B parameters and 50B tokens, which they share.

    Both describe the same runs there, so this is what the published curves are off by, at least.
    """
    pairs = [
        (a.loss(curves.TABLE5_TOKENS), b.loss(curves.TABLE4_PARAMS))
        for a, b in zip(curves.data_curves(), curves.model_curves(), strict=True)
    ]
    return float(np.mean([abs(a / b - 1) for a, b in pairs]))


def _root(f: Callable[[float], float], low: float, high: float) -> float | None:
    """Find where f is zero between two positive ends, on a logarithmic scale; None if it keeps its sign."""
    from scipy.optimize import brentq

    if f(low) * f(high) > 0:
        return None
    found: Any = brentq(lambda t: f(math.exp(t)), math.log(low), math.log(high), xtol=1e-12)
    return math.exp(found)


def _published(curve: curves.Curve) -> tuple[float, float, float]:
    return curve.scale, curve.exponent, curve.floor


def _ranking(fits: Mapping[str, FittedCurve], far: float, varies: str) -> dict[str, Any]:
    rows = []
    for name, fitted in sorted(fits.items(), key=lambda item: item[1].loss(far)):
        row: dict[str, Any] = {"mixture": name, "loss": fitted.loss(far)}
        if varies == "n_tokens":
            row["speedup"] = {f"{d:g}": fitted.speedup(fits[BASELINE], d) for d in (100e9, 200e9)}
        rows.append(row)
    return {varies: far, "rows": rows}


# ---- across mixtures ----------------------------------------------------------------------------------


def mixture_runs(drop_ratio: float | None = None) -> Runs:
    """Return all points of table 4, without the mixtures of one synthetic ratio if asked."""
    runs = curves.data_runs()
    held = curves.data_runs([curves.HELD_OUT_TOKENS], curves.HELD_OUT_MIXTURES)
    both = _joined(runs, held)
    if drop_ratio is None:
        return both
    return both.select(np.abs(1 - both.weights[:, 0] - drop_ratio) > 0.01)


def mixture_law(fits: Mapping[str, FittedCurve]) -> dict[str, Any]:
    """Fit one law over all mixtures, find the best mixture at 1B parameters and 8T tokens, propose runs.

    Parameters
    ----------
    fits
        Of the single mixtures, to compare with.
    """
    runs = mixture_runs()
    fit = lawkit.fit(runs, law="transfer", holdout="scale")
    at: dict[str, Any] = {"n_params": curves.TABLE4_PARAMS, "n_tokens": FAR_TOKENS}
    weights = np.array([f.curve.weights for f in fits.values()])
    by_law = fit.losses(**at, weights=weights)[:, 0]
    by_curve = np.array([f.loss(FAR_TOKENS) for f in fits.values()])
    best = lawkit.optimize_mixture(fit, **at)
    proposal = lawkit.propose_runs(fit, **at, budget=PROPOSAL_BUDGET, n=3, seed=0)
    return {
        "law": fit.law.name,
        "n_runs": len(runs),
        "ratios": [0.0, 1 / 3, 2 / 3, 1.0],
        "train_mre": fit.train["mre"],
        "holdout": fit.holdout,
        "unseen_ratio_mre": _unseen_ratio(1 / 3),
        "spearman_with_curves": spearman(by_law, by_curve),
        "target": at,
        "best_of_ten": {
            "mixture": list(fits)[int(by_law.argmin())],
            "loss": float(by_law.min()),
        },
        "optimum": best.to_dict(),
        "best_ratio": {source: _best_ratio(fit, source, at) for source in SOURCES[1:]},
        "published_best_ratio": PUBLISHED_BEST_RATIO,
        "proposal": proposal.to_dict(),
        "warnings": list(fit.warnings),
    }


def _best_ratio(fit: lawkit.Fit, source: str, at: Mapping[str, Any]) -> dict[str, float]:
    """Find the best share of one synthetic source beside natural text, and what 30% costs instead."""
    others: dict[str, tuple[float | None, float | None]] = {s: (0.0, 0.0) for s in SOURCES[1:] if s != source}
    found = lawkit.optimize_mixture(fit, **at, bounds=others).to_dict()
    thirty = np.array([[0.7 if s == BASELINE else 0.3 if s == source else 0.0 for s in SOURCES]])
    return {
        "weight": found["weights"][source],
        "loss": found["objective"],
        "loss_at_30_percent": float(fit.losses(**at, weights=thirty)[0, 0]),
    }


def _unseen_ratio(ratio: float) -> float:
    """Predict the mixtures of one ratio from all others: how well the law interpolates between ratios."""
    runs = mixture_runs()
    fit = lawkit.fit(mixture_runs(drop_ratio=ratio), law="transfer", holdout="none")
    held = runs.select(np.abs(1 - runs.weights[:, 0] - ratio) < 0.01)
    predicted = fit.losses(held.n_params, held.n_tokens, held.weights)
    return float(np.mean(np.abs(predicted / held.losses - 1)))


def _joined(one: Runs, other: Runs) -> Runs:
    fields: Sequence[str] = ("n_params", "n_tokens", "weights", "losses", "run_id")
    stacked: dict[str, Any] = {f: np.concatenate([getattr(one, f), getattr(other, f)]) for f in fields}
    return Runs(sources=one.sources, domains=one.domains, **stacked)
