"""D-CPT: continual pre-training on a domain mixed with general text."""

from lawkit.laws._law import D, D_ref, Law, N, Objective, Parameter, h, own, scalars

E, A, B, C, alpha, beta, gamma, eta, epsilon = scalars("E A B C alpha beta gamma eta epsilon")


class DCPT(Law):
    """E + A/N^alpha + B h_i^eta / D^beta + C / (h_i + epsilon)^gamma; 9 parameters a domain.

    h_i is the weight of the domain's own source, so a domain must be one of the sources; what the rest
    of the mixture is plays no part. Not convex in the weights in general: h^eta is concave for eta < 1.

    References
    ----------
    Que et al. 2024, arXiv:2406.01375.
    """

    name = "dcpt"
    title = "D-CPT"
    citation = "Que et al. 2024, arXiv:2406.01375"
    parameters = (
        Parameter(name="E", unit="nats/token"),
        Parameter(name="A", unit="nats/token x params^alpha"),
        Parameter(name="B", unit="nats/token x tokens^beta", reference=D_ref**beta),
        Parameter(name="C", unit="nats/token"),
        Parameter(name="alpha", start=(0.1, 0.8)),
        Parameter(name="beta", start=(0.1, 0.8)),
        Parameter(name="gamma", start=(0.1, 1.0)),
        Parameter(name="eta", start=(0.1, 1.5)),
        Parameter(name="epsilon", unit="mixture weight", start=(0.003, 0.1)),
    )
    loss = E + A / N**alpha + B * h[own] ** eta / D**beta + C * (h[own] + epsilon) ** -gamma
    objective = Objective(kind="relative")


dcpt = DCPT()
