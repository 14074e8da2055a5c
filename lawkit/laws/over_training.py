"""Over-training: loss in compute and in tokens per parameter, with one exponent for both."""

from lawkit.laws._law import D, Law, N, Parameter, scalars

E, a, b, eta = scalars("E a b eta")
C, M = 6 * N * D, D / N


class OverTraining(Law):
    """E + (a M^eta + b M^-eta) C^-eta, with compute C = 6 N D and tokens per parameter M = D/N.

    Along any line of constant M, compute-optimal or over-trained, the reducible loss falls by the same power of
    compute. It is Chinchilla's law with equal exponents 2 eta, A = a 6^-eta and B = b 6^-eta.

    References
    ----------
    Gadre et al. 2024, Language models scale reliably with over-training and on downstream tasks, arXiv:2403.08540.
    """

    name = "over-training"
    title = "Over-training"
    citation = "Gadre et al. 2024, arXiv:2403.08540"
    parameters = (
        Parameter(name="E", unit="nats/token"),
        Parameter(name="a", unit="nats/token x FLOP^eta"),
        Parameter(name="b", unit="nats/token x FLOP^eta"),
        Parameter(name="eta", start=(0.02, 1.0)),
    )
    loss = E + (a * M**eta + b * M**-eta) * C**-eta


over_training = OverTraining()
