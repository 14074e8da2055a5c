"""Candidates of a ladder: every mixture at every rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lawkit.design.candidates import SAME
from lawkit.runs import Runs
from lawkit.study.bench import Scale


def rounded(mixtures: np.ndarray) -> np.ndarray:
    """Mixtures (m, K) with four digits, which still sum to 1: what that takes or adds goes to the largest weight."""
    found = np.clip(mixtures, 0, 1).round(4)
    found[range(len(found)), found.argmax(1)] += 1 - found.sum(1)
    return found.round(4)


def generated(
    scales: Sequence[Scale],
    mixtures: np.ndarray,
    sources: tuple[str, ...],
    taken: Sequence[Mapping[str, Any]],
    unique: np.ndarray | None,
) -> Runs:
    """Every mixture at every rung, twice, so that one may be repeated with another seed; but for those `taken`.

    Parameters
    ----------
    scales
        The rungs.
    mixtures
        (m, K).
    taken
        Specs of runs that failed; their mixtures are left out at their sizes, whatever the tokens.
    unique
        (K,) tokens that exist of each source, where that is known.
    """
    h = np.unique(rounded(mixtures), axis=0)
    size = np.array([[s.n_params, s.n_tokens, s.flops] for s in scales])
    rows = np.repeat(size, 2 * len(h), axis=0)
    weights = np.tile(np.repeat(h, 2, axis=0), (len(scales), 1))
    keep = np.ones(len(rows), bool)
    for spec in taken:
        w = np.array([spec["weights"].get(name, 0.0) for name in sources])
        keep &= (np.abs(weights - w) > SAME).any(1) | (np.abs(rows[:, 0] / _params(spec) - 1) > SAME)
    rows, weights = rows[keep], weights[keep]
    return Runs(
        sources=sources,
        domains=(),
        n_params=rows[:, 0],
        n_tokens=rows[:, 1],
        weights=weights,
        losses=np.empty((len(rows), 0)),
        flops=rows[:, 2],
        unique=None if unique is None else np.tile(unique, (len(rows), 1)),
    )


def _params(spec: Mapping[str, Any]) -> float:
    if "n_params" in spec:
        return spec["n_params"]
    from lawkit.backends.torchtitan.ladder import size_from

    return size_from(spec["size"]).n_params
