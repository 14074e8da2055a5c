"""The additive and the joint law: the mixture shapes Chinchilla's asymptote, or all of its terms."""

from __future__ import annotations

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

E, A, B, alpha, beta = scalars("E A B alpha beta")
gamma_model, gamma_data = scalars("gamma_A gamma_B", real=True)
C, gamma, C_A, C_B = vectors("C gamma C_A C_B")

_EXPONENT_START = (0.1, 0.8)
_ASYMPTOTE = (
    Parameter(name="E", unit="nats/token"),
    Parameter(name="C", unit="tokens/nat", per_source=True, start=(0.2, 2.0)),
    # The paper bounds it by nothing; up to 1 the sum is concave in the weights and the loss convex.
    Parameter(name="gamma", support="unit", per_source=True, start=(0.2, 0.8)),
)
_asymptote = E + 1 / over_sources(C[j] * h[j] ** gamma[j])


class Additive(Law):
    """E + 1 / sum_j C_j h_j^gamma_j + A/N^alpha + B/D^beta; 2K + 5 parameters a domain.

    The best mixture does not depend on the scale. Convex in the weights as 0 < gamma_j < 1 here, which the
    paper leaves open.

    References
    ----------
    Shukor et al. 2025, arXiv:2507.09404, the additive law.
    """

    name = "additive"
    title = "Additive"
    citation = "Shukor et al. 2025, arXiv:2507.09404"
    parameters = (
        *_ASYMPTOTE,
        Parameter(name="A", unit="nats/token x params^alpha"),
        Parameter(name="alpha", start=_EXPONENT_START),
        Parameter(name="B", unit="nats/token x tokens^beta"),
        Parameter(name="beta", start=_EXPONENT_START),
    )
    loss = _asymptote + A / N**alpha + B / D**beta
    convex_in_weights = True
    objective = Objective(kind="relative")


class Joint(Law):
    """E + 1 / sum_j C_j h_j^gamma_j + A(h)/N^alpha + B(h)/D^beta; 4K + 5 parameters a domain.

    A(h) = (sum_j C_A_j h_j)^gamma_A and B(h) likewise, with gamma_A and gamma_B of any sign, so the best
    mixture moves with the scale; not convex in the weights in general. N and D are divided by their geometric
    means over the runs fitted, which makes A(h) and B(h) nats per token there.

    References
    ----------
    Shukor et al. 2025, arXiv:2507.09404, the joint law.
    """

    name = "joint"
    title = "Joint"
    citation = "Shukor et al. 2025, arXiv:2507.09404"
    parameters = (
        *_ASYMPTOTE,
        Parameter(name="C_A", per_source=True, start=(0.2, 2.0)),
        Parameter(name="gamma_A", support="real", start=(-1.0, 1.0)),
        Parameter(name="alpha", start=_EXPONENT_START),
        Parameter(name="C_B", per_source=True, start=(0.2, 2.0)),
        Parameter(name="gamma_B", support="real", start=(-1.0, 1.0)),
        Parameter(name="beta", start=_EXPONENT_START),
    )
    loss = (
        _asymptote
        + over_sources(C_A[j] * h[j]) ** gamma_model * (N / N_ref) ** -alpha
        + over_sources(C_B[j] * h[j]) ** gamma_data * (D / D_ref) ** -beta
    )
    objective = Objective(kind="relative")


additive = Additive()
joint = Joint()
