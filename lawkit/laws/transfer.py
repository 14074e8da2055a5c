"""Transfer laws: every source lends each domain effective capacity and effective tokens."""

import numpy as np

from lawkit.laws._law import (
    D, D_ref, Law, N, N_ref, Objective, Parameter, Prior, PriorContext, h, j, over_sources, scalars, vectors,
)  # fmt: skip

E, alpha, beta, gamma, delta, g = scalars("E alpha beta gamma delta g")
q0, k0, r0 = scalars("q0 k0 r0")
q, k, r = vectors("q k r")
C = 0.01


def _lent(w, w0=None):
    """S(h; w): what all sources lend, with diminishing returns in each weight (g < 1)."""
    total = over_sources(w[j] * h[j] ** g)
    return (total if w0 is None else total + w0 * C**g) ** (1 / g)


class Transfer(Law):
    name = "transfer"
    title = "Transfer"
    citation = "lawkit"
    parameters = (
        Parameter(name="E"), Parameter(name="gamma"), Parameter(name="alpha"), Parameter(name="beta"),
        Parameter(name="g", support="unit"),
        Parameter(name="delta"),
        Parameter(name="q0"), Parameter(name="q", per_source=True),
        Parameter(name="k0"), Parameter(name="k", per_source=True),
        Parameter(name="r0"), Parameter(name="r", per_source=True),
    )  # fmt: skip
    loss = (
        E
        + _lent(r, r0) ** -delta
        + ((N / N_ref * _lent(q, q0)) ** -alpha + (D / D_ref * _lent(k, k0)) ** -beta) ** gamma
    )


transfer = Transfer()
