"""Everything that needs ArviZ, the same before and after its 1.0: convergence, traces and their files, PSIS-LOO.

A trace is an `arviz.InferenceData` before 1.0 and an `xarray.DataTree` from then on. Both hold groups of datasets under
`trace["posterior"]`, and both read and write the same netCDF.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lawkit.bayes.natural import coordinates, natural, variable_name
from lawkit.bayes.spec import GroupDraws, Spec
from lawkit.errors import FitError

#: `arviz.InferenceData` or `xarray.DataTree`.
Trace = Any

INSTALL = "pip install 'lawkit[bayes]'"


def arviz() -> Any:
    """The module, imported without its notice of changes to come.

    Raises
    ------
    FitError
        If it is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import arviz as az
        except ImportError:
            raise FitError(f"this needs ArviZ, which is not installed: {INSTALL}") from None
    return az


# ---- convergence ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """How well chains agree, for T numbers: (T,) R-hat (rank-normalised) and bulk and tail effective sample sizes."""

    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


def convergence(values: np.ndarray) -> Convergence:
    """Convergence of draws (chains, draws, T).

    References
    ----------
    Vehtari et al. 2021, Rank-normalization, folding, and localization: an improved R-hat, arXiv:1903.08008.
    """
    import xarray as xr

    az = arviz()
    each = xr.Dataset({"x": (("chain", "draw", "number"), np.asarray(values, float))})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Convergence(
            rhat=np.asarray(az.rhat(each)["x"].values),
            ess_bulk=np.asarray(az.ess(each, method="bulk")["x"].values),
            ess_tail=np.asarray(az.ess(each, method="tail")["x"].values),
        )


# ---- traces -----------------------------------------------------------------------------------------------


