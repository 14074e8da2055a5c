"""M4: from the loss of guessing to the limit, by a power law in the tokens between them."""

from sympy import Max, Min, Symbol, exp, log

from lawkit.laws._law import D, D_ref, Implicit, Law, Parameter, scalars

E, S, B, beta, alpha = scalars("E S B beta alpha")
# How far the loss is from that of guessing, as log odds: precise at both ends.
u = Symbol("u", real=True)
_log_power = log(B * S ** (alpha - 1) * D**-beta)


class M4(Law):
    """(L - E) / (L_0 - L)^alpha = B D^-beta with L_0 = E + S, the loss of guessing; for runs of one model size.

    A learning curve that starts flat at L_0 and ends as a power law; alpha near 0 is the power law alone. It is solved
    for u, with L = E + S / (1 + exp(-u)). In the paper B is beta, and beta is -c.

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
    loss = E + S / (1 + exp(-u))
    implicit = Implicit(
        symbol=u,
        equation=alpha * log(1 + exp(u)) - log(1 + exp(-u)) - _log_power,
        lower=Min(0, _log_power - alpha * log(2)),
        upper=Max(0, (_log_power + log(2)) / alpha),
    )
    starts = 16


m4 = M4()
