"""The words a law is written in: symbols, sums over sources, and what is declared of each parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import sympy as sp
from sympy.tensor.indexed import Idx, IndexedBase

#: n_params (non-embedding), n_tokens, and total unique tokens of the sources in use.
N = sp.Symbol("N", positive=True)
D = sp.Symbol("D", positive=True)
U = sp.Symbol("U", positive=True)
#: Geometric means of n_params and n_tokens over the runs fitted; 1 where a table has no such column.
N_ref = sp.Symbol("N_ref", positive=True)
D_ref = sp.Symbol("D_ref", positive=True)
#: Mixture weights: h[j] under a sum over sources, h[own] for the source that is the domain's own.
h = IndexedBase("h", positive=True)
j = Idx("j")
own = Idx("i")
K = sp.Symbol("K", integer=True, positive=True)

Support = Literal["positive", "real", "unit"]


def scalars(names: str, real: bool = False) -> tuple[sp.Symbol, ...]:
    """Symbols for scalar parameters, named as in the law's `parameters`."""
    return tuple(sp.Symbol(n, **({"real": True} if real else {"positive": True})) for n in names.split())


def vectors(names: str, real: bool = False) -> tuple[IndexedBase, ...]:
    """Symbols for parameters with one element a source; write `k[j]` under a sum, `k[own]` outside."""
    return tuple(IndexedBase(n, **({"real": True} if real else {"positive": True})) for n in names.split())


def over_sources(summand: Any) -> sp.Expr:
    """The sum of `summand`, an expression in `h[j]` and other elements `[j]`, over the sources.

    It stays a sum, in print and in the generated code: 300 sources cost no more to compile than two.
    """
    return sp.Sum(summand, (j, 1, K))


@dataclass(frozen=True, kw_only=True)
class Prior:
    """A normal prior on the unconstrained scale (log for positive, logit for unit, as is for real).

    Attributes
    ----------
    mean, sd
        Of the normal.
    relative_to_loss
        Adds the log of the domain's lowest observed loss to the mean (for asymptotes).
    own
        Added to the mean of the element that belongs to the domain's own source.
    common_sd
        Standard deviation of an offset shared by all elements of a vector.
    """

    mean: float = 0.0
    sd: float = 1.0
    relative_to_loss: bool = False
    own: float = 0.0
    common_sd: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A named parameter of a law.

    Attributes
    ----------
    name
        As in the expression.
    support
        'positive', 'real' or 'unit' (the open interval 0..1).
    per_source
        One element a source rather than one number.
    unit
        For people.
    start
        Range of starting values on the natural scale; for a positive parameter of reference-point form
        (see `reference`), of its value there. Unused where a parameter enters linearly: its starting
        value is then solved for.
    reference
        For positive parameters, a factor in `N_ref`, `D_ref` and other parameters (`b[j]` if vectors) such that
        natural value = factor x the number fitted. Left None it is derived for parameters that enter linearly, so
        that the number fitted is the term's contribution at the geometric-mean scale.
    prior
        Used by laws that are fitted by maximum a posteriori.
    """

    name: str
    support: Support = "positive"
    per_source: bool = False
    unit: str = ""
    start: tuple[float, float] = (0.1, 1.0)
    reference: sp.Expr | None = None
    prior: Prior | None = None


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """A quantity defined by `equation` = 0, monotone in `symbol` between `lower` and `upper`."""

    symbol: sp.Symbol
    equation: sp.Expr
    lower: sp.Expr | float
    upper: sp.Expr | float


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a law is fitted by.

    kind 'huber': Huber loss, threshold `delta`, on log predicted - log observed loss, no prior.
    kind 'relative': squares of (predicted - observed) / observed; kind 'absolute': of predicted - observed. With
    `sigma` set, divided by it, and the priors are added: a maximum a posteriori fit. `token_power` weights runs by
    n_tokens ** token_power (mean 1).
    """

    kind: Literal["huber", "relative", "absolute"] = "huber"
    delta: float = 1e-3
    sigma: float | None = None
    token_power: float = 0.0


@dataclass(frozen=True)
class PriorContext:
    """What a prior may depend on: per fitted group, its lowest loss and own source; and the table's scales."""

    lowest_loss: np.ndarray  # (B, E)
    own: np.ndarray  # (B, E) source index, -1 for none
    n_sources: int
    n_model_sizes: int
    n_scales: int
