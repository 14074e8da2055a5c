"""Rows that do not err independently: checkpoints of one training run, repeats of one setting."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from lawkit.io._repeats import settings
from lawkit.runs import Runs


def training_runs(runs: Runs) -> np.ndarray:
    """(n,) number of the training run that each row belongs to.

    Rows of one run share their run_id. Where the table names no runs, those of one mixture, model size and seed are
    taken for checkpoints of one run if the table has mixtures and most of its rows stand at three or more token
    counts of such a group, or if it says that some rows are not final.
    """
    n = len(runs)
    if runs.run_id is not None and any(runs.run_id):
        return _numbered([name or i for i, name in enumerate(runs.run_id)])
    passing = runs.is_final is not None and not runs.is_final.all()
    if runs.n_tokens is None or not (runs.sources or passing):
        return np.arange(n)
    groups = _numbered(settings(runs, tokens=False, seed=True))
    pairs = np.unique(np.column_stack([groups, np.unique(runs.n_tokens, return_inverse=True)[1]]), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=n)  # of token counts, by group
    return groups if passing or (counts[groups] >= 3).mean() >= 0.5 else np.arange(n)


def trained_settings(runs: Runs) -> np.ndarray:
    """(n,) number of each row's setting: sizes, mixture and unique tokens, whatever the seed."""
    return _numbered(settings(runs, tokens=True, seed=False))


def tied(runs: Runs) -> np.ndarray:
    """(n,) number of each row's group: rows that share a training run or a setting, or are tied by a chain of such."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, labels = len(runs), (training_runs(runs), trained_settings(runs))
    # Rows and labels as the nodes of a graph.
    ends = np.concatenate([n + labels[0], n + labels[0].max() + 1 + labels[1]])
    ties = coo_array((np.ones(2 * n), (np.tile(np.arange(n), 2), ends)), shape=(ends.max() + 1,) * 2)
    return np.unique(connected_components(ties, directed=False)[1][:n], return_inverse=True)[1]


def shared_error(residuals: np.ndarray, labels: np.ndarray) -> float:
    """Share of the residuals' variance that rows of one label have in common (intraclass correlation, 0 to 1).

    Parameters
    ----------
    residuals
        (n,) with NaN where missing.
    labels
        (n,) as `training_runs`.

    Notes
    -----
    The estimator by analysis of variance (Donner 1986, International Statistical Review 54), cut off at 0. It is
    0 where no label has two rows.
    """
    seen = ~np.isnan(residuals)
    r, of = residuals[seen], np.unique(labels[seen], return_inverse=True)[1]
    counts = np.bincount(of)
    n, k = len(r), len(counts)
    if k < 2 or n == k:
        return 0.0
    means = np.bincount(of, r) / counts
    between = (counts * (means - r.mean()) ** 2).sum() / (k - 1)
    within = ((r - means[of]) ** 2).sum() / (n - k)
    typical = (n - (counts**2).sum() / n) / (k - 1)  # rows a label
    total = between + (typical - 1) * within
    return float(np.clip((between - within) / total, 0.0, 1.0)) if total > 0 else 0.0


def independent_share(residuals: np.ndarray, runs: Runs) -> np.ndarray:
    """(n, E) how much each row counts for each loss, 1 for a row whose error is its own.

    m rows that share a part rho of their error say as much as m / (1 + (m - 1) rho) rows that do not (Kish's design
    effect); each then counts 1 / (1 + (m - 1) rho). Rows may share a run or a setting; the smaller count holds.

    Parameters
    ----------
    residuals
        (n, E) log residuals of a fit in units of their noise, NaN where missing.
    """
    out = np.ones(residuals.shape)
    for labels in (training_runs(runs), trained_settings(runs)):
        if len(np.unique(labels)) == len(labels):
            continue
        for e, column in enumerate(residuals.T):
            seen = ~np.isnan(column)
            size = np.bincount(labels[seen], minlength=labels.max() + 1)[labels]
            rho = shared_error(column, labels)
            out[:, e] = np.minimum(out[:, e], 1.0 / (1.0 + np.maximum(size - 1, 0) * rho))
    return out


def _numbered(keys: Sequence[Hashable]) -> np.ndarray:
    """(n,) one number for each different key."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(key, len(known)) for key in keys], int)
