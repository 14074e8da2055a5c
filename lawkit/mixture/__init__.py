"""The optimal mixture for a run not yet trained, with a certificate and the price of every limit."""

from lawkit.mixture.allocate import Allocation, allocate
from lawkit.mixture.export import export_mixture
from lawkit.mixture.infeasible import InfeasibleError
from lawkit.mixture.optimize import MixtureResult, optimize_mixture
from lawkit.mixture.path import MixturePath, mixture_path
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.result import Against, Uncertainty

__all__ = [
    "Against",
    "Allocation",
    "InfeasibleError",
    "MixturePath",
    "MixtureProblem",
    "MixtureResult",
    "Uncertainty",
    "allocate",
    "export_mixture",
    "mixture_path",
    "optimize_mixture",
]
