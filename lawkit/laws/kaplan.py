"""Kaplan: the larger of two shortages, of parameters or of tokens, sets the loss."""

from sympy import exp

from lawkit.laws._law import D, D_ref, Law, N, N_ref, Parameter, scalars

N_c, D_c, alpha_N, alpha_D = scalars("N_c D_c alpha_N alpha_D")


class Kaplan(Law):
    """((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D.

    Tends to (N_c/N)^alpha_N for endless data and to (D_c/D)^alpha_D for an endless model; there is no irreducible loss.

    References
    ----------
    Kaplan et al. 2020, Scaling Laws for Neural Language Models, arXiv:2001.08361, equation 1.5.
    """

    name = "kaplan"
    title = "Kaplan"
    citation = "Kaplan et al. 2020, arXiv:2001.08361"
    # A fitted 1 is the scale at which its shortage alone costs e nats at the mean scale: that keeps numbers near 1 and
    # hardly correlated with the small exponents, where N_c itself spans ten orders of magnitude.
    parameters = (
        Parameter(name="N_c", unit="params", start=(1e-3, 1e3), reference=N_ref * exp(1 / alpha_N)),
        Parameter(name="D_c", unit="tokens", start=(1e-3, 1e3), reference=D_ref * exp(1 / alpha_D)),
        Parameter(name="alpha_N", start=(0.03, 0.6)),
        Parameter(name="alpha_D", start=(0.03, 0.6)),
    )
    loss = ((N_c / N) ** (alpha_N / alpha_D) + D_c / D) ** alpha_D


kaplan = Kaplan()
