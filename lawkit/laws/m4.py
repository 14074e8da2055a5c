"""M4: from the loss of guessing to the limit, by a power law in the tokens between them."""

from sympy import Symbol

from lawkit.laws._law import D, D_ref, Implicit, Law, Parameter, scalars

E, S, B, beta, alpha = scalars("E S B beta alpha")
t = Symbol("t", positive=True)


class M4(Law):
    """E + S t, where t between 0 and 1 solves t S / (S - t S)^alpha = B D^-beta, for runs of one model size.

    So (L - E) / (L_0 - L)^alpha = B D^-beta, with L_0 = E + S the loss of guessing at random: a learning curve that
    starts flat at L_0 and ends as a power law. alpha near 0 is the power law alone. In the paper beta is -c.

    References
    ----------
    Alabdulmohsin et al. 2022, Revisiting Neural Scaling Laws in Language and Vision, arXiv:2209.06640, estimator M4.
    """

    name = "m4"
    title = "M4"
    citation = "Alabdulmohsin et al. 2022, arXiv:2209.06640"
    parameters = (
        Parameter(name="E", unit="nats/token", start=(0.3, 3.0)),
        Parameter(name="S", unit="nats/token", start=(2.0, 12.0)),
        Parameter(
            name="B",
            unit="(nats/token)^(1 - alpha) x tokens^beta",
            start=(0.02, 1.0),
            reference=S ** (1 - alpha) * D_ref**beta,
        ),
        Parameter(name="beta", start=(0.05, 1.5)),
        Parameter(name="alpha", start=(0.02, 4.0)),
    )
    loss = E + S * t
    implicit = Implicit(
        symbol=t, equation=t - B * S ** (alpha - 1) * D**-beta * (1 - t) ** alpha, lower=0.0, upper=1.0
    )
    starts = 16


m4 = M4()
