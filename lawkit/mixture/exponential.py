"""The exponential laws' optimum: sums of positive coefficients times exponentials of affine functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lawkit.mixture._cones import ConeProgram
from lawkit.mixture._form import Scale, feasible_mixture, scalars, vectors
from lawkit.mixture.problem import MixtureProblem


def solve(parameters: Sequence[Mapping[str, Any]], scale: Scale, problem: MixtureProblem) -> np.ndarray:
    """The optimal mixture h (K,) of either exponential law; see `solve_terms` for others of the kind.

    Parameters
    ----------
    parameters
        Natural parameters of each domain: k and t, or E, A, B, alpha, beta and t_E, t_A, t_B.
    scale
        The run to plan.
    problem
        Limits and target.

    Raises
    ------
    SolverError
        When Clarabel gives no usable point.
    """
    n_sources = len(problem.sources)
    if "k" in parameters[0]:
        return solve_terms([(scalars(parameters, "k"), vectors(parameters, "t", n_sources))], problem)
    sizes = (
        ("E", np.ones(len(parameters))),
        ("A", scale.n_params ** -scalars(parameters, "alpha")),
        ("B", scale.n_tokens ** -scalars(parameters, "beta")),
    )
    return solve_terms(
        [(scalars(parameters, p) * f, vectors(parameters, f"t_{p}", n_sources)) for p, f in sizes], problem
    )


def solve_terms(terms: Sequence[tuple[np.ndarray, np.ndarray]], problem: MixtureProblem) -> np.ndarray:
    """The mixture h (K,) with the least target-weighted sum of coefficient * exp(slope . h).

    Parameters
    ----------
    terms
        Pairs of positive coefficients (E,) and slopes (E, K), one pair a term of the law.
    problem
        Limits and target.
    """
    n_sources = len(problem.sources)
    program = ConeProgram()
    h = feasible_mixture(program, problem)
    total = None
    for coefficient, slope in terms:
        n_domains = len(coefficient)
        power = program.variable(n_domains)
        # exp(t.h) of steep laws spans many orders: measured from the middle of the simplex.
        middle = slope.mean(axis=1)
        exponent = (h.tile(n_domains) * slope.ravel()).sum(n_sources) - middle
        program.at_least_exp(power, exponent)
        part = (power * (problem.target * coefficient * np.exp(middle))).sum()
        total = part if total is None else total + part
    assert total is not None
    return program.value(h, program.minimise(total))
