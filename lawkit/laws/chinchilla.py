"""Chinchilla: loss falls as separate powers of parameters and tokens."""

from lawkit.laws._law import D, Law, N, Parameter, scalars

E, A, B, alpha, beta = scalars("E A B alpha beta")


class Chinchilla(Law):
    """E + A/N^alpha + B/D^beta.

    What a model of finite size and what finite data leave to be learnt are added to the loss E of an endless model on
    endless data.

    References
    ----------
    Hoffmann et al. 2022, Training Compute-Optimal Large Language Models, arXiv:2203.15556, equation 2.
    """

    name = "chinchilla"
    title = "Chinchilla"
    citation = "Hoffmann et al. 2022, arXiv:2203.15556"
    parameters = (
        Parameter(name="E", unit="nats/token"),
        Parameter(name="A", unit="nats/token x params^alpha"),
        Parameter(name="B", unit="nats/token x tokens^beta"),
        Parameter(name="alpha", start=(0.05, 2.0)),
        Parameter(name="beta", start=(0.05, 2.0)),
    )
    loss = E + A / N**alpha + B / D**beta
    starts = 4  # each the best of a quarter of a grid: see lawkit.fitting.starts


chinchilla = Chinchilla()
