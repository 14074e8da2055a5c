"""The transfer laws' optimum as one conic program (power and exponential cones).

With T = w_0 c^g + sum w_j h_j^g and log S = log(T) / g, a domain's loss is
exp(-delta log S_r) + exp(gamma log(exp(-alpha (log N + log S_q)) + exp(-beta (log D + log S_k)))):
h_j^g is a power cone, log T, the log of the sum and both outer exponentials are exponential cones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lawkit.mixture._cones import Affine, ConeProgram
from lawkit.mixture._form import Scale, feasible_mixture, scalars, vectors
from lawkit.mixture.problem import MixtureProblem

#: Weight at which the constant pseudo-source enters, as in the law.
C = 0.01


def solve(parameters: Sequence[Mapping[str, Any]], scale: Scale, problem: MixtureProblem) -> np.ndarray:
    """The optimal mixture h (K,).

    Parameters
    ----------
    parameters
        Natural parameters of each domain, as `Fit.parameters`: E, alpha, beta, gamma, q, k; g (1 without it);
        with a floor also delta and r; with a constant pseudo-source also q0, k0, r0.
    scale
        The run to plan.
    problem
        Limits and target.

    Raises
    ------
    SolverError
        When Clarabel gives no usable point.
    """
    n_domains, n_sources = len(parameters), len(problem.sources)
    g = scalars(parameters, "g", default=1.0)
    program = ConeProgram()
    h = feasible_mixture(program, problem)
    powered = h.tile(n_domains)  # h_j^g, domain by domain
    if np.any(g < 1):
        lower = program.variable(n_domains * n_sources)
        program.at_most_power(lower, powered, np.repeat(np.minimum(g, 1 - 1e-9), n_sources))
        powered = lower

    def log_lent(name: str) -> Affine:
        """A lower estimate of log S, tight at the optimum."""
        weight = vectors(parameters, name, n_sources)
        generic = scalars(parameters, name + "0", default=0.0) * C**g
        size = weight.max(axis=1) + generic
        total = (powered * (weight / size[:, None]).ravel()).sum(n_sources) + generic / size
        log = program.variable(n_domains)
        program.at_least_exp(total, log)
        return (log + np.log(size)) * (1 / g)

    alpha, beta = scalars(parameters, "alpha"), scalars(parameters, "beta")
    shortage = program.variable(n_domains)
    program.log_sum_exp_at_most(
        shortage, (log_lent("q") + np.log(scale.n)) * -alpha, (log_lent("k") + np.log(scale.d)) * -beta
    )
    loss = program.variable(n_domains)
    program.at_least_exp(loss, shortage * scalars(parameters, "gamma"))
    if "r" in parameters[0]:
        floor = program.variable(n_domains)
        program.at_least_exp(floor, log_lent("r") * -scalars(parameters, "delta"))
        loss = loss + floor
    solution = program.minimise((loss * problem.target).sum())
    return program.value(h, solution)
