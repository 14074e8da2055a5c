"""The volume of what is not known, whatever it is for."""

from __future__ import annotations

from lawkit.design._criterion import Criterion, Goal


class DOptimal(Criterion):
    """Half the log determinant of the posterior covariance: the batch's information gain is what it falls by."""

    name = "d-optimal"
    title = "volume of the posterior"

    def factor(self, goal: Goal) -> None:
        """None: no trace."""


d_optimal = DOptimal()
