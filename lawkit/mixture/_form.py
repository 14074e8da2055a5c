"""What the convex forms share: the scale, the feasible mixtures, and parameters as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lawkit.mixture._cones import Affine, ConeProgram
from lawkit.mixture.problem import MixtureProblem


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The run to plan: its size, and the sizes that the law measures it by.

    Attributes
    ----------
    n_params, n_tokens
        Of the run; 1 where the fit has no such column.
    n_ref, d_ref
        The fit's reference sizes.
    """

    n_params: float = 1.0
    n_tokens: float = 1.0
    n_ref: float = 1.0
    d_ref: float = 1.0

    @property
    def n(self) -> float:
        """n_params in units of its reference."""
        return self.n_params / self.n_ref

    @property
    def d(self) -> float:
        """n_tokens in units of its reference."""
        return self.n_tokens / self.d_ref


def feasible_mixture(program: ConeProgram, problem: MixtureProblem) -> Affine:
    """A mixture variable (K,) held to the problem's limits."""
    h = program.variable(len(problem.sources))
    program.nonnegative(h - problem.lower)
    if (problem.upper < 1).any():
        program.nonnegative(problem.upper - h)
    program.equal_zero(h.sum() - 1.0)
    return h


def scalars(parameters: Sequence[Mapping[str, Any]], name: str, default: float | None = None) -> np.ndarray:
    """One number a domain (E,)."""
    if default is not None and name not in parameters[0]:
        return np.full(len(parameters), default)
    return np.array([float(p[name]) for p in parameters])


def vectors(parameters: Sequence[Mapping[str, Any]], name: str, n_sources: int) -> np.ndarray:
    """One number a domain and source (E, K); a scalar parameter counts for every source."""
    return np.array([np.broadcast_to(np.asarray(p[name], float), (n_sources,)) for p in parameters])
