"""A runs table described in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.io._findings import by_key, column
from lawkit.io.checks import scale_correlation

if TYPE_CHECKING:
    from lawkit.runs import Runs

__all__ = ["summarize_runs"]


def summarize_runs(runs: Runs) -> dict[str, Any]:
    """Describe a runs table in numbers: what `lawkit runs check` prints.

    Returns
    -------
    dict
        n_runs, path, sources {name: {min, mean, max, zeros}}, mixtures, domains {name: {observed, missing,
        min, max}}, missing_cells, scales [{n_params, n_tokens, runs}], scale_correlation, columns (the
        optional ones that are there).
    """
    n = len(runs)
    sizes = by_key(zip(column(runs.n_params, n), column(runs.n_tokens, n), strict=True))
    scales = [
        {"n_params": key[0], "n_tokens": key[1], "runs": len(rows)}  # pyright: ignore[reportIndexIssue]
        for key, rows in sizes.items()
    ]
    sources = {
        name: {"min": w.min(), "mean": w.mean(), "max": w.max(), "zeros": int((w == 0).sum())}
        for name, w in zip(runs.sources, runs.weights.T, strict=True)
    }
    domains = {}
    for name, losses in zip(runs.domains, runs.losses.T, strict=True):
        seen = losses[~np.isnan(losses)]
        domains[name] = {
            "observed": len(seen),
            "missing": n - len(seen),
            "min": seen.min() if len(seen) else None,
            "max": seen.max() if len(seen) else None,
        }
    optional = ("run_id", "seed", "flops", "unique", "losses_se", "is_final")
    return {
        "path": runs.path,
        "n_runs": n,
        "sources": sources,
        "mixtures": len(np.unique(runs.weights, axis=0)) if runs.sources else 0,
        "domains": domains,
        "missing_cells": int(np.isnan(runs.losses).sum()),
        "scales": sorted(scales, key=lambda scale: (scale["n_params"] or 0.0, scale["n_tokens"] or 0.0)),
        "scale_correlation": scale_correlation(runs),
        "columns": [name for name in optional if getattr(runs, name) is not None],
    }
