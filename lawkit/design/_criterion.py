"""What runs are chosen by: the interface of all criteria, each of which is one file beside this one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lawkit.design.batch import Batch, Limits, greedy, in_order
from lawkit.design.candidates import Candidates
from lawkit.design.value import Decision, Posterior, Slopes
from lawkit.mixture import MixtureProblem
from lawkit.mixture.target import Target

if TYPE_CHECKING:
    from lawkit.fitting import Fit


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """One target of a study under one fit.

    Attributes
    ----------
    at
        The fit at the target's scale.
    target
        (E,) what each domain counts.
    problem
        The mixtures to choose from; None for a law that does not depend on them.
    h
        (K,) the one chosen now, None without `problem`.
    choice
        How the choice hangs on the fitted vector; None where there is nothing to choose.
    share
        What its regret or variance counts beside that of other targets.
    seed
        Of mixtures that fill the space.
    """

    at: Target
    target: np.ndarray
    problem: MixtureProblem | None
    h: np.ndarray | None
    choice: Decision | None
    share: float = 1.0
    seed: int = 0

    @property
    def fit(self) -> Fit:
        """The fit."""
        return self.at.fit


class Criterion(ABC):
    """What is to be small after the runs, or another rule to choose them by.

    Attributes
    ----------
    name
        As `lawkit.propose_runs` and the command line call it.
    title
        What it is, in a few words.
    needs_choice
        Whether it means nothing where there is no mixture to choose.
    """

    name: str
    title: str
    needs_choice = False

    @abstractmethod
    def factor(self, goal: Goal) -> np.ndarray | None:
        """(G, r, P) A, where the criterion is tr(A Sigma A'); None where it is no such trace."""

    def batch(
        self,
        candidates: Candidates,
        slopes: Slopes,
        posterior: Posterior,
        factor: np.ndarray | None,
        limits: Limits,
        seed: int,
    ) -> Batch:
        """Choose runs; by default those that make the criterion small, half the log determinant without factor."""
        return greedy(candidates, slopes, posterior, factor, limits)


class Blind(Criterion):
    """A rule that goes by the candidates alone, whatever the fit knows."""

    def factor(self, goal: Goal) -> None:
        """None: nothing is minimised."""

    @abstractmethod
    def order(self, candidates: Candidates, limits: Limits, seed: int) -> Callable[[np.ndarray], int]:
        """What picks the next run, as an index, from a mask (n,) of those that the rest of the budget pays for."""

    def batch(
        self,
        candidates: Candidates,
        slopes: Slopes,
        posterior: Posterior,
        factor: np.ndarray | None,
        limits: Limits,
        seed: int,
    ) -> Batch:
        """Take runs in the rule's order."""
        return in_order(candidates, limits, self.order(candidates, limits, seed))
