"""Laplace's approximation of a posterior, corrected by importance resampling; numpy only, tenths of a second.

Newton's method finds the mode in coordinates in which the prior is standard. There the noise is corrected for the
parameters that were fitted, as restricted maximum likelihood does: at the joint mode it is too small. The normal with
the curvature found there is warped by the third derivatives, and its draws are resampled by Pareto-smoothed weights.
Where the weights are too uneven for that they are raised to a power below 1, which goes part of the way from the
approximation to the posterior; Pareto's k and a warning say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lawkit.bayes._importance import affordable_power, effective, pareto_smoothed, resampled
from lawkit.bayes._proposal import Normal, Warped
from lawkit.bayes.density import LogPosterior, residuals
from lawkit.bayes.spec import GroupDraws, Spec
from lawkit.errors import DrawsError, FitError

#: Damping, added to the curvature, of the steps that are tried at once.
_DAMPING = np.r_[0.0, 10.0 ** np.arange(-2, 9, 0.5)]
_MOST_STEPS = 400
#: Newton's method ends where a step promises less than this, in nats.
_TOLERANCE = 1e-8
#: Up to this many unknowns third derivatives are worth their time.
_WARP_UP_TO = 30
#: Resampled draws are worth at least this share of as many independent ones.
_LEAST_SHARE = 0.25
#: Pareto's k from which on weighted means are not to be trusted.
_GOOD_K = 0.7
#: Twice the nats that draws lie under the mode may exceed their usual number by this much for each run: the draws then
#: miss the runs by more than twice the noise, and are not of this posterior.
_ASTRAY = 3.0
#: Standard deviations from which on a prior and the losses contradict each other.
_EXCLUDED = 12.0
#: Nats by which a fit is worse than the point fit where a prior holds it.
_HELD = 32.0
#: What losses lose in nats by a prior that excludes them, each: their residuals are larger by a factor of e^(1/2).
_WORSE = 0.5

_TO_NATURAL: dict[str, Callable[[float], float]] = {
    "positive": lambda z: float(np.exp(np.clip(z, -700, 700))),
    "real": float,
    "unit": lambda z: float(1 / (1 + np.exp(-np.clip(z, -700, 700)))),
}


def laplace(spec: Spec, draws: int = 4000, seed: int = 0) -> GroupDraws:
    """Draws of the posterior by Laplace's approximation and importance resampling.

    Parameters
    ----------
    spec
        The posterior.
    draws
        How many draws; they are equally likely, and some may occur more than once.
    seed
        The same seed gives the same draws to the bit.

    Returns
    -------
    GroupDraws
        `diagnostics`: 'pareto_k' of the importance weights, 'weight_power' they were raised to (1: in full),
        'effective_draws', 'newton_steps', 'effective_parameters' that the runs determine, and 'warped'.

    Raises
    ------
    FitError
        If the posterior is not finite at the point fit, or the prior excludes the losses.
    DrawsError
        If the posterior is so far from a normal that the draws contradict the runs.

    Examples
    --------
    >>> laplace(spec, draws=1000).diagnostics["pareto_k"] < 0.7  # doctest: +SKIP
    True

    References
    ----------
    Tierney and Kadane 1986, Accurate approximations for posterior moments and marginal densities; Vehtari et al.
    2024, arXiv:1507.02646.
    """
    if draws < 1:
        raise FitError(f"draws must be at least 1, got {draws}")
    posterior = LogPosterior(spec)
    start = posterior.start()
    if not np.isfinite(posterior.value(start[None])[0]):
        raise FitError(
            f"law {spec.law.name!r} has no finite posterior at its point fit to {spec.name} ({_values(spec)}): "
            "check the losses, or choose another law"
        )
    joint, steps, arrived = mode(posterior, start)
    refuse_contradiction(posterior, start, joint)
    tilt = effective_parameters(posterior, joint)
    centre, more, arrived_again = mode(posterior, joint, tilt)
    normal = Normal(centre, posterior.hessian(centre))
    u, diagnostics = _resample(posterior, normal, draws, np.random.default_rng(seed))
    _refuse_astray(posterior, centre, u)
    diagnostics |= {"newton_steps": steps + more, "effective_parameters": float(tilt.sum())}
    warnings = _warnings(spec, diagnostics, arrived and arrived_again)
    out = posterior.draws(u)
    return replace(out, diagnostics=diagnostics, warnings=warnings)


def _warnings(spec: Spec, found: dict[str, Any], arrived: bool) -> tuple[str, ...]:
    out = []
    if not arrived:
        out.append(
            f"the mode of the posterior of {spec.name} was not found in {_MOST_STEPS} steps: do not trust its draws, "
            "sample with --posterior nuts"
        )
    k, power = found["pareto_k"], found["weight_power"]
    if k > _GOOD_K or power < 1:
        how = f"Pareto k {k:.3g}, good up to {_GOOD_K}" + (
            f"; corrected in part only, by weights to the power {power:.2g}" if power < 0.995 else ""
        )
        out.append(
            f"Laplace's approximation of the posterior of {spec.name} by law {spec.law.name} is rough ({how}): its "
            "intervals may be too narrow, too wide or off centre; sample with --posterior nuts where they matter"
        )
    return tuple(out)


# ---- the mode ---------------------------------------------------------------------------------------------


def mode(
    posterior: LogPosterior, u: np.ndarray, tilt: np.ndarray | None = None
) -> tuple[np.ndarray, int, bool]:
    """The mode of the log posterior plus tilt . u, by damped Newton's method.

    Where the Hessian is indefinite, the absolute values of its eigenvalues stand in for them, so that saddles repel.
    Damping by a multiple of the identity shortens steps in the directions that the posterior is least sure of, which
    is where its valleys bend; all dampings are tried at once.

    Parameters
    ----------
    posterior
        The density.
    u
        (T,) where to start; finite.
    tilt
        (T,); 0 by default.

    Returns
    -------
    u (T,), number of steps, whether the last step promised nothing more
    """
    tilt = np.zeros(len(u)) if tilt is None else tilt
    best = posterior.value(u[None])[0] + tilt @ u
    # Second derivatives of some laws are dear: until they are needed, do without.
    exact = posterior.spec.law.function.cheap_curvature
    for step in range(_MOST_STEPS):
        gradient = posterior.gradient(u[None])[1][0] + tilt
        values, vectors = np.linalg.eigh(-posterior.hessian(u, exact))
        values = np.maximum(np.abs(values), 0.1)
        pull = vectors.T @ gradient
        promise = (pull * pull / values).sum()
        trials = u + (pull / (values + _DAMPING[:, None])) @ vectors.T
        reached = posterior.value(trials) + trials @ tilt
        first = int(reached.argmax())
        gain = reached[first] - best
        if gain > 0:
            u, best = trials[first], reached[first]
        if promise < _TOLERANCE:
            return u, step, True
        if not exact and (gain < 0.1 or promise < 0.1):
            exact = True
        elif not gain > 0:
            return u, step, bool(promise < 1e-4)  # rounding ends it, or nothing does
    return u, _MOST_STEPS, False


def effective_parameters(posterior: LogPosterior, u: np.ndarray) -> np.ndarray:
    """(T,) how many parameters the runs determine at a mode, in the place of each domain's log sigma; 0 elsewhere.

    Given sigma, the volume of the parameters' posterior grows with sigma to the power of their number p, so the density
    of sigma by itself is sigma^p higher than along the joint mode.
    """
    spec, P, m = posterior.spec, posterior.P, posterior.m
    drawn = posterior.draws(u[None])
    losses, jacobian = spec.law.function.jacobian(drawn.z, spec.inputs)
    log_scale, _ = residuals(spec, drawn, losses)
    with np.errstate(all="ignore"):
        slope = np.where(spec.live[..., None], jacobian[0] / losses[0][..., None], 0.0)
    slope = np.where(np.isfinite(slope), slope, 0.0) @ posterior.root
    nu = drawn.nu[0]
    information = spec.counts * (nu + 1) / (nu + 3) * np.exp(-2 * log_scale[0])
    axes = Normal(
        u[:P], posterior.hessian(u)[:P, :P]
    ).axes  # the covariance of z under this noise is axes @ axes.T
    tilt = np.zeros(posterior.size)
    tilt[P : P + m] = (((slope @ axes) ** 2).sum(2) * information).sum(0)
    # Where runs are outliers, the expected information exceeds what they say.
    return tilt * min(1.0, P / max(tilt.sum(), 1e-300))


# ---- draws ------------------------------------------------------------------------------------------------


def _resample(
    posterior: LogPosterior, normal: Normal, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, Any]]:
    """Coordinates u (draws, T), and how they came about.

    Of the warped and the plain normal, the one with the evener weights is taken; the plain one is only tried where the
    warped one does not do.
    """
    standard = rng.standard_normal((draws, posterior.size))
    cheap = posterior.size <= _WARP_UP_TO and posterior.spec.law.function.cheap_curvature
    best = None
    for warped in (True, False) if cheap else (False,):
        u, log_density = (Warped(posterior, normal) if warped else normal).sample(standard)
        ratios = np.full(draws, -np.inf)
        sound = np.isfinite(log_density)
        ratios[sound] = posterior.value(u[sound]) - log_density[sound]
        if not np.isfinite(ratios).any():
            continue
        log_weights, k = pareto_smoothed(ratios)
        power = affordable_power(log_weights, _LEAST_SHARE * draws)
        if best is None or power > best[0]:
            best = power, k, warped, u, log_weights
        if power == 1.0 and k <= _GOOD_K:
            break
    if best is None:
        raise DrawsError(
            f"no draw of Laplace's approximation gives law {posterior.spec.law.name!r} a finite posterior for "
            f"{posterior.spec.name}: sample with --posterior nuts"
        )
    power, k, warped, u, log_weights = best
    diagnostics = {
        "pareto_k": k,
        "weight_power": power,
        "effective_draws": effective(log_weights, power),
        "warped": warped,
    }
    return u[resampled(power * log_weights, draws, rng)], diagnostics


# ---- what is refused --------------------------------------------------------------------------------------


def _refuse_astray(posterior: LogPosterior, centre: np.ndarray, u: np.ndarray) -> None:
    """Raises DrawsError where the draws u (draws, T) contradict the runs, as those of a posterior do not.

    Draws of a posterior near a normal one lie T/2 nats below its mode, give or take. Where a law has far more freedom
    than the runs take away, its posterior is a bent valley, and the draws of a normal lie on the slopes beside it.
    """
    below = posterior.value(centre[None])[0] - np.median(posterior.value(u))
    spec = posterior.spec
    if 2 * below - posterior.size > _ASTRAY * spec.counts.sum():
        raise DrawsError(
            f"Laplace's approximation fails for the posterior of {spec.name} by law {spec.law.name!r}: its draws miss "
            f"the {spec.counts.sum():.0f} runs by more than twice the noise; sample with --posterior nuts, or choose "
            "a law with fewer parameters"
        )


def refuse_contradiction(posterior: LogPosterior, start: np.ndarray, at: np.ndarray) -> None:
    """Raises FitError where the prior and the losses contradict each other.

    Either the losses drag the mode far out of the prior; or the prior holds the mode where it is, the law fits much
    worse there than at the point fit, and that is far out of the prior.

    Parameters
    ----------
    posterior
        The density.
    start, at
        (T,) the point fit and the mode.
    """
    P, spec = posterior.P, posterior.spec
    sd = np.sqrt(np.diag(spec.prior_covariance))
    both = np.stack([at, start])
    z = posterior.draws(both).z
    distance = np.abs(z - spec.prior_mean) / sd
    # Given the parameters before it, too: a prior may tie one to others (and losses may strain such a tie at the mode).
    distance[1] = np.maximum(distance[1], np.abs(start[:P]))
    fits = posterior.value(both) + 0.5 * (both[:, :P] ** 2).sum(1)  # without the prior of z
    held = fits[1] - fits[0] > max(_HELD, _WORSE * spec.counts.sum())
    far = distance.max(1) > _EXCLUDED
    if not far[0] and not (held and far[1]):
        return
    asking = 0 if far[0] else 1
    which, asked = int(distance[asking].argmax()), z[asking]
    name, shown = _element(spec, which)
    middle = spec.prior_mean[which]
    low, high = shown(middle - sd[which]), shown(middle + sd[which])
    raise FitError(
        f"the prior of {name} excludes the losses of {spec.name}: it expects {shown(middle):.4g} ({low:.4g} to "
        f"{high:.4g} within one standard deviation), the losses ask for {shown(asked[which]):.4g}, "
        f"{distance[asking, which]:.3g} standard deviations away: change the prior, or choose another law"
    )


def _element(spec: Spec, which: int) -> tuple[str, Callable[[float], float]]:
    """Name of an element of z, and what makes a natural value of it."""
    n_sources = spec.inputs.weights.shape[-1]
    names = spec.sources or tuple(str(k + 1) for k in range(n_sources))
    where = spec.law.layout(n_sources)
    p = next(p for p in spec.law.parameters if where[p.name].start <= which < where[p.name].stop)
    name = f"{p.name}[{names[which - where[p.name].start]}]" if p.per_source else p.name
    if p.name in spec.law.references:
        name += " (its term at the runs' mean scale)"
    return name, _TO_NATURAL[p.support]


def _values(spec: Spec) -> str:
    """The point fit, for messages: its first few parameters."""
    shown = []
    for which in range(min(4, len(spec.start))):
        name, convert = _element(spec, which)
        shown.append(f"{name.split(' (')[0]} {convert(spec.start[which]):.4g}")
    return ", ".join(shown) + (", ..." if len(spec.start) > 4 else "")
