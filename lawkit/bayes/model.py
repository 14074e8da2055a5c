"""The PyMC model of a `Spec`; needs PyMC (`pip install 'lawkit[bayes]'`)."""

# PyTensor re-exports its names without saying so.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.bayes import _arviz
from lawkit.bayes._axes import Axes, axes, bends, level_runs, sheared
from lawkit.bayes.natural import coordinates, natural, variable_name
from lawkit.bayes.spec import ETA_SD, LOG_SIGMA, NU, Spec

if TYPE_CHECKING:
    import pymc as pm


def build(spec: Spec, around: Axes | None = None) -> pm.Model:
    """The posterior of `spec` as a PyMC model.

    Parameters
    ----------
    spec
        The posterior.
    around
        Its `axes`, where they are known.

    Returns
    -------
    pm.Model
        Free are `u` (P,), of which the parameters are z = prior_mean + root u (see `Axes`); `log_noise` (m,);
        `noise_nu` (m,); and, where the noise has covariates, `noise_slope` (m, C). Deterministic are `noise` (m,) and
        the law's parameters in natural units by their names (see `variable_name`), vectors over the dimension
        `source`. Observed is `log_loss` (n, m); where cells count less than 1, their log densities are multiplied by
        their counts, and simulated losses do not depend on these.

    Examples
    --------
    >>> import pymc as pm  # doctest: +SKIP
    >>> with build(spec):  # doctest: +SKIP
    ...     trace = pm.sample()
    """
    _arviz.arviz()  # before PyMC imports it, and lets its notices through
    import pymc as pm
    import pytensor.tensor as pt

    from lawkit.bayes.graph import functions, log_loss

    n_sources = spec.inputs.weights.shape[1]
    with pm.Model(coords=coordinates(spec), check_bounds=False) as model:
        given = {name: pm.Data(name, value) for name, value in data(spec, around or axes(spec)).items()}
        fixed = {name: pt.specify_shape(v, v.get_value().shape) for name, v in given.items()}

        u = _straightened(spec, fixed) if bends(spec) else pm.Normal("u", 0.0, fixed["prior_sd"])
        z = fixed["prior_mean"] + pt.dot(fixed["prior_root"], u)
        values = natural(spec.law, z, spec.inputs.n_ref, spec.inputs.d_ref, n_sources, functions())
        for name, value in values.items():
            pm.Deterministic(variable_name(name), value, dims="source" if value.ndim else None)
        log_noise = pm.Normal("log_noise", *LOG_SIGMA, dims="domain")
        pm.Deterministic("noise", pt.exp(log_noise), dims="domain")
        nu = pm.Gamma("noise_nu", *NU, dims="domain")
        log_scale = fixed["log_spread"] + log_noise
        if spec.covariates.shape[1]:
            slopes = pm.Normal("noise_slope", 0.0, ETA_SD, dims=("domain", "covariate"))
            log_scale = log_scale + pt.dot(spec.covariates, slopes.T)
        parts = (nu, log_loss(spec.law, z, spec.inputs), pt.exp(log_scale))
        observed: dict[str, Any] = {"observed": given["log_losses"], "dims": ("obs_id", "domain")}
        if "counts" in given:
            pm.CustomDist("log_loss", *parts, fixed["counts"], dist=_student, logp=_weighted, **observed)
        else:
            pm.StudentT("log_loss", nu=parts[0], mu=parts[1], sigma=parts[2], **observed)
    return model


def data(spec: Spec, around: Axes) -> dict[str, np.ndarray]:
    """The model's data containers: all in which specs of one law and one table differ."""
    out = {
        "prior_mean": spec.prior_mean,
        "prior_root": around.root,
        "prior_sd": around.sd,
        "log_losses": spec.log_losses,
        "log_spread": np.log(spec.spread),
        "counts": spec.counts,
    }
    if (spec.counts == 1).all():
        del out["counts"]
    if bends(spec):
        out |= {name: getattr(around, name) for name in ("at", "along", "across", "level")}
    return {name: np.ascontiguousarray(value, float) for name, value in out.items()}


def _straightened(spec: Spec, fixed: dict[str, Any]) -> Any:
    """`u` as a function of `v`, which has the distribution that makes u normal; see `lawkit.bayes._axes`."""
    import pymc as pm
    import pytensor.tensor as pt

    from lawkit.bayes.graph import log_loss

    few = level_runs(spec)
    names = ("prior_sd", "prior_mean", "prior_root", "at", "along", "across", "level")

    def shear(value: Any, sign: int, *parts: Any) -> Any:
        given = dict(zip(names, parts, strict=True))

        def level(u: Any) -> Any:
            return log_loss(spec.law, given["prior_mean"] + pt.dot(given["prior_root"], u), few).mean()

        return sheared(value, level, given, sign)

    parts = [fixed[name] for name in names]
    v = pm.CustomDist(
        "v",
        *parts,
        dist=lambda *p: shear(pm.Normal.dist(0.0, p[0], shape=len(spec.start)), 1, *p[:-1]),
        logp=lambda value, *p: pm.logp(pm.Normal.dist(0.0, p[0]), shear(value, -1, *p)).sum(),
        signature="(p),(p),(p,p),(p),(p),(p),()->(p)",
    )
    return pm.Deterministic("u", shear(v, -1, *parts))


def _student(nu: Any, mu: Any, sigma: Any, counts: Any, size: Any) -> Any:
    import pymc as pm

    return pm.StudentT.dist(nu=nu, mu=mu, sigma=sigma, size=size)


def _weighted(value: Any, nu: Any, mu: Any, sigma: Any, counts: Any) -> Any:
    import pymc as pm

    return counts * pm.logp(pm.StudentT.dist(nu=nu, mu=mu, sigma=sigma), value)
