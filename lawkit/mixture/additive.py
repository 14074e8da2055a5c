"""The additive law's optimum: each domain's loss holds one over a concave sum of powers of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lawkit.mixture._cones import ConeProgram
from lawkit.mixture._form import Scale, feasible_mixture, vectors
from lawkit.mixture.problem import MixtureProblem


def solve(parameters: Sequence[Mapping[str, Any]], scale: Scale, problem: MixtureProblem) -> np.ndarray:
    """The optimal mixture h (K,) of 1 / sum_j C_j h_j^gamma_j, 0 < gamma_j <= 1.

    Parameters
    ----------
    parameters
        Natural parameters of each domain: C and gamma, one element a source.
    scale
        Unused: the terms in n_params and n_tokens do not depend on the mixture.
    problem
        Limits and target.

    Raises
    ------
    SolverError
        When Clarabel gives no usable point.
    """
    n_domains, n_sources = len(parameters), len(problem.sources)
    gain, gamma = vectors(parameters, "C", n_sources), vectors(parameters, "gamma", n_sources)
    program = ConeProgram()
    h = feasible_mixture(program, problem)
    powered = program.variable(n_domains * n_sources)
    program.at_most_power(powered, h.tile(n_domains), np.minimum(gamma, 1 - 1e-9).ravel())
    size = gain.max(axis=1)
    total = (powered * (gain / size[:, None]).ravel()).sum(n_sources)
    log, loss = program.variable(n_domains), program.variable(n_domains)
    program.at_least_exp(total, log)
    program.at_least_exp(loss, -log)
    return program.value(h, program.minimise((loss * (problem.target / size)).sum()))
