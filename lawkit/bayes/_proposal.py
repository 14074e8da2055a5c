"""The normal distribution at a mode, bent to follow the posterior's valleys: proposals for importance resampling.

In axes x in which the normal is standard, from the direction the posterior is least sure of to the one it is surest
of, each coordinate is shifted by a quadratic form of the coordinates before it, scaled by an exponential of a linear
form of them, and skewed. The map is triangular, hence its density is known; its coefficients are the third
derivatives of the log posterior, so that it matches the posterior to third order at the mode.
"""

from __future__ import annotations

import numpy as np

from lawkit.bayes.density import LogPosterior

#: Standard deviations over which third derivatives are taken, by differences of Hessians.
_STEP = 0.3
#: Scales stay within a factor of e of the normal's, however far a draw is out; skewness within these bounds.
_MOST_SCALE, _MOST_SKEW = 1.0, 0.8


class Normal:
    """The normal distribution with the posterior's curvature at a point.

    Parameters
    ----------
    centre
        (T,) where it stands.
    hessian
        (T, T) of the log posterior there; directions in which it curves upwards or not at all get the prior's
        curvature, about 1.
    """

    def __init__(self, centre: np.ndarray, hessian: np.ndarray):
        values, vectors = np.linalg.eigh(-hessian)
        self.centre = centre
        self.axes = vectors / np.sqrt(np.where(values > 0.1, values, 1.0))  # (T, T), least sure first

    def sample(self, standard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draws u (S, T) made of standard normal ones (S, T), and their log densities up to a constant."""
        return self.centre + standard @ self.axes.T, -0.5 * (standard * standard).sum(1)


class Warped(Normal):
    """The normal, warped as the module says."""

    def __init__(self, posterior: LogPosterior, normal: Normal):
        self.centre, self.axes = normal.centre, normal.axes
        size = len(self.centre)
        third = np.empty((size, size, size))
        for i, axis in enumerate(self.axes.T):
            ahead, behind = (posterior.hessian(self.centre + step * axis) for step in (_STEP, -_STEP))
            third[i] = self.axes.T @ (ahead - behind) @ self.axes / (2 * _STEP)
        third = (
            third + np.moveaxis(third, 0, 1) + np.moveaxis(third, 0, 2)
        ) / 3  # symmetric but for the step
        self._shift = [0.5 * third[i, :i, :i] for i in range(size)]
        self._scale = [0.5 * third[i, i, :i] for i in range(size)]
        self._skew = np.clip(np.einsum("iii->i", third) / 3, -_MOST_SKEW, _MOST_SKEW)

    def sample(self, standard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Normal.sample`; draws that overflow have the log density NaN."""
        x = np.empty_like(standard)
        log_density = -0.5 * (standard * standard).sum(1)
        with np.errstate(all="ignore"):
            for i, (shift, scale, skew) in enumerate(zip(self._shift, self._scale, self._skew, strict=True)):
                before, own = x[:, :i], standard[:, i]
                # sinh(arcsinh(own) + skew): tails stay linear, and the mode stays where it is.
                root = np.sqrt(1 + own * own)
                skewed = own * np.cosh(skew) + root * np.sinh(skew)
                log_scale = _MOST_SCALE * np.tanh(before @ scale / _MOST_SCALE)
                x[:, i] = skewed * np.exp(log_scale) + ((before @ shift) * before).sum(1)
                log_density -= log_scale + np.log(np.cosh(skew) + own * np.sinh(skew) / root)
            return self.centre + x @ self.axes.T, np.where(np.isfinite(x).all(1), log_density, np.nan)
