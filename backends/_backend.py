"""What a backend is: run specifications in, a runs table out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from lawkit.runs import Runs


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One proxy run to be done.

    Attributes
    ----------
    n_params, n_tokens
        Non-embedding parameters and training tokens.
    weights
        Mixture weight by source, summing to 1; a source left out has weight 0.
    seed
        Of the initialisation and the order of the data.
    """

    n_params: float
    n_tokens: float
    weights: Mapping[str, float]
    seed: int = 0


@runtime_checkable
class Backend(Protocol):
    """Anything that can do runs."""

    def run(self, specs: Sequence[RunSpec]) -> Runs:
        """Do the runs and return a table with one row a specification, in their order.

        Raises
        ------
        lawkit.errors.LawkitError
            When a run cannot be done here; nothing is returned then.
        """
        ...
