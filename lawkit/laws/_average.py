"""The mean of several laws, each fitted by itself: what one law overshoots another often undershoots."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import sympy as sp

from lawkit.laws._law import Law, PriorContext


def members(law: Law) -> tuple[Law, ...]:
    """The laws that are fitted one by one: an average's members, any other law itself."""
    return law.members if isinstance(law, Average) else (law,)


class Average(Law):
    """The mean of the members' predictions, a law like any other once fitted.

    A member's parameter `alpha` is called `alpha_1` for the first member, `alpha_2` for the second. The members are
    fitted one by one (a joint fit of the mean would let the errors of one make up for those of the other).

    Parameters
    ----------
    members
        Laws with closed forms, not coupled.
    """

    def __init__(self, *members: Law) -> None:
        self.members = members
        self.loss = sp.Add(*[self._renamed(m, m.loss, k) for k, m in enumerate(members, 1)]) / len(members)
        self.parameters = tuple(
            replace(p, name=f"{p.name}_{k}", reference=None)
            for k, m in enumerate(members, 1)
            for p in m.parameters
        )
        self.objective = members[0].objective
        self.convex_in_weights = all(m.convex_in_weights for m in members)
        self.weight_floor = max(m.weight_floor for m in members)
        self.starts = max(m.starts for m in members)

    @staticmethod
    def _renamed(member: Law, expr: sp.Expr, number: int) -> sp.Expr:
        own = {p.name for p in member.parameters}
        symbols = {s for s in expr.atoms(sp.Symbol) if s.name in own}
        # Labels of vectors are symbols too, so their elements are renamed with them.
        return expr.xreplace({s: sp.Symbol(f"{s.name}_{number}", **s.assumptions0) for s in symbols})

    @cached_property
    def linear(self) -> tuple[str, ...]:
        """None: the members are fitted apart."""
        return ()

    @cached_property
    def references(self) -> dict[str, sp.Expr]:
        """Those of the members."""
        return {
            f"{name}_{k}": self._renamed(m, factor, k)
            for k, m in enumerate(self.members, 1)
            for name, factor in m.references.items()
        }

    def prior(self, context: PriorContext) -> tuple[np.ndarray, np.ndarray]:
        """The members' priors, independent of each other."""
        from scipy.linalg import block_diag

        parts = [m.prior(context) for m in self.members]
        return np.concatenate([p[0] for p in parts], 1), block_diag(*[p[1] for p in parts])
