"""Exponential laws: the loss falls exponentially in the mixture weights."""

from __future__ import annotations

import sympy as sp

from lawkit.laws._law import (
    D,
    D_ref,
    Law,
    N,
    N_ref,
    Objective,
    Parameter,
    h,
    j,
    over_sources,
    scalars,
    vectors,
)

c, k = scalars("c k")
(t,) = vectors("t", real=True)
E, A, B, alpha, beta = scalars("E A B alpha beta")
tilt_e, tilt_a, tilt_b = vectors("t_E t_A t_B", real=True)

_VECTOR_START = (-1.0, 1.0)


class Exponential(Law):
    """c + k exp(sum_j t_j h_j) for runs that share one scale; K + 2 parameters a domain.

    As the weights add up to 1, a number added to every t_j is the same as a factor on k: only their product
    is determined by data, and the fit settles on one of the equals.

    References
    ----------
    Ye et al. 2024, arXiv:2403.16952, the law for several domains. It says nothing of n_params and n_tokens; the
    paper reaches larger runs by first fitting power laws to each mixture's own training curve and model sizes,
    which is a procedure, not a formula: see `ExponentialScale` for one.
    """

    name = "exponential"
    title = "Exponential (data mixing law)"
    citation = "Ye et al. 2024, arXiv:2403.16952"
    parameters = (
        Parameter(name="c", unit="nats/token"),
        Parameter(name="k", unit="nats/token"),
        Parameter(name="t", support="real", per_source=True, start=_VECTOR_START),
    )
    loss = c + k * sp.exp(over_sources(t[j] * h[j]))
    convex_in_weights = True
    objective = Objective(kind="relative")
    starts = 4


class ExponentialScale(Law):
    """E exp(t_E.h) + A/N^alpha exp(t_A.h) + B/D^beta exp(t_B.h); 3K + 5 parameters a domain.

    Chinchilla's three terms, each scaled by an exponential of the mixture. At one scale it is a sum of three
    exponentials; it has no constant, as the asymptote depends on the mixture too.

    References
    ----------
    lawkit's way to give the exponential law of Ye et al. 2024 (arXiv:2403.16952) a scale; not in that paper.
    """

    name = "exponential-scale"
    title = "Exponential with scale"
    citation = "lawkit, after Ye et al. 2024, arXiv:2403.16952, and Hoffmann et al. 2022, arXiv:2203.15556"
    parameters = (
        Parameter(name="E", unit="nats/token"),
        Parameter(name="A", unit="nats/token x params^alpha", reference=N_ref**alpha),
        Parameter(name="B", unit="nats/token x tokens^beta", reference=D_ref**beta),
        Parameter(name="alpha", start=(0.1, 0.8)),
        Parameter(name="beta", start=(0.1, 0.8)),
        Parameter(name="t_E", support="real", per_source=True, start=_VECTOR_START),
        Parameter(name="t_A", support="real", per_source=True, start=_VECTOR_START),
        Parameter(name="t_B", support="real", per_source=True, start=_VECTOR_START),
    )
    loss = (
        E * sp.exp(over_sources(tilt_e[j] * h[j]))
        + A / N**alpha * sp.exp(over_sources(tilt_a[j] * h[j]))
        + B / D**beta * sp.exp(over_sources(tilt_b[j] * h[j]))
    )
    convex_in_weights = True
    objective = Objective(kind="relative")
    starts = 4


exponential = Exponential()
exponential_scale = ExponentialScale()
