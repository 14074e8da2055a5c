"""What the study's own runs say: how well the small sizes predict the large one, and what to train next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import lawkit
from lawkit.runs import Runs

HERE = Path(__file__).resolve().parent
#: A scale that nobody trained here: seven times the largest model, ten times its tokens.
TARGET: dict[str, Any] = {"n_params": 3e6, "n_tokens": 20e6}
#: Sizes and tokens of the runs that may be proposed, so that one takes a minute or two on two cores.
SIZES, TOKENS = ("27k", "83k"), (500_000, 1_000_000)
#: Mixtures of the candidates.
CANDIDATES = 64
LEVEL = 0.9
#: Kinds of text for which alone a mixture is sought too, and what each counts.
FEW = {"docs": 0.5, "prose": 0.5}
#: What decision.csv compares, in its order; `train` writes it so.
DECISION = ("optimum", f"optimum for {' and '.join(FEW)}", "uniform", "natural")


def recorded() -> Runs:
    """The runs of `study.toml`."""
    return lawkit.read_runs(HERE / "runs.csv")


def provenance() -> dict[str, Any]:
    """What the runs were made from and with."""
    return json.loads((HERE / "runs.json").read_text(encoding="utf-8"))


def given(column: np.ndarray | None) -> np.ndarray:
    """A column that this study's tables have."""
    assert column is not None
    return column


def holdout(runs: Runs) -> tuple[dict[str, Any], lawkit.Fit]:
    """Fit the two smaller sizes and predict the runs of the largest.

    Returns
    -------
    facts
        What `lawkit.fitting.scoring.score` says, and what was fitted and predicted.
    fit
        Of the smaller sizes.
    """
    from lawkit.fitting.scoring import predict_runs, score

    sizes = given(runs.n_params)
    held = sizes == sizes.max()
    fit, truth = lawkit.fit(runs.select(~held)), runs.select(held)
    said, warnings = predict_runs(fit, truth, LEVEL)
    return {
        "law": fit.law.name,
        "fitted_sizes": np.unique(sizes[~held]).tolist(),
        "n_fitted": int((~held).sum()),
        "size": float(sizes.max()),
        "n_runs": len(truth),
        "level": LEVEL,
        "half_width": float(np.sqrt(np.mean(given(said.upper) / given(said.lower))) - 1),
        **(score(fit, truth, said) or {}),
        "warnings": [*fit.warnings, *warnings],
    }, fit


def seed_noise(runs: Runs) -> dict[str, float]:
    """Standard deviation of log loss between seeds of the same size, tokens and mixture, by domain."""
    keys = np.column_stack([given(runs.n_params), given(runs.n_tokens), runs.weights])
    _, group, count = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    logs = np.log(runs.losses)
    repeated = count[group] > 1
    means = np.stack([logs[group == g].mean(0) for g in range(len(count))])
    left = (logs - means[group])[repeated]
    freedom = repeated.sum() - (count > 1).sum()
    return dict(zip(runs.domains, np.sqrt((left**2).sum(0) / freedom).tolist(), strict=True))


def decision() -> dict[str, Any]:
    """What came of the mixtures that the smaller sizes said are best for the largest, when they were trained.

    Returns
    -------
    dict
        `mixtures`: of each of `DECISION` the weights, how often it was trained, and the mean over seeds with its
        standard error of the mean loss over all kinds of text and over those of `FEW`.
    """
    runs = lawkit.read_runs(HERE / "decision.csv")
    _, first, group = np.unique(runs.weights.round(6), axis=0, return_index=True, return_inverse=True)
    few = np.array([FEW.get(d, 0.0) for d in runs.domains])
    values = {"all kinds": runs.losses.mean(1), " and ".join(FEW): runs.losses @ few}
    found = []
    for g in np.argsort(first):
        of = {name: value[group == g] for name, value in values.items()}
        found.append(
            {
                "weights": dict(zip(runs.sources, runs.weights[first[g]].tolist(), strict=True)),
                "n_runs": int((group == g).sum()),
                "loss": {name: float(v.mean()) for name, v in of.items()},
                "se": {name: float(v.std(ddof=1) / len(v) ** 0.5) for name, v in of.items()},
            }
        )
    return {
        "n_params": float(given(runs.n_params)[0]),
        "n_tokens": float(given(runs.n_tokens)[0]),
        "mixtures": dict(zip(DECISION, found, strict=True)),
    }


def decide(fit: lawkit.Fit, seed: int = 0) -> dict[str, Any]:
    """The best mixture at the target, and the runs to train next."""
    best = lawkit.optimize_mixture(fit, **TARGET, seed=seed)
    candidates = trainable(fit, seed)
    budget = 3 * float(np.max(given(candidates.flops)))
    proposal = lawkit.propose_runs(fit, **TARGET, candidates=candidates, budget=budget, n=3, seed=seed)
    return {"optimum": best.to_dict(), "proposal": proposal.to_dict()}


def trainable(fit: lawkit.Fit, seed: int) -> Runs:
    """The candidates: every small size and budget with mixtures spread over all there are, at their exact flops."""
    from lawkit.backends.torchtitan import find_size, recipe_for
    from lawkit.design.candidates import space_filling
    from lawkit.mixture.problem import MixtureProblem

    vocabulary, unique = provenance()["vocab_size"], given(fit.runs.unique)
    mixtures = space_filling(MixtureProblem.build(fit.sources, fit.domains), CANDIDATES, seed)
    scales = [(find_size(name), tokens) for name in SIZES for tokens in TOKENS]
    n = len(scales) * len(mixtures)

    def flops(size: Any, tokens: int) -> float:
        return size.flops_per_token(recipe_for(size).seq_len, vocabulary) * float(tokens)

    return Runs(
        sources=fit.sources,
        domains=(),
        n_params=np.repeat([float(size.n_params) for size, _ in scales], len(mixtures)),
        n_tokens=np.repeat([float(tokens) for _, tokens in scales], len(mixtures)),
        weights=np.tile(mixtures, (len(scales), 1)),
        losses=np.empty((n, 0)),
        unique=np.tile(unique[0], (n, 1)),
        flops=np.repeat([flops(size, tokens) for size, tokens in scales], len(mixtures)),
    )
