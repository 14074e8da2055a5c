"""Broken power laws: the exponent changes smoothly at a break.

With one break at X, in x = 6 N D, D or N:  L = E + A x^-c0 (1 + (x/X)^(1/f))^(-c1 f). The exponent is c0 below the
break and c0 + c1 beyond it; the smaller f, the sharper the break. c1 may be negative, and a loss then rise again. c0 is
kept positive, where the paper leaves it free: else a break far below the runs lets it run away.
"""

import sympy as sp

from lawkit.laws._law import D, D_ref, Law, N, N_ref, Parameter, scalars

E, A, X, f, c0 = scalars("E A X f c0")
c1 = scalars("c1", real=True)[0]


def _loss(x: sp.Expr) -> sp.Expr:
    return E + A * x**-c0 * (1 + (x / X) ** (1 / f)) ** (-c1 * f)


def _parameters(x_ref: sp.Expr, unit: str) -> tuple[Parameter, ...]:
    return (
        Parameter(name="E", unit="nats/token"),
        Parameter(name="A", unit=f"nats/token x {unit}^c0"),
        Parameter(name="c0", start=(0.02, 0.8)),
        Parameter(name="c1", support="real", start=(-0.5, 0.8)),
        Parameter(name="X", unit=unit, start=(0.02, 50.0), reference=x_ref),
        Parameter(name="f", start=(0.1, 2.0)),
    )


class BrokenCompute(Law):
    """E + A C^-c0 (1 + (C/X)^(1/f))^(-c1 f) in compute C = 6 N D: for runs along one line of N and D.

    That is a compute-optimal frontier, or one model size, or one number of tokens.

    References
    ----------
    Caballero et al. 2022, Broken Neural Scaling Laws, arXiv:2210.14891, equation 1 with one break.
    """

    name = "bnsl"
    title = "Broken power law in compute"
    citation = "Caballero et al. 2022, arXiv:2210.14891"
    starts = 32
    parameters = _parameters(6 * N_ref * D_ref, "FLOP")
    loss = _loss(6 * N * D)


class BrokenData(Law):
    """E + A D^-c0 (1 + (D/X)^(1/f))^(-c1 f), for runs of one model size.

    References
    ----------
    Caballero et al. 2022, Broken Neural Scaling Laws, arXiv:2210.14891, equation 1 with one break.
    """

    name = "bnsl-data"
    title = "Broken power law in tokens"
    citation = "Caballero et al. 2022, arXiv:2210.14891"
    starts = 32
    parameters = _parameters(D_ref, "tokens")
    loss = _loss(D)


class BrokenModel(Law):
    """E + A N^-c0 (1 + (N/X)^(1/f))^(-c1 f), for runs on one number of tokens.

    References
    ----------
    Caballero et al. 2022, Broken Neural Scaling Laws, arXiv:2210.14891, equation 1 with one break.
    """

    name = "bnsl-model"
    title = "Broken power law in parameters"
    citation = "Caballero et al. 2022, arXiv:2210.14891"
    starts = 32
    parameters = _parameters(N_ref, "params")
    loss = _loss(N)


bnsl = BrokenCompute()
bnsl_data = BrokenData()
bnsl_model = BrokenModel()
