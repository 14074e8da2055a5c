"""Farseer: the power of the tokens, its factor and the limit all change with the model's size."""

from sympy import exp

from lawkit.laws._law import D, Law, N, N_ref, Parameter, scalars

E, c, gamma, B, b, beta, k, a, alpha = scalars("E c gamma B b beta k a alpha")


class Farseer(Law):
    """E exp(-c N^gamma) + B exp(b N^-beta) D^(-k exp(-a N^alpha)).

    At each model size a power law in tokens; its limit, factor and exponent are stretched exponentials of the size.
    In the paper's letters: E = exp(b_3), c = -a_3; B = exp(b_2), b = a_2, beta negative; k = exp(b_1), a = -a_1.
    Signs are those of its fit, so that each part falls with the size.

    References
    ----------
    Li et al. 2025, Predictable Scale: Part II, Farseer, arXiv:2506.10972, equation 3.
    """

    name = "farseer"
    title = "Farseer"
    citation = "Li et al. 2025, arXiv:2506.10972"
    # E and B enter linearly. The other factors are fitted as what they add to an exponent at the mean size.
    parameters = (
        Parameter(name="E", unit="nats/token"),
        Parameter(name="c", unit="params^-gamma", start=(0.02, 2.0), reference=N_ref**-gamma),
        Parameter(name="gamma", start=(0.03, 1.0)),
        Parameter(name="B", unit="nats/token x tokens^(power)"),
        Parameter(name="b", unit="params^beta", start=(0.05, 20.0), reference=N_ref**beta),
        Parameter(name="beta", start=(0.03, 1.0)),
        Parameter(name="k", start=(0.1, 5.0)),
        Parameter(name="a", unit="params^-alpha", start=(0.02, 3.0), reference=N_ref**-alpha),
        Parameter(name="alpha", start=(0.03, 1.0)),
    )
    loss = E * exp(-c * N**gamma) + B * exp(b * N**-beta) * D ** (-k * exp(-a * N**alpha))
    starts = 32


farseer = Farseer()
