"""The posterior of a `Spec` by NUTS, and its prior predictive."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.bayes import _arviz
from lawkit.bayes._axes import axes
from lawkit.bayes.density import prior_root
from lawkit.bayes.spec import ETA_SD, LOG_SIGMA, NU, GroupDraws, Spec
from lawkit.errors import FitError, LawkitError

if TYPE_CHECKING:
    from lawkit.bayes._samplers import Sampled


#: What draws are held to (Vehtari et al. 2021, arXiv:1903.08008): R-hat at most, effective draws at least.
_RHAT, _ESS_PER_CHAIN = 1.01, 100


def nuts(
    spec: Spec,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    seed: int = 0,
    progress: bool = True,
    target_accept: float = 0.9,
) -> tuple[GroupDraws, _arviz.Trace]:
    """Draws of the posterior by the No-U-Turn sampler: nutpie's where it is installed, else PyMC's own.

    Ctrl-C ends the sampling and keeps the chains that have at least 100 draws by then, all cut to the shortest; the
    warnings and `diagnostics['interrupted']` say so.

    Parameters
    ----------
    spec
        The posterior.
    draws, tune, chains
        Draws kept of each chain, and draws before them that adapt the sampler to the posterior.
    seed
        The same seed gives the same draws to the bit.
    progress
        Show a progress bar, if standard error is a terminal.
    target_accept
        Acceptance rate that the step size is tuned for: nearer to 1, smaller steps.

    Returns
    -------
    GroupDraws, Trace
        The draws, chain after chain; and the trace for ArviZ, see `lawkit.bayes._arviz.from_draws`.

    Raises
    ------
    FitError
        If PyMC is not installed, the sampler fails, or it is interrupted too early.

    References
    ----------
    Hoffman and Gelman 2014, The No-U-Turn Sampler, arXiv:1111.4246.
    """
    for name, value, least in (("draws", draws, 4), ("tune", tune, 1), ("chains", chains, 1)):
        if value < least:
            raise FitError(f"{name} must be at least {least}, got {value}")
    clock, cpu = time.perf_counter(), _cpu_seconds()
    around = axes(spec)
    try:
        from lawkit.bayes._samplers import sample

        sampled = sample(
            spec, around, draws, tune, chains, seed, target_accept, progress and sys.stderr.isatty()
        )
    except ImportError as error:
        raise FitError(
            f"sampling needs PyMC, which cannot be imported ({error}): {_arviz.INSTALL}, or use --posterior laplace"
        ) from None
    except LawkitError:
        raise
    except Exception as error:  # whatever a sampler may raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise FitError(
            f"sampling the posterior of {spec.name} failed: {text[:300]}; check the losses and the priors of law "
            f"{spec.law.name!r}, or use --posterior laplace"
        ) from error
    out, stats = _told(spec, sampled, around.root, {"tune": tune, "draws": draws, "chains": chains})
    out.diagnostics.update(cpu_seconds=_cpu_seconds() - cpu, seconds=time.perf_counter() - clock)
    trace = _arviz.from_draws(
        spec,
        out,
        chains=out.diagnostics["chains"],
        sample_stats=stats,
        attributes={"inference_library": sampled.sampler, "tuning_steps": tune},
    )
    return out, trace


def prior_predictive(spec: Spec, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """Log losses that the priors expect of these runs before any is seen; needs no PyMC.

    Parameters
    ----------
    spec
        The posterior whose priors are meant.
    draws
        How many tables to simulate.
    seed
        The same seed gives the same draws to the bit.

    Returns
    -------
    ndarray
        (draws, n, m); NaN where a law falls to zero and below.

    Examples
    --------
    >>> simulated = prior_predictive(spec)  # doctest: +SKIP
    >>> low, high = np.nanquantile(simulated, [0.005, 0.995], axis=0)  # doctest: +SKIP
    """
    rng = np.random.default_rng(seed)
    m, C = spec.log_losses.shape[1], spec.covariates.shape[1]
    z = spec.prior_mean + rng.standard_normal((draws, len(spec.prior_mean))) @ prior_root(spec).T
    log_scale = np.log(spec.spread) + rng.normal(*LOG_SIGMA, (draws, 1, m))
    log_scale = log_scale + np.einsum("nc,smc->snm", spec.covariates, rng.normal(0, ETA_SD, (draws, m, C)))
    nu = rng.gamma(NU[0], 1 / NU[1], (draws, 1, m))
    with np.errstate(all="ignore"):
        mean = np.concatenate(
            [np.log(spec.law.function.value(part, spec.inputs)) for part in np.array_split(z, 20)]
        )
        out = mean + np.exp(log_scale) * rng.standard_t(nu, mean.shape)
    return np.where(np.isfinite(out), out, np.nan)


# ---- what the diagnostics say -----------------------------------------------------------------------------


def _told(
    spec: Spec, sampled: Sampled, root: np.ndarray, asked: dict[str, int]
) -> tuple[GroupDraws, dict[str, np.ndarray]]:
    """The draws, chain after chain, with diagnostics and warnings; and what is known of each, (chains, draws)."""
    values, (chains, length) = sampled.values, sampled.diverging.shape
    z = spec.prior_mean + values["u"] @ root.T
    noise, nu = np.exp(values["log_noise"]), values["noise_nu"]
    eta = values.get("noise_slope", np.zeros((*noise.shape, 0)))
    numbers = [z, values["log_noise"], np.log(nu), eta.reshape(chains, length, -1)]
    found = _arviz.convergence(np.concatenate(numbers, -1))
    # NaN where a chain did not move at all.
    rhat, bulk, tail = (
        np.nan_to_num(v, nan=worst)
        for v, worst in ((found.rhat, np.inf), (found.ess_bulk, 0.0), (found.ess_tail, 0.0))
    )
    found = _arviz.Convergence(rhat=rhat, ess_bulk=bulk, ess_tail=tail)
    diagnostics = {
        "sampler": sampled.sampler,
        "chains": chains,
        "draws": length,
        "tune": asked["tune"],
        "max_rhat": float(rhat.max()),
        "min_ess_bulk": float(bulk.min()),
        "min_ess_tail": float(tail.min()),
        "divergences": int(sampled.diverging.sum()),
        "steps_per_draw": float(sampled.n_steps.mean()),
        "interrupted": sampled.interrupted,
    }
    flat = [v.reshape(chains * length, *v.shape[2:]) for v in (z, noise, nu, eta)]
    draws = GroupDraws(
        z=flat[0], noise=flat[1], nu=flat[2], eta=flat[3], diagnostics=diagnostics,
        warnings=_warnings(spec, diagnostics, found, asked),
    )  # fmt: skip
    return draws, {"diverging": sampled.diverging, "n_steps": sampled.n_steps}


def wanting(found: dict[str, Any]) -> bool:
    """Whether diagnostics miss what draws are asked for: chains that agree, enough effective draws, none diverged."""
    few = min(found["min_ess_bulk"], found["min_ess_tail"]) < _ESS_PER_CHAIN * found["chains"]
    return found["max_rhat"] > _RHAT or few or found["divergences"] > 0


def _warnings(
    spec: Spec, found: dict[str, Any], each: _arviz.Convergence, asked: dict[str, int]
) -> tuple[str, ...]:
    """The diagnostics in words, each with what to do."""
    out = []
    if found["interrupted"]:
        out.append(
            f"sampling {spec.name} was interrupted: {found['chains']} of {asked['chains']} chains are kept, with "
            f"{found['draws']:,} of {asked['draws']:,} draws each"
        )
    names = _names(spec)
    rhat = each.rhat
    if rhat.max() > _RHAT:
        out.append(
            f"the chains of {spec.name} disagree: R-hat is {rhat.max():.3f} for {names[rhat.argmax()]}, and should be "
            f"under {_RHAT}: choose a law with fewer parameters, or sample longer (lawkit.bayes.sample.nuts)"
        )
    for kind, size in (("bulk", each.ess_bulk), ("tail", each.ess_tail)):
        if size.min() < _ESS_PER_CHAIN * found["chains"]:
            out.append(
                f"the draws of {spec.name} are worth few independent ones: {kind} effective sample size "
                f"{size.min():.0f} for {names[size.argmin()]}, and should be {_ESS_PER_CHAIN * found['chains']} or "
                "more: choose a law with fewer parameters, or sample longer (lawkit.bayes.sample.nuts)"
            )
            break
    if found["divergences"]:
        out.append(
            f"{found['divergences']} of {found['chains'] * found['draws']:,} draws of {spec.name} diverged: parts of "
            "its posterior may be missing: choose a law with fewer parameters, or sample with target_accept nearer to "
            "1 (lawkit.bayes.sample.nuts)"
        )
    return tuple(out)


def _names(spec: Spec) -> list[str]:
    """Names of all numbers whose convergence is checked, in order."""
    n_sources, C = spec.inputs.weights.shape[1], spec.covariates.shape[1]
    sources = spec.sources or tuple(str(k + 1) for k in range(n_sources))
    out = []
    for p in spec.law.parameters:
        out += [f"{p.name}[{s}]" for s in sources] if p.per_source else [p.name]
    for name in ("the noise", "the noise's degrees of freedom"):
        out += [f"{name} of {d}" for d in spec.domains]
    return out + [f"the noise's slope {c + 1} of {d}" for d in spec.domains for c in range(C)]


def _cpu_seconds() -> float:
    """CPU seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])
