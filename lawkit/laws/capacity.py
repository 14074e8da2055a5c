"""Capacity laws: sources compete for the model's parameters.

The model divides its capacity over the K sources as is best for its training loss,

    x = argmin sum_j h_j c_j x_j^-b_j   subject to   sum_j x_j = N + (K - 1) H,   x_j >= H,

so x_j = max(H, (h_j b_j c_j / lambda)^(1 / (b_j + 1))) with lambda, the worth of one more parameter, set by
the sum. A domain's loss then is L_i = c_i x_i^-b_i + A_i (D h_i)^-a_i + E_i. All domains share one lambda,
hence one fit; every source has to be an evaluation domain.

The unknown solved for is s = log(lambda N): the sum falls in it and is convex on a logarithmic scale,
so Newton's method does not miss. Derivatives are those of the implicit function theorem, exact wherever no
source is just leaving its floor H.
"""

from __future__ import annotations

import sympy as sp

from lawkit.laws._law import (
    D,
    D_ref,
    Implicit,
    K,
    Law,
    N,
    N_ref,
    Objective,
    Parameter,
    h,
    j,
    over_sources,
    own,
    scalars,
    vectors,
)

H = scalars("H")[0]
b, c, A, a, E = vectors("b c A a E")
s = sp.Symbol("s", real=True)


def _log_share(i: sp.Expr) -> sp.Expr:
    """log(x_i / N)."""
    free = (sp.log(h[i]) + sp.log(b[i]) + sp.log(c[i]) - b[i] * sp.log(N) - s) / (b[i] + 1)
    return sp.Max(sp.log(H / N), free)


# The s at which source j alone would have x_j = N.
_worth = sp.log(h[j]) + sp.log(b[j]) + sp.log(c[j]) - b[j] * sp.log(N)
_SHARES = Implicit(
    symbol=s,
    equation=sp.log(over_sources(sp.exp(_log_share(j)))) - sp.log(1 + (K - 1) * H / N),
    # Below the weighted mean of the worths some source alone exceeds N; above the upper bound none has N / K.
    lower=over_sources(h[j] * _worth) / over_sources(h[j]),
    upper=sp.log(over_sources(sp.exp(_worth + (b[j] + 1) * sp.log(K)))),
)
_capacity = c[own] * sp.exp(-b[own] * (_log_share(own) + sp.log(N)))
_PARAMETERS = (
    Parameter(name="b", per_source=True, start=(0.05, 1.5)),
    # Fitted as the term's size at x = N_ref.
    Parameter(
        name="c", unit="nats/token x params^b", per_source=True, start=(0.02, 2.0), reference=N_ref ** b[j]
    ),
)
_ASYMPTOTE = Parameter(name="E", unit="nats/token", per_source=True, start=(0.3, 2.0))
_FLOOR = Parameter(name="H", unit="params", start=(0.02, 0.3), reference=N_ref)


class Capacity(Law):
    """c_i x_i^-b_i + A_i (D h_i)^-a_i + E_i; 5K + 1 parameters for all domains together.

    Not convex in the weights, but the best mixture is a convex program in logarithms (`form`). Weights under
    .0001 are read as .0001, as the second term is infinite at zero.

    References
    ----------
    Dai and Zheng 2026, arXiv:2606.08167: capacity competition with noise reduction.
    """

    name = "capacity"
    title = "Capacity competition"
    citation = "Dai and Zheng 2026, arXiv:2606.08167"
    parameters = (
        *_PARAMETERS,
        # Fitted as the term's size at D_ref and weight 1.
        Parameter(
            name="A", unit="nats/token x tokens^a", per_source=True, start=(0.1, 1.0), reference=D_ref ** a[j]
        ),
        Parameter(name="a", per_source=True, start=(0.05, 0.6)),
        _ASYMPTOTE,
        _FLOOR,
    )
    loss = _capacity + A[own] * (D * h[own]) ** -a[own] + E[own]
    implicit = _SHARES
    coupled = True
    form = "capacity"
    weight_floor = 1e-4
    objective = Objective(kind="absolute")
    starts = 16


class CapacityPlain(Law):
    """c_i x_i^-b_i + E_i, where data does not bind; 3K + 1 parameters for all domains together.

    References
    ----------
    Dai and Zheng 2026, arXiv:2606.08167: capacity competition alone.
    """

    name = "capacity-plain"
    title = "Capacity competition without noise reduction"
    citation = "Dai and Zheng 2026, arXiv:2606.08167"
    parameters = (*_PARAMETERS, _ASYMPTOTE, _FLOOR)
    loss = _capacity + E[own]
    implicit = _SHARES
    coupled = True
    form = "capacity"
    weight_floor = 1e-4
    objective = Objective(kind="absolute")
    starts = 16


capacity = Capacity()
capacity_plain = CapacityPlain()
