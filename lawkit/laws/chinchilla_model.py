"""Chinchilla at one number of tokens: loss falls as a power of the parameters."""

from lawkit.laws._law import Law, N, Parameter, scalars

E, A, alpha = scalars("E A alpha")


class ChinchillaModel(Law):
    """E + A/N^alpha, for runs on one number of tokens; E then holds what those tokens leave to be learnt.

    References
    ----------
    Kang et al. 2025, Demystifying Synthetic Data in LLM Pre-training; a cut of Hoffmann et al. 2022,
    arXiv:2203.15556, equation 2.
    """

    name = "chinchilla-model"
    title = "Chinchilla at one number of tokens"
    citation = "Kang et al. 2025; Hoffmann et al. 2022, arXiv:2203.15556"
    parameters = (
        Parameter(name="E", unit="nats/token"),
        Parameter(name="A", unit="nats/token x params^alpha"),
        Parameter(name="alpha", start=(0.05, 2.0)),
    )
    loss = E + A / N**alpha
    starts = 4  # each the best of a quarter of a grid: see lawkit.fitting.starts


chinchilla_model = ChinchillaModel()
