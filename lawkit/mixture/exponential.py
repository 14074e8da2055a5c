"""The exponential laws' optimum: sums of positive coefficients times exponentials of affine functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lawkit.mixture._cones import ConeProgram
from lawkit.mixture._form import Scale, feasible_mixture, scalars, vectors
from lawkit.mixture.problem import MixtureProblem


def solve(parameters: Sequence[Mapping[str, Any]], scale: Scale, problem: MixtureProblem) -> np.ndarray:
    """The optimal mixture h (K,) of c + k exp(t . h); see `solve_terms` for more terms.

    Parameters
    ----------
    parameters
        Natural parameters of each domain: k > 0 and t, one element a source.
    scale
        Unused: this law is of one scale.
    problem
        Limits and target.

    Raises
    ------
    SolverError
        When Clarabel gives no usable point.
    """
    slope = vectors(parameters, "t", len(problem.sources))
    return solve_terms([(scalars(parameters, "k"), slope)], problem)


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
