"""What is minimised and what must hold, at one mixture: values, slopes and curvature for the interior-point method."""

from __future__ import annotations

import numpy as np

from lawkit.mixture.corners import smoothed, worst
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.smooth import Full
from lawkit.mixture.target import LARGEST, Target, domain_caps

#: Draws of less weight than this add no curvature.
SLIGHT = 1e-9


class Objective:
    """The losses of one fit, or of S draws of its parameters, made one number; and the smooth constraints.

    Parameters
    ----------
    at, problem
        The target and what is asked of the mixture.
    z
        (S, G, P) draws on the unconstrained scale; the point fit if None.
    risk
        ('mean', 0), ('cvar', q) or ('quantile', q) over the draws; the last is for `of` only.
    """

    def __init__(
        self,
        at: Target,
        problem: MixtureProblem,
        z: np.ndarray | None = None,
        risk: tuple[str, float] = ("mean", 0.0),
    ) -> None:
        self.at, self.problem = at, problem
        self.risk = risk
        self.z = at.fit.z[None] if z is None else z
        self.used = np.flatnonzero(problem.target > 0)
        v = problem.target[self.used]
        self.domain_caps = domain_caps(v, problem.over)
        S = len(self.z)
        self.draw_caps = np.full(S, 1 / ((1 - (risk[1] if risk[0] == "cvar" else 0.0)) * S))
        self._asked, self._answer = b"", (np.empty(0), np.empty(0))
        self.ceilings = problem.ceilings
        self.most = np.empty(0) if problem.max_loss is None else problem.max_loss[self.ceilings]

    @property
    def corners(self) -> bool:
        """Whether it has corners, which the barrier rounds."""
        return bool(self.domain_caps.sum() > 1 + 1e-12 or self.draw_caps.sum() > 1 + 1e-12)

    @property
    def constrained(self) -> bool:
        """Whether there are smooth constraints."""
        return bool(len(self.ceilings) or self.problem.max_kl < np.inf)

    # ---- values ----------------------------------------------------------------------------------------------

    def exact(self, h: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective at a mixture, corners and all, and weights (S, used) of the losses in it."""
        losses, _ = self.expanded(h)
        inner = [worst(row, self.domain_caps) for row in losses]
        value, p = worst(np.array([v for v, _ in inner]), self.draw_caps)
        return value, p[:, None] * np.array([w for _, w in inner])

    def of(self, h: np.ndarray) -> float:
        """What is reported of a mixture: the objective, or the quantile of its draws where that is the risk."""
        if self.risk[0] != "quantile":
            return self.exact(h)[0]
        values = np.sort(self.draws(h))
        return float(values[max(0, int(np.ceil(self.risk[1] * len(values) - 1e-9)) - 1)])

    def draws(self, h: np.ndarray) -> np.ndarray:
        """(S,) objectives under each draw."""
        return np.array([worst(row, self.domain_caps)[0] for row in self.expanded(h)[0]])

    def weights(self, h: np.ndarray, barrier: float) -> np.ndarray:
        """Weights (S, used) of the losses in the rounded objective: a point of the dual."""
        losses, _ = self.expanded(h)
        f, inner, _ = smoothed(losses, self.domain_caps, barrier)
        return smoothed(f[None], self.draw_caps, barrier)[1][0][:, None] * inner

    def lagrangian(self, h: np.ndarray, weights: np.ndarray, outer: np.ndarray) -> tuple[float, np.ndarray]:
        """The weighted losses and constraints with their slope (K,): convex, and below the objective where all hold."""
        losses, slopes = self.expanded(h)
        value, slope = float((weights * losses).sum()), np.tensordot(weights, slopes, 2)
        if len(outer):
            g, g_slopes, _ = self.constraints(h)
            value, slope = value + float(outer @ g), slope + outer @ g_slopes
        return value, slope

    def constraints(self, h: np.ndarray, second: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The constraints g <= 0: values (c,), slopes (c, K) and, if asked, second derivatives (c, K, K).

        Loss ceilings come first, of the point fit, then the divergence.
        """
        K, point = len(h), self.at.fit.z[None]
        g, slopes, curves = np.empty(0), np.empty((0, K)), np.empty((0, K, K))
        if len(self.ceilings):
            parts = self._parts(point, self.ceilings, h, second)
            g, slopes = parts[0][0] - self.most, parts[1][0]
            curves = parts[2][0] if second else curves
        if self.problem.max_kl < np.inf and (prior := self.problem.prior) is not None:
            with np.errstate(all="ignore"):
                log = np.where(prior > 0, np.log(h / prior), 0.0)
                each = np.where((prior > 0) & (h > 0), h * log, 0.0)
                curve = np.where(prior > 0, 1 / h, 0.0)
            g = np.r_[g, each.sum() - self.problem.max_kl]
            slopes = np.vstack([slopes, np.where(prior > 0, log + 1, 0.0)])
            if second:
                curves = np.concatenate([curves, np.diag(curve)[None]])
        return g, slopes, curves

    def names(self) -> list[str]:
        """The constraints, as users write them."""
        domains = self.problem.domains
        out = [f"loss of {domains[e]} <= {v:.6g}" for e, v in zip(self.ceilings, self.most, strict=True)]
        return [*out, f"divergence from the prior <= {self.problem.max_kl:.6g}"][
            : len(out) + (self.problem.max_kl < np.inf)
        ]

    # ---- for the interior-point method -----------------------------------------------------------------------

    def __call__(self, h: np.ndarray, barrier: float) -> Full:
        """All of it at one mixture and barrier weight."""
        if not self.corners and len(self.z) == 1:
            loss, slope, curve = (p[0] for p in self._parts(self.z, self.used, h, True))
            v = self.domain_caps
            value, gradient, hessian = float(v @ loss), v @ slope, np.tensordot(v, curve, 1)
        else:
            value, gradient, hessian = self._rounded(h, barrier)
        return Full(value, gradient, hessian, *self.constraints(h, True))

    def _rounded(self, h: np.ndarray, barrier: float) -> tuple[float, np.ndarray, np.ndarray]:
        losses, slopes = self.expanded(h)
        if not (np.isfinite(losses).all() and np.isfinite(slopes).all()):
            K = len(h)
            return np.nan, np.full(K, np.nan), np.full((K, K), np.nan)
        f, inner, bend = smoothed(losses, self.domain_caps, barrier)
        value, p, q = (x[0] for x in smoothed(f[None], self.draw_caps, barrier))
        by_draw = np.einsum("se,sek->sk", inner, slopes)
        hessian = _outer(by_draw, q)
        for s in np.flatnonzero(bend.any(1)):
            hessian += p[s] * _outer(slopes[s], bend[s])
        weights = p[:, None] * inner
        kept = np.flatnonzero(p > SLIGHT * p.max())
        at_once = max(1, int(LARGEST / (max(1, len(self.used)) * len(h) ** 2)))
        for i in range(0, len(kept), at_once):
            some = kept[i : i + at_once]
            curves = self._parts(self.z[some], self.used, h, True)[2]
            hessian += np.tensordot(weights[some], curves, 2)
        return float(value), p @ by_draw, hessian

    def expanded(self, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Losses (S, used) and their slopes (S, used, K)."""
        key = h.tobytes()
        if key != self._asked:  # the certificate asks several times for the same
            self._asked, self._answer = key, self._parts(self.z, self.used, h, False)[:2]
        return self._answer

    def _parts(
        self, z: np.ndarray, domains: np.ndarray, h: np.ndarray, second: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Losses (S, n), slopes (S, n, K) and, if asked, curvatures (S, n, K, K) of some domains under draws z."""
        law = self.at.fit.law
        groups = np.zeros(1, int) if law.coupled else domains
        x = self.at.inputs(h[None]).take(np.tile(groups, len(z)))
        flat = z[:, groups].reshape(len(z) * len(groups), -1)
        call = law.function.hessian if second else law.function.jacobian
        parts = call(flat, x, ("weights",))
        shape = (len(z), len(groups) if not law.coupled else -1)
        out = [p[:, 0].reshape(*shape, *p.shape[3:]) for p in parts]
        if law.coupled:
            out = [p[:, domains] for p in out]
        return (*out, np.empty(0))[:3]  # type: ignore[return-value]


def _outer(slopes: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Slopes' (diag(q) - q q' / sum(q)) slopes, (K, K)."""
    total = q.sum()
    if total <= 0:
        return np.zeros((slopes.shape[1],) * 2)
    centered = slopes - (q @ slopes) / total
    return (centered.T * q) @ centered
