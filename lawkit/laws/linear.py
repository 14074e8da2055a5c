"""Linear regression on the mixture weights, the simplest baseline."""

from lawkit.laws._law import Law, Objective, Parameter, h, j, over_sources, vectors

(w,) = vectors("w", real=True)


class Linear(Law):
    """sum_j w_j h_j for runs that share one scale; K parameters a domain.

    w_j is the loss of a run on source j alone; as the weights add up to 1 there is no separate intercept.

    References
    ----------
    The linear baseline of Liu et al. 2024, arXiv:2407.01492 (RegMix).
    """

    name = "linear"
    title = "Linear"
    citation = "Liu et al. 2024, arXiv:2407.01492"
    parameters = (Parameter(name="w", support="real", unit="nats/token", per_source=True, start=(1.0, 5.0)),)
    loss = over_sources(w[j] * h[j])
    convex_in_weights = True
    objective = Objective(kind="absolute")
    starts = 1


linear = Linear()
