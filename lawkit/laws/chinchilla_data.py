"""Chinchilla at one model size: loss falls as a power of the tokens."""

from lawkit.laws._law import D, Law, Parameter, scalars

E, B, beta = scalars("E B beta")


class ChinchillaData(Law):
    """E + B/D^beta, for runs of one model size; E then holds what that size leaves to be learnt.

    References
    ----------
    Kang et al. 2025, Demystifying Synthetic Data in LLM Pre-training; a cut of Hoffmann et al. 2022,
    arXiv:2203.15556, equation 2.
    """

    name = "chinchilla-data"
    title = "Chinchilla at one model size"
    citation = "Kang et al. 2025; Hoffmann et al. 2022, arXiv:2203.15556"
    parameters = (
        Parameter(name="E", unit="nats/token"),
        Parameter(name="B", unit="nats/token x tokens^beta"),
        Parameter(name="beta", start=(0.05, 2.0)),
    )
    loss = E + B / D**beta
    starts = 4  # each the best of a quarter of a grid: see lawkit.fitting.starts


chinchilla_data = ChinchillaData()
