"""The capacity law's losses, as its inner problem gives them, with corners rounded where a source leaves its floor.

In s = log h, u = log x and m, the log of the inner problem's multiplier, a source has

    u_i = max(log H, (s_i + log(b_i c_i) - m) / (b_i + 1)),   sum e^u = N + (K - 1) H.

The best mixture often leaves a source just at its floor, where the loss has a corner: `rounding` replaces the maximum
by a smooth function above it, and the interior-point method makes it smaller with its barrier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture._form import Scale
from lawkit.mixture.objective import Objective
from lawkit.mixture.smooth import Full

#: Rounding of corners, as a multiple of the barrier weight: large enough that a slope is known to five digits there.
ROUNDING = 100.0


class Inner(NamedTuple):
    """The inner problem's solution: m, u (K,), and how u moves with s - m, times b + 1: once, twice (K,)."""

    m: float
    u: np.ndarray
    moves: np.ndarray
    bends: np.ndarray


class CapacityForm:
    """One fit at one scale, in logarithms.

    Parameters
    ----------
    parameters
        The coupled natural parameters: b, c, E and, with the noise term, A, a (K,); H.
    scale
        The run to plan.
    K
        Number of sources, which are the domains.

    Raises
    ------
    OptimizeError
        For a run no larger than one source's floor.
    """

    def __init__(self, parameters: Mapping[str, Any], scale: Scale, K: int) -> None:
        b, c, E = (np.broadcast_to(np.asarray(parameters[k], float), (K,)) for k in ("b", "c", "E"))
        floor = float(np.max(parameters["H"]))
        if scale.n_params <= floor:
            raise OptimizeError(
                f"n_params {scale.n_params:g} is under the floor H = {floor:g} that this fit gives "
                "every source: plan a larger model"
            )
        self.b, self.c, self.E, self.offset = b, c, E, np.log(b * c)
        self.capacity = scale.n_params + (K - 1) * floor
        self.log_floor, self.log_most = np.log(floor), np.log(scale.n_params)
        if "A" in parameters:
            self.a = np.broadcast_to(np.asarray(parameters["a"], float), (K,))
            self.noise = np.asarray(parameters["A"], float) * scale.n_tokens**-self.a
        else:
            self.a, self.noise = np.ones(K), np.zeros(K)

    def inner(self, s: np.ndarray, rounding: float = 0.0) -> Inner:
        """The inner problem at log weights s (K,), which need not be those of a mixture."""
        steep, log_capacity = self.b + 1, np.log(self.capacity)
        alone = s + self.offset - steep * self.log_floor
        # The sum of capacities is convex in m on a logarithmic scale: Newton's method from where it is too large.
        m = float((s + self.offset - steep * self.log_most).max())
        for _ in range(100):
            over = (alone - m) / steep
            if rounding > 0:
                root = np.hypot(over, 2 * rounding)
                small = 2 * rounding**2 / (root + np.abs(over))
                up = np.where(over > 0, over + small, small)
                moves = up / root
            else:
                up, moves = np.maximum(over, 0.0), (over > 0).astype(float)
            u = self.log_floor + up
            x = np.exp(u - log_capacity)
            total = x.sum()
            step = float(np.log(total) * total / (x * moves / steep).sum())
            m += step
            if abs(step) <= 4e-15 * max(1.0, abs(m)):
                break
        bends = 2 * rounding**2 / root**3 if rounding > 0 else np.zeros(len(s))
        return Inner(m, u, moves, bends)

    def losses(self, h: np.ndarray, rounding: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Losses (K,) of the sources' own domains at a mixture (K,), slopes (K, K) and second derivatives (K, K, K)."""
        s, steep, each = np.log(h), self.b + 1, np.arange(len(h))
        _, u, moves, bends = self.inner(s, rounding)
        x, short, noise = np.exp(u), self.c * np.exp(-self.b * u), self.noise * np.exp(-self.a * s)
        share = x * moves / steep
        # m moves with s by share / sum(share): rows of `apart` are the slopes of s_i - m.
        apart = np.eye(len(h)) - share / share.sum()
        first, second = (
            -self.b * short * moves / steep,
            self.b * short * (self.b * moves**2 - bends) / steep**2,
        )
        slope = first[:, None] * apart
        slope[each, each] -= self.a * noise
        m_curve = (apart.T * (x * (moves**2 + bends) / steep**2)) @ apart / share.sum()
        curve = second[:, None, None] * apart[:, :, None] * apart[:, None, :] - first[:, None, None] * m_curve
        curve[each, each, each] += self.a**2 * noise
        curve[:, each, each] -= slope
        return short + noise + self.E, slope / h, curve / (h[:, None] * h)


class CapacityObjective(Objective):
    """`Objective` of one fit of the capacity law, with rounded corners.

    Attributes
    ----------
    rounding
        Of what was asked last; 0 for the law itself.
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective.at, objective.problem)
        sources, domains = self.problem.sources, self.problem.domains
        self.place = np.array([sources.index(d) for d in domains])
        self.form = CapacityForm(self.at.fit.parameters[domains[0]], self.at.scale, len(sources))
        self.round(0.0)

    def round(self, rounding: float) -> None:
        """Round corners by so much in what is asked next."""
        self.rounding, self._asked = rounding, b""

    def __call__(self, h: np.ndarray, barrier: float) -> Full:
        """As `Objective`, with corners that get sharper with the barrier."""
        # Constraints have to hold as the law says, throughout.
        self.round(0.0 if self.constrained else ROUNDING * barrier)
        return super().__call__(h, barrier)

    def _parts(
        self, z: np.ndarray, domains: np.ndarray, h: np.ndarray, second: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            return tuple(p[self.place[domains]][None] for p in self.form.losses(h, self.rounding))  # type: ignore[return-value]
