"""BiMix: a power law in the domain's own weight times one in the tokens."""

from lawkit.laws._law import D, D_ref, Law, Objective, Parameter, h, own, scalars

B, C, alpha, beta = scalars("B C alpha beta")


class BiMix(Law):
    """(B/D^beta + C) / h_i^alpha, with h_i the weight of the domain's own source; 4 parameters a domain.

    The paper writes a fifth, a factor A on the whole, which its B and C absorb. Other sources play no part,
    and a domain must be one of the sources. Weights under .0001 are read as .0001: the law is infinite at zero.
    Convex in the weights above that.

    References
    ----------
    Ge et al. 2024, arXiv:2405.14908.
    """

    name = "bimix"
    title = "BiMix"
    citation = "Ge et al. 2024, arXiv:2405.14908"
    parameters = (
        Parameter(name="B", unit="nats/token x tokens^beta", reference=D_ref**beta),
        Parameter(name="C", unit="nats/token"),
        Parameter(name="alpha", start=(0.01, 0.5)),
        Parameter(name="beta", start=(0.05, 1.0)),
    )
    loss = (B / D**beta + C) * h[own] ** -alpha
    convex_in_weights = True
    weight_floor = 1e-4
    objective = Objective(kind="relative")


bimix = BiMix()
