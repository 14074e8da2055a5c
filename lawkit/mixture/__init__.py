"""The optimal mixture for a run not yet trained, with a certificate and the price of every limit."""

from lawkit.mixture.allocate import Allocation, allocate
from lawkit.mixture.optimize import MixtureResult, optimize_mixture
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.result import Against, Uncertainty

__all__ = [
    "Against",
    "Allocation",
    "MixtureProblem",
    "MixtureResult",
    "Uncertainty",
    "allocate",
    "optimize_mixture",
]
