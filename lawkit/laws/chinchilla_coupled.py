"""Chinchilla with an outer exponent: a shortage of parameters and one of tokens make each other better or worse."""

from lawkit.laws._law import D, D_ref, Law, N, N_ref, Parameter, scalars

E, A, B, alpha, beta, gamma = scalars("E A B alpha beta gamma")


class ChinchillaCoupled(Law):
    """E + (A/N^alpha + B/D^beta)^gamma.

    With gamma = 1 it is Chinchilla's law; with E = 0 and gamma beta = beta' it is Kaplan's. For gamma < 1 more
    parameters help more where there are more tokens.

    References
    ----------
    Videau et al. 2026, Skaling: Chinchilla's Exponents Meet Kaplan's Coupling, arXiv:2608.07222.
    """

    name = "chinchilla-coupled"
    title = "Chinchilla, coupled"
    citation = "Videau et al. 2026, arXiv:2608.07222"
    # Under the outer power neither term is linear: the numbers fitted are the inner terms at the mean scale.
    parameters = (
        Parameter(name="E", unit="nats/token"),
        Parameter(
            name="A", unit="(nats/token)^(1/gamma) x params^alpha", start=(0.01, 1.0), reference=N_ref**alpha
        ),
        Parameter(
            name="B", unit="(nats/token)^(1/gamma) x tokens^beta", start=(0.01, 1.0), reference=D_ref**beta
        ),
        Parameter(name="alpha", start=(0.1, 2.0)),
        Parameter(name="beta", start=(0.1, 2.0)),
        Parameter(name="gamma", start=(0.2, 1.5)),
    )
    loss = E + (A / N**alpha + B / D**beta) ** gamma


chinchilla_coupled = ChinchillaCoupled()
