"""Data-constrained: repeated tokens and parameters beyond what the unique tokens can fill are worth less and less."""

from sympy import Expr, Max, Min, exp, log

from lawkit.laws._law import D, D_ref, Law, N, N_ref, Parameter, U, scalars

E, A, B, alpha, beta, R_D, R_N = scalars("E A B alpha beta R_D R_N")


def _log_effective(log_used: Expr, log_unique: Expr, worth: Expr) -> Expr:
    """Log of the unique units that `used` ones are as good as; no more than 1 + worth times the unique ones.

    Written in logarithms, of which the derivatives are several times shorter.
    """
    log_passes = Max(0, log_used - log_unique)
    return log_used - log_passes + log(1 + worth * (1 - exp((1 - exp(log_passes)) / worth)))


# Parameters up to the compute-optimal number for the unique tokens count in full: where both terms of Chinchilla's law
# lose equally by a relative change, alpha A/N^alpha = beta B/U^beta.
_log_optimal_params = (log(alpha) + log(A) - log(beta) - log(B) + beta * Min(log(U), log(D))) / alpha


class DataConstrained(Law):
    """E + A/N'^alpha + B/D'^beta with effective tokens D' and effective parameters N'.

    D' = U (1 + R_D (1 - exp(-(D/U - 1)/R_D))), where U is the number of unique tokens seen, never more than D;
    N' likewise with R_N and the compute-optimal number of parameters for U tokens, never more than N, for U.
    Without repetition and excess parameters it is Chinchilla's law. It cannot say that repetition does harm.

    References
    ----------
    Muennighoff et al. 2023, Scaling Data-Constrained Language Models, arXiv:2305.16264, equations 5 to 7.
    """

    name = "data-constrained"
    title = "Data-constrained"
    citation = "Muennighoff et al. 2023, arXiv:2305.16264"
    parameters = (
        Parameter(name="E", unit="nats/token"),
        Parameter(name="A", unit="nats/token x params^alpha", start=(0.1, 2.0), reference=N_ref**alpha),
        Parameter(name="B", unit="nats/token x tokens^beta", start=(0.1, 2.0), reference=D_ref**beta),
        Parameter(name="alpha", start=(0.1, 1.0)),
        Parameter(name="beta", start=(0.1, 1.0)),
        Parameter(name="R_D", unit="passes", start=(2.0, 200.0)),
        Parameter(name="R_N", unit="passes", start=(0.5, 50.0)),
    )
    starts = 32
    loss = (
        E
        + A * exp(-alpha * _log_effective(log(N), _log_optimal_params, R_N))
        + B * exp(-beta * _log_effective(log(D), log(U), R_D))
    )


data_constrained = DataConstrained()
