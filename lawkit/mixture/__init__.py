"""The optimal mixture for a run not yet trained, with a certificate and the price of every limit."""

from lawkit.mixture.optimize import MixtureResult, optimize_mixture
from lawkit.mixture.problem import MixtureProblem

__all__ = ["MixtureProblem", "MixtureResult", "optimize_mixture"]