def from_draws(
    spec: Spec,
    draws: GroupDraws,
    *,
    chains: int = 1,
    sample_stats: Mapping[str, np.ndarray] | None = None,
    log_likelihood: np.ndarray | None = None,
    attributes: Mapping[str, str | float] | None = None,
) -> Trace:
    """A trace of draws, however they came about.

    Parameters
    ----------
    spec, draws
        What was drawn from, and S = chains x draws draws, chain by chain.
    chains
        How many chains they are of.
    sample_stats
        Of each draw, (chains, draws) each.
    log_likelihood
        (S, n, m) of each observed cell, see `lawkit.bayes.density.log_likelihood`.
    attributes
        Of the posterior, text or numbers.

    Returns
    -------
    Trace
        Groups `posterior`, `observed_data`, and `sample_stats` and `log_likelihood` where given. The posterior holds
        the law's parameters in natural units (see `lawkit.bayes.natural.variable_name`), `noise`, `noise_nu` and, where
        the noise has covariates, `noise_slope`. Its dimensions are chain, draw, `domain` (not for the parameters of a
        coupled law) and, for vectors, `source`; data lie on `obs_id` and `domain`.
    """

    coords = coordinates(spec)
    m, coupled = spec.log_losses.shape[1], spec.law.coupled

    def by_chain(values: np.ndarray) -> np.ndarray:
        return values.reshape(chains, len(values) // chains, *values.shape[1:])

    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    values = natural(spec.law, draws.z, spec.inputs.n_ref, spec.inputs.d_ref, spec.inputs.weights.shape[1])
    for name, value in values.items():
        dims = ("source",) if value.ndim == 2 else ()
        if not coupled:
            dims, value = ("domain", *dims), value[:, None]
        variables[variable_name(name)] = ("chain", "draw", *dims), by_chain(value)
    variables["noise"] = ("chain", "draw", "domain"), by_chain(draws.noise)
    variables["noise_nu"] = ("chain", "draw", "domain"), by_chain(draws.nu)
    if draws.eta.shape[2]:
        variables["noise_slope"] = ("chain", "draw", "domain", "covariate"), by_chain(draws.eta)
    observed = np.where(spec.live, spec.log_losses, np.nan)
    groups = {
        "posterior": _dataset(variables, coords),
        "observed_data": _dataset({"log_loss": (("obs_id", "domain"), observed)}, coords),
    }
    groups["posterior"].attrs.update(law=spec.law.name, **(attributes or {}))
    if sample_stats is not None:
        # Of each domain by itself, where each has a posterior of its own, so that traces can be combined.
        dims = ("chain", "draw") if coupled else ("chain", "draw", "domain")
        stats = {k: (dims, v if coupled else np.repeat(v[..., None], m, 2)) for k, v in sample_stats.items()}
        groups["sample_stats"] = _dataset(stats, coords)
    if log_likelihood is not None:
        where = ("chain", "draw", "obs_id", "domain")
        groups["log_likelihood"] = _dataset({"log_loss": (where, by_chain(log_likelihood))}, coords)
    for group in groups.values():
        group.attrs["created_by"] = "lawkit"
    return _trace(groups)


def combine(traces: Sequence[Trace]) -> Trace:
    """One trace of the traces of different domains, of equal chains and draws (the fewest that one has)."""
    import xarray as xr

    if len(traces) == 1:
        return traces[0]
    datasets = [_groups(t) for t in traces]
    least = {dim: min(d["posterior"].sizes[dim] for d in datasets) for dim in ("chain", "draw")}
    groups = {}
    for name in datasets[0]:
        parts = [d[name] for d in datasets]
        parts = [p.isel({dim: slice(count) for dim, count in least.items() if dim in p.dims}) for p in parts]
        groups[name] = xr.concat(
            parts, "domain", data_vars="minimal", coords="minimal", compat="override", join="exact",
            combine_attrs="drop_conflicts",
        )  # fmt: skip
    return _trace(groups)


def save(trace: Trace, path: str | Path) -> None:
    """Write a trace as netCDF, which `arviz.from_netcdf` of any version reads.

    Raises
    ------
    FitError
        If it cannot be written.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        for at, (name, dataset) in enumerate(_groups(trace).items()):
            packed = {v: {"zlib": True, "complevel": 4} for v in dataset.data_vars}
            dataset.to_netcdf(beside, mode="a" if at else "w", group=name, engine="h5netcdf", encoding=packed)
        beside.replace(path)
    except OSError as error:
        raise FitError(f"the posterior cannot be written to {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def load(path: str | Path) -> Trace:
    """Read a trace that `save` wrote, or ArviZ itself.

    Raises
    ------
    FitError
        If it cannot be read.
    """
    az = arviz()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return az.from_netcdf(str(path))
    except (OSError, ValueError) as error:
        raise FitError(f"the posterior in {path} cannot be read: {error}") from error


def _dataset(variables: Mapping[str, Any], coords: Mapping[str, Any]) -> Any:
    """A dataset with the labels of those dimensions that it has."""
    import xarray as xr

    out = xr.Dataset(dict(variables))
    counts = {dim: np.arange(out.sizes[dim]) for dim in ("chain", "draw") if dim in out.sizes}
    return out.assign_coords({**counts, **{dim: v for dim, v in coords.items() if dim in out.sizes}})


def _trace(groups: Mapping[str, Any]) -> Trace:
    az = arviz()
    if int(az.__version__.split(".")[0]) < 1:
        return az.InferenceData(**groups)
    import xarray as xr

    return xr.DataTree.from_dict(dict(groups))


def _groups(trace: Trace) -> dict[str, Any]:
    """Datasets of a trace by the names of its groups."""
    if hasattr(trace, "children"):
        return {name: node.to_dataset() for name, node in trace.children.items()}
    return {name: trace[name] for name in trace.groups()}


# ---- comparing laws ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Loo:
    """Expected log density of losses left out one by one, in nats (Pareto-smoothed importance sampling).

    Attributes
    ----------
    elpd, se
        Summed over N losses, and its standard error.
    p_loo
        Effective number of parameters.
    pareto_k, pointwise
        (N,) shape of the tail of each loss's importance weights (above .7 its estimate cannot be trusted), and its part
        of `elpd`.
    """

    elpd: float
    se: float
    p_loo: float
    pareto_k: np.ndarray
    pointwise: np.ndarray

    @property
    def max_pareto_k(self) -> float:
        return float(self.pareto_k.max())

    @property
    def unreliable_share(self) -> float:
        """Share of the losses with k above .7."""
        return float((self.pareto_k > 0.7).mean())


def loo(log_likelihood: np.ndarray, chains: int = 1) -> Loo:
    """PSIS-LOO of pointwise log likelihoods.

    Parameters
    ----------
    log_likelihood
        (S, N), S = chains x draws, chain by chain.
    chains
        How many chains the draws are of.

    References
    ----------
    Vehtari, Gelman and Gabry 2017, Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC,
    arXiv:1507.04544.
    """

    az = arviz()
    by_chain = log_likelihood.reshape(chains, -1, log_likelihood.shape[1])
    likelihood = np.exp(log_likelihood - log_likelihood.max(0)).reshape(by_chain.shape)
    # Of the quantity that is averaged, the likelihood, as the posterior's own variables are not known here.
    ess = convergence(likelihood).ess_bulk / len(log_likelihood)
    usable = ess[np.isfinite(ess)]
    trace = _trace(
        {
            "posterior": _dataset({"x": (("chain", "draw"), by_chain[..., 0])}, {}),
            "log_likelihood": _dataset({"y": (("chain", "draw", "obs_id"), by_chain)}, {}),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = az.loo(
            trace, pointwise=True, reff=float(np.clip(usable.mean(), 0, 1)) if len(usable) else 1.0
        )

    def named(*names: str) -> Any:  # before 1.0, since 1.0
        return next(getattr(found, n) for n in names if hasattr(found, n))

    return Loo(
        elpd=float(named("elpd_loo", "elpd")),
        se=float(found.se),
        p_loo=float(named("p_loo", "p")),
        pareto_k=np.asarray(found.pareto_k.values, float),
        pointwise=np.asarray(named("loo_i", "elpd_i").values, float),
    )


def stacking_weights(pointwise: Sequence[np.ndarray]) -> np.ndarray:
    """Weights (M,) of M laws whose mixture predicts best what was left out.

    Parameters
    ----------
    pointwise
        Of each law, (N,) log densities of the same losses left out.

    References
    ----------
    Yao et al. 2018, Using Stacking to Average Bayesian Predictive Distributions, arXiv:1704.02030.
    """
    log_density = np.stack(list(pointwise), 1)
    density = np.exp(log_density - log_density.max(1, keepdims=True))  # (N, M)
    weights = np.full(density.shape[1], 1.0 / density.shape[1])
    # Expectation maximisation: each step raises the mean log density of the mixture, which is concave in the weights.
    for _ in range(20_000):
        gain = (density / (density @ weights)[:, None]).mean(0)
        weights = weights * gain
        if gain.max() < 1 + 1e-8:  # the best weights gain at most the log of it
            break
    return weights / weights.sum()
