"""The log posterior of a `Spec` and its exact derivatives, in coordinates in which the prior is (nearly) standard.

The unknowns theta = (z (P), log sigma (m), log nu (m), eta (m x C)) are written as theta = centre + root u: z, log
sigma and eta then have a standard normal prior in u, so that priors which tie parameters together (correlations of
.9999 in the transfer laws) are no numerical problem, and a unit step means the same in all directions.
"""

from __future__ import annotations

from dataclasses import replace
from math import lgamma

import numpy as np

from lawkit.bayes.spec import ETA_SD, LOG_SIGMA, NU, GroupDraws, Spec
from lawkit.errors import FitError
from lawkit.fitting.solver import tame

#: Numbers in an array of one evaluation of the law, so that it stays in a core's cache.
_CHUNK = 2**16
#: The same with first derivatives.
_SLOPES_CHUNK = 2**17
#: Numbers in the second derivatives of one pass, where they are needed row by row.
_CURVATURE_CHUNK = 2**22
#: Mode of the prior of log nu, and its width by the curvature there.
_LOG_NU = (float(np.log(NU[0] / NU[1])), NU[0] ** -0.5)


class LogPosterior:
    """Log posterior density, with respect to theta, as a function of u.

    Parameters
    ----------
    spec
        The posterior.

    Attributes
    ----------
    size
        T = P + m (2 + C), the length of u.
    root
        (P, P) lower Cholesky factor of the prior covariance of z.
    """

    def __init__(self, spec: Spec):
        self.spec = spec
        self.P, self.m, self.C = len(spec.start), spec.log_losses.shape[1], spec.covariates.shape[1]
        self.size = self.P + self.m * (2 + self.C)
        self.root = prior_root(spec)
        normals = self.P + self.m * (1 + self.C)
        scales = np.log(np.diag(self.root)).sum() + self.m * (np.log(LOG_SIGMA[1]) + self.C * np.log(ETA_SD))
        gamma = NU[0] * np.log(NU[1]) - lgamma(NU[0])
        self._constant = float(self.m * gamma - scales - 0.5 * normals * np.log(2 * np.pi))

    # ---- coordinates --------------------------------------------------------------------------------------

    def draws(self, u: np.ndarray) -> GroupDraws:
        """The unknowns that u (S, T) stands for."""
        P, m = self.P, self.m
        with np.errstate(over="ignore"):
            return GroupDraws(
                z=self.spec.prior_mean + u[:, :P] @ self.root.T,
                noise=np.exp(LOG_SIGMA[0] + LOG_SIGMA[1] * u[:, P : P + m]),
                nu=np.exp(_LOG_NU[0] + _LOG_NU[1] * u[:, P + m : P + 2 * m]),
                eta=ETA_SD * u[:, P + 2 * m :].reshape(len(u), m, self.C),
            )

    def coordinates(self, draws: GroupDraws) -> np.ndarray:
        """Coordinates u (S, T) of unknowns; the inverse of `draws`."""
        from scipy.linalg import solve_triangular

        u = solve_triangular(self.root, (draws.z - self.spec.prior_mean).T, lower=True).T
        sigma = (np.log(draws.noise) - LOG_SIGMA[0]) / LOG_SIGMA[1]
        nu = (np.log(draws.nu) - _LOG_NU[0]) / _LOG_NU[1]
        return np.concatenate([u, sigma, nu, draws.eta.reshape(len(u), -1) / ETA_SD], 1)

    def start(self) -> np.ndarray:
        """Coordinates u (T,) of the point fit and its noise, nu at its prior's mode, the noise without slopes."""
        spec = self.spec
        # Losses without noise come from formulas; a start as far out as theirs would take long to leave.
        noise = np.maximum(spec.start_noise, np.exp(LOG_SIGMA[0] - 6 * LOG_SIGMA[1]))
        nu, eta = np.full((1, self.m), np.exp(_LOG_NU[0])), np.zeros((1, self.m, self.C))
        return self.coordinates(GroupDraws(z=spec.start[None], noise=noise[None], nu=nu, eta=eta))[0]

    # ---- values and first derivatives ---------------------------------------------------------------------

    def value(self, u: np.ndarray) -> np.ndarray:
        """(S,) log densities at u (S, T); -infinity where the law gives no positive finite loss."""
        out = np.empty(len(u))
        step = chunk(self.spec)
        for at in range(0, len(u), step):
            part = u[at : at + step]
            draws = self.draws(part)
            log_scale, r = residuals(self.spec, draws)
            with np.errstate(all="ignore"):
                out[at : at + step] = self._value(part, draws, log_scale, np.log1p(r * r / draws.nu[:, None]))
        return np.where(np.isfinite(out), out, -np.inf)

    def _value(self, u: np.ndarray, draws: GroupDraws, log_scale: np.ndarray, tail: np.ndarray) -> np.ndarray:
        """(S,) log densities, where tail = log(1 + r^2 / nu), (S, n, m)."""
        nu, counts = draws.nu, self.spec.counts
        cells = np.einsum("snm,nm->s", log_scale + (0.5 * (nu + 1))[:, None] * tail, counts)
        normal = u.copy()
        normal[:, self.P + self.m : self.P + 2 * self.m] = 0.0
        prior = (NU[0] * np.log(nu) - NU[1] * nu).sum(1) - 0.5 * (normal * normal).sum(1) + self._constant
        return student_level(nu) @ counts.sum(0) - cells + prior

    def gradient(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log densities (S,) and their derivatives (S, T) at u (S, T); -infinity and 0 where one is not finite."""
        spec, P, m = self.spec, self.P, self.m
        value, slope = np.empty(len(u)), -u
        nus = slice(P + m, P + 2 * m)
        step = max(1, _SLOPES_CHUNK // (spec.log_losses.size * P))
        for at in range(0, len(u), step):
            part, out = u[at : at + step], slope[at : at + step]
            draws = self.draws(part)
            nu = draws.nu
            losses, jacobian = spec.law.function.jacobian(draws.z, spec.inputs)
            if not np.isfinite(
                jacobian.sum()
            ):  # where a law is finite but its slope is not, it is taken as flat
                jacobian = tame(jacobian)
            log_scale, r = residuals(spec, draws, losses)
            with np.errstate(all="ignore"):
                by_mean, by_scale, by_nu, tail = self._slopes(nu, log_scale, r)
                value[at : at + step] = self._value(part, draws, log_scale, tail)
                pull = np.where(by_mean != 0, by_mean / losses, 0.0).reshape(len(part), 1, -1)
                out[:, :P] += (pull @ jacobian.reshape(len(part), -1, P))[:, 0] @ self.root
                out[:, P : P + m] += LOG_SIGMA[1] * by_scale.sum(1)
                out[:, nus] = _LOG_NU[1] * (nu * by_nu + NU[0] - NU[1] * nu)
                if self.C:
                    by_eta = np.einsum("snm,nc->smc", by_scale, spec.covariates)
                    out[:, P + 2 * m :] += ETA_SD * by_eta.reshape(len(part), -1)
        good = np.isfinite(value) & np.isfinite(slope).all(1)
        return np.where(good, value, -np.inf), np.where(good[:, None], slope, 0.0)

    def _slopes(
        self, nu: np.ndarray, log_scale: np.ndarray, r: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of the cells' log densities by their mean and log scale, (S, n, m) each, and summed over cells
        by nu, (S, m); and log(1 + r^2 / nu), (S, n, m).
        """
        from scipy.special import digamma

        counts, cell_nu = self.spec.counts, nu[:, None]
        tail = np.log1p(r * r / cell_nu)
        t = (cell_nu + 1) * r / (cell_nu + r * r)
        level = digamma(0.5 * (nu + 1)) - digamma(0.5 * nu) - 1 / nu
        by_nu = 0.5 * (counts.sum(0) * level + (counts * (t * r / cell_nu - tail)).sum(1))
        return counts * t * np.exp(-log_scale), counts * (t * r - 1), by_nu, tail

    # ---- second derivatives -------------------------------------------------------------------------------

    @np.errstate(all="ignore")  # residuals of 1e150 overflow where a law is followed far out
    def hessian(self, u: np.ndarray, exact: bool = True) -> np.ndarray:
        """Second derivatives (T, T) at one u (T,); those of the law itself are left out unless `exact`."""
        from scipy.special import polygamma

        spec, P, m, C = self.spec, self.P, self.m, self.C
        draws, counts = self.draws(u[None]), spec.counts
        losses, jacobian = spec.law.function.jacobian(draws.z, spec.inputs)
        log_scale, r = residuals(spec, draws, losses)
        by_mean, _, by_nu, _ = (v[0] for v in self._slopes(draws.nu, log_scale, r))
        nu, r, scale = draws.nu[0], r[0], np.exp(log_scale[0])
        with np.errstate(all="ignore"):
            slope = np.where(spec.live[..., None], jacobian[0] / losses[0][..., None], 0.0)
        slope = tame(slope) @ self.root  # (n, m, P)
        # Of a cell's log density by its mean, log scale and nu.
        q = r * r
        s = nu + q
        mean_mean = -counts * (nu + 1) * (nu - q) / (s * scale) ** 2
        mean_scale = -counts * 2 * (nu + 1) * nu * r / (s * s * scale)
        scale_scale = -counts * 2 * (nu + 1) * nu * q / s**2
        mean_nu = counts * r * (q - 1) / (s * s * scale)
        scale_nu = counts * q * (q - 1) / s**2
        bend = 1 / (nu * s) + (nu * s - (nu + 1) * (2 * nu + q)) / (nu * s) ** 2
        level = 0.25 * (polygamma(1, 0.5 * (nu + 1)) - polygamma(1, 0.5 * nu)) + 0.5 / nu**2
        nu_nu = counts.sum(0) * level + 0.5 * (counts * q * bend).sum(0)

        out = -np.eye(self.size)
        flat = slope.reshape(-1, P)
        out[:P, :P] += flat.T @ (flat * (mean_mean - by_mean).reshape(-1, 1))  # of log losses: - slope^2
        if exact:
            out[:P, :P] += self._curvature(draws.z, by_mean, losses[0])
        # A cell's log scale moves by `lever` with log sigma and eta, (n, 1 + C).
        lever = np.concatenate([np.full((len(r), 1), LOG_SIGMA[1]), ETA_SD * spec.covariates], 1)
        for e in range(m):
            noise = np.r_[P + e, P + 2 * m + e * C : P + 2 * m + (e + 1) * C]
            at, width = P + m + e, _LOG_NU[1] * nu[e]
            out[at, at] = _LOG_NU[1] ** 2 * (nu[e] * (nu[e] * nu_nu[e] + by_nu[e]) - NU[1] * nu[e])
            out[np.ix_(noise, noise)] += lever.T @ (lever * scale_scale[:, e, None])
            for rows, columns, block in (
                (np.arange(P), noise, slope[:, e].T @ (lever * mean_scale[:, e, None])),
                (np.arange(P), [at], width * slope[:, e].T @ mean_nu[:, [e]]),
                (noise, [at], width * lever.T @ scale_nu[:, [e]]),
            ):
                out[np.ix_(rows, columns)] += block
                out[np.ix_(columns, rows)] += block.T
        return out

    def _curvature(self, z: np.ndarray, by_mean: np.ndarray, losses: np.ndarray) -> np.ndarray:
        """(P, P) what the law's own second derivatives add, in u."""
        spec, function = self.spec, self.spec.law.function
        with np.errstate(all="ignore"):
            multipliers = np.where(by_mean != 0, by_mean / losses, 0.0)[None]
        step = len(by_mean)
        if not function.cheap_curvature:
            step = max(1, _CURVATURE_CHUNK // (self.m * (self.P + 1) ** 2))
        total = np.zeros((self.P, self.P))
        for at in range(0, len(by_mean), step):
            rows = slice(at, at + step)
            total += function.curvature(z, spec.inputs.rows(rows), multipliers[:, rows])[0]
        return self.root.T @ tame(total) @ self.root


def prior_root(spec: Spec) -> np.ndarray:
    """Lower Cholesky factor (P, P) of the prior covariance of z.

    Raises
    ------
    FitError
        If that is not positive definite.
    """
    try:
        return np.linalg.cholesky(spec.prior_covariance)
    except np.linalg.LinAlgError:
        least = float(np.linalg.eigvalsh(np.nan_to_num(spec.prior_covariance)).min())
        raise FitError(
            f"the prior covariance of law {spec.law.name!r} is not positive definite (smallest eigenvalue "
            f"{least:.3g}): correct the law's prior"
        ) from None


def log_likelihood(spec: Spec, draws: GroupDraws) -> np.ndarray:
    """Log density of each observed cell under each draw, as leave-one-out cross-validation needs it.

    Parameters
    ----------
    spec
        The posterior.
    draws
        S draws of it.

    Returns
    -------
    ndarray
        (S, n, m); `counts` are not applied; NaN where not live.
    """
    out = np.empty((len(draws.z), *spec.log_losses.shape))
    step = chunk(spec)
    for at in range(0, len(out), step):
        some = slice(at, at + step)
        part = replace(draws, **{k: getattr(draws, k)[some] for k in ("z", "noise", "nu", "eta")})
        nu = part.nu[:, None]
        log_scale, r = residuals(spec, part)
        out[some] = student_level(nu) - log_scale - 0.5 * (nu + 1) * np.log1p(r * r / nu)
    out[:, ~spec.live] = np.nan
    return out


def chunk(spec: Spec) -> int:
    """How many draws to evaluate at once."""
    return max(1, _CHUNK // (spec.log_losses.size * max(1, spec.inputs.weights.shape[-1])))


def student_level(nu: np.ndarray) -> np.ndarray:
    """Log density of Student's t with scale 1 at its centre."""
    from scipy.special import gammaln

    return gammaln(0.5 * (nu + 1)) - gammaln(0.5 * nu) - 0.5 * np.log(np.pi * nu)


def residuals(
    spec: Spec, draws: GroupDraws, losses: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log scale of each cell's noise, and log residuals in its units (0 where not live), (S, n, m) each.

    `losses` (S, n, m) are the law's under the draws, if they are known already.
    """
    if losses is None:
        losses = spec.law.function.value(draws.z, spec.inputs)
    with np.errstate(all="ignore"):
        log_scale = np.log(spec.spread) + np.log(draws.noise)[:, None]
        if spec.covariates.shape[1]:
            log_scale = log_scale + np.einsum("nc,smc->snm", spec.covariates, draws.eta)
        r = (spec.log_losses - np.log(losses)) * np.exp(-log_scale)
    return log_scale, r if spec.live.all() else np.where(spec.live, r, 0.0)
