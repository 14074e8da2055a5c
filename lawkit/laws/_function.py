"""Numeric code generated from a law's expression: values, exact gradients, exact Hessians.

Sums over sources are cut out of the expression and become numbers of their own: with
L = F(parameters, S_1 .. S_m) and S_k = sum_j f_k(parameters, v_j, h_j), first and second derivatives of L follow
from those of F and of the summands f_k by the chain rule, elementwise in j. So the code is as long for 300
sources as for two. A quantity s defined by Phi(s, ...) = 0 is one more variable, eliminated by the implicit
function theorem: s_y = -Phi_y / Phi_s, and once more for second derivatives.

Shapes: B parameter vectors at once, n rows, E domains (1 unless the law is coupled), K sources, Y variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import sympy as sp

from lawkit.laws._codegen import Node, Symbols
from lawkit.laws._evaluation import Evaluation, Inputs

if TYPE_CHECKING:
    from lawkit.laws._law import Law


class LawFunction:
    """Evaluates a law for many parameter vectors and rows at once. See `Law.function`.

    `wrt` is a tuple out of 'params' (the unconstrained vector, P columns) and 'weights' (K columns), in
    that order; Y is the total.
    """

    def __init__(self, law: Law):
        self.law = law
        symbols = Symbols(law)
        self._loss = Node(law.loss, symbols)
        self._equation = Node(law.implicit.equation, symbols) if law.implicit else None
        self._bracket: list[Node] = []
        if law.implicit:
            self._bracket = [Node(sp.sympify(b), symbols) for b in (law.implicit.lower, law.implicit.upper)]

    # ---- public -----------------------------------------------------------------------------------------

    def value(self, z: np.ndarray, x: Inputs) -> np.ndarray:
        """Losses (B, n, E)."""
        with np.errstate(all="ignore"):
            state = Evaluation(self, z, x)
            return np.array(np.broadcast_to(state.value(self._loss), state.shape))

    def jacobian(
        self, z: np.ndarray, x: Inputs, wrt: tuple[str, ...] = ("params",), only: frozenset[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Losses (B, n, E) and first derivatives (B, n, E, Y); columns of parameters not in `only` stay 0."""
        with np.errstate(all="ignore"):
            state = Evaluation(self, z, x, wrt, only)
            value, first = state.first(self._loss)
            if self._equation is not None:
                first = first[..., :-1] + first[..., -1:] * state.implicit_slope()
            return value, first

    def hessian(
        self, z: np.ndarray, x: Inputs, wrt: tuple[str, ...] = ("weights",)
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Losses (B, n, E), first (B, n, E, Y) and second derivatives (B, n, E, Y, Y)."""
        with np.errstate(all="ignore"):
            state = Evaluation(self, z, x, wrt)
            value, first, second = state.second(self._loss)
            if self._equation is None:
                return value, first, second
            _, phi, phi2 = state.second(self._equation)
            slope = state.implicit_slope()
            curve = -_eliminate(phi2, slope) / phi[..., -1, None, None]
            second = _eliminate(second, slope) + first[..., -1, None, None] * curve
            return value, first[..., :-1] + first[..., -1:] * slope, second

    @property
    def cheap_curvature(self) -> bool:
        """Whether `curvature` does without second derivatives row by row."""
        own = any(where == "own" for _, where in self._loss.elements.values())
        return self._equation is None and (not self._loss.inner or not (own or self.law.coupled))

    def curvature(self, z: np.ndarray, x: Inputs, multipliers: np.ndarray) -> np.ndarray:
        """Second derivatives (B, P, P) by the parameters, summed over rows and domains with `multipliers` (B, n, E)."""
        with np.errstate(all="ignore"):
            if self.cheap_curvature:
                return Evaluation(self, z, x, ("params",)).summed_second(self._loss, multipliers)
            second = self.hessian(z, x, ("params",))[2]
            return np.einsum("bne,bnepq->bpq", multipliers, second)

    # ---- the implicit quantity --------------------------------------------------------------------------

    def _solve(self, state: Evaluation) -> None:
        """Sets the root of the defining equation per (B, n): Newton, safeguarded by bisection."""
        assert self._equation is not None
        shape = (*state.shape[:2], 1)
        low, high = (np.array(np.broadcast_to(state.value(b), shape)) for b in self._bracket)
        # From the lower end: there Newton never oversteps where the equation is convex and falling.
        at = low
        state.set_implicit(at)
        value, slope = state.equation_slope(self._equation)
        falling, moving = value > 0, np.ones(shape, bool)
        for _ in range(100):
            newton = at - value / slope
            new = np.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
            # Newton squares the error: after a step this small the root is exact. It stays, whatever others need.
            new = np.where(moving, new, at)
            moving = np.abs(new - at) > 1e-9 * np.maximum(1.0, np.abs(new))
            at = new
            state.set_implicit(at)
            if not moving.any():
                break
            value, slope = state.equation_slope(self._equation)
            above = (value > 0) != falling
            high, low = np.where(above, at, high), np.where(above, low, at)


def _eliminate(second: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Second derivatives in (y, s) reduced to y along s(y), without the term in s_yy."""
    cross = second[..., :-1, -1]
    mixed = cross[..., :, None] * slope[..., None, :]
    outer = slope[..., :, None] * slope[..., None, :]
    return second[..., :-1, :-1] + mixed + np.swapaxes(mixed, -1, -2) + second[..., -1:, -1:] * outer
