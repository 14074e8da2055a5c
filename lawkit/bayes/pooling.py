"""Partial pooling: domains lend each other what their runs leave open, and a simulation says what that costs.

A law's scalar parameters that mean the same in every domain (exponents, and losses relative to the domain's lowest one)
get a normal prior whose mean and standard deviation are estimated from all domains together. With theta_g a
domain's and offset_g the log of its lowest loss (0 for all but losses),

    theta_g - offset_g ~ Normal(mu, diag(tau^2)), mu ~ Normal(the law's own prior), tau^2 ~ scaled inverse chi-square,

tau is found at its posterior mode, on the log scale, by expectation maximisation: the E step takes each domain's
posterior as normal (Laplace) and mu as unknown, and the domains are expanded again under the prior found until it
stays. What is not known of mu is added to the prior's
variance.

That tau is estimated and the normal assumed is not in the bands, which can then be too narrow: `simulated_coverage`
measures it.

References
----------
Dempster, Laird and Rubin 1977, Maximum likelihood from incomplete data via the EM algorithm; Morris 1983, Parametric
empirical Bayes inference; Gelman 2006, Prior distributions for variance parameters in hierarchical models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lawkit.bayes._proposal import Normal
from lawkit.bayes.density import LogPosterior
from lawkit.bayes.laplace import effective_parameters, mode
from lawkit.bayes.spec import GroupDraws, Spec
from lawkit.errors import FitError
from lawkit.laws._law import Law, Parameter

#: The prior of tau^2: worth this many domains, which differ by this much on the unconstrained scale (a quarter, for
#: logs) or half the law's own prior, whichever is less.
_WORTH, _TYPICAL, _OF_PRIOR = 2.0, 0.25, 0.5
_FEWEST = 3
#: The prior stays where no mean moves by more than this part of its tau, nor log tau by more than this.
_STAYS = 0.05
_MOST_ROUNDS, _MOST_STEPS = 30, 500

#: What `centre` finds.
Centre = tuple[LogPosterior, np.ndarray, GroupDraws]


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """The prior that the domains share.

    Attributes
    ----------
    parameters
        By name: 'mean' and 'sd' (tau) of the domains' values on the unconstrained scale; the middle 'natural' value and
        the 'lower' and 'upper' ends between which nine of ten domains lie; and 'relative', whether values are multiples
        of the domain's lowest loss. Parameters that are fitted at a reference scale are given as fitted.
    uncertainty
        (Q,) standard deviation of each mean, in the order of `parameters`.
    iterations
        How often the domains were expanded.
    converged
        Whether the prior stayed.
    """

    parameters: dict[str, dict[str, Any]]
    uncertainty: np.ndarray
    iterations: int
    converged: bool

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"parameters": self.parameters, "iterations": self.iterations, "converged": self.converged}


def pooled(described: Sequence[Spec], warm: Pooling | None = None) -> tuple[list[Spec], Pooling]:
    """The same posteriors under a prior that they share.

    Parameters
    ----------
    described
        One posterior a domain, at least three.
    warm
        The prior of similar runs, to start from.

    Returns
    -------
    list of Spec
        With other `prior_mean` and `prior_covariance`. Vectors keep theirs, and so do scalars that the law's own prior
        ties to others.
    Pooling

    Raises
    ------
    FitError
        For a coupled law, fewer than three domains, a law without parameters to share, and a posterior that is not
        finite at its point fit.

    Examples
    --------
    >>> described, pooling = pooled(described)  # doctest: +SKIP
    >>> pooling.parameters["alpha"]["natural"]  # doctest: +SKIP
    0.34
    """
    specs, pooling, _ = pool(described, warm)
    return specs, pooling


def pool(
    described: Sequence[Spec],
    warm: Pooling | None = None,
    modes: Sequence[GroupDraws] | None = None,
) -> tuple[list[Spec], Pooling, list[Centre]]:
    """As `pooled`, from near each domain's mode where that is known; also returns the domains' last expansions."""
    shared = _Shared(described)
    specs, joint, found = list(described), list(modes or [None] * len(described)), []
    mean, tau, unsure = shared.mean, shared.sd, np.zeros(len(shared.mean))
    if warm is not None:
        mean, tau = (np.array([p[k] for p in warm.parameters.values()]) for k in ("mean", "sd"))
        unsure = warm.uncertainty
        specs = shared.under(specs, mean, tau, unsure)
    rounds, moved = 0, np.inf
    while rounds < _MOST_ROUNDS and moved >= _STAYS:
        rounds += 1
        found = [centre(spec, at) for spec, at in zip(specs, joint, strict=True)]
        joint = [at for _, _, at in found]
        before = mean, tau
        mean, tau, unsure = shared.fitted(*shared.evidence(specs, found), tau)
        specs = shared.under(specs, mean, tau, unsure)
        moved = max(np.abs((mean - before[0]) / tau).max(), np.abs(np.log(tau / before[1])).max())
    told = {
        p.name: _told(p, *numbers)
        for p, *numbers in zip(shared.parameters, mean, tau, shared.relative, strict=True)
    }
    converged = bool(moved < _STAYS)
    return specs, Pooling(parameters=told, uncertainty=unsure, iterations=rounds, converged=converged), found


def centre(spec: Spec, at: GroupDraws | None = None) -> Centre:
    """The posterior, u (T,) of its mode with the noise corrected as `lawkit.bayes.laplace` does, and its joint mode.

    The search starts at `at`, or else at the point fit.

    Raises
    ------
    FitError
        If the posterior is not finite there.
    """
    posterior = LogPosterior(spec)
    u = posterior.start() if at is None else posterior.coordinates(at)[0]
    if not np.isfinite(posterior.value(u[None])[0]):
        raise FitError(
            f"law {spec.law.name!r} has no finite posterior at its point fit to {spec.name}: check the losses, choose "
            "another law, or leave pooling out"
        )
    joint, _, _ = mode(posterior, u)  # the correction holds there only
    corrected, _, _ = mode(posterior, joint, effective_parameters(posterior, joint))
    return posterior, corrected, posterior.draws(joint[None])


class _Shared:
    """The Q parameters that G domains share: where they are, and the prior of their prior."""

    def __init__(self, described: Sequence[Spec]):
        first = described[0]
        law = first.law
        if law.coupled:
            raise FitError(
                f"law {law.name!r} fits all domains as one already: nothing is left to pool, leave pooling out"
            )
        if len(described) < _FEWEST:
            raise FitError(
                f"partial pooling needs at least {_FEWEST} domains to tell how much they differ, got "
                f"{len(described)} ({', '.join(s.name for s in described)}): leave pooling out"
            )
        where = law.layout(first.inputs.weights.shape[-1])
        between = first.prior_covariance - np.diag(np.diag(first.prior_covariance))
        tied = (between != 0).any(1)
        self.parameters = [p for p in law.parameters if not p.per_source and not tied[where[p.name]].any()]
        if not self.parameters:
            raise FitError(
                f"law {law.name!r} has no scalar parameter that means the same in every domain: nothing can be pooled, "
                "leave pooling out or choose another law"
            )
        self.at = np.array([where[p.name].start for p in self.parameters])
        self.relative = np.array([_is_loss(law, p) for p in self.parameters])
        lowest = np.array([s.log_losses[s.live].min() for s in described])
        self.offset = np.where(self.relative, lowest[:, None], 0.0)  # (G, Q)
        self.mean = (np.stack([s.prior_mean[self.at] for s in described]) - self.offset).mean(0)
        self.sd = np.sqrt(np.diag(first.prior_covariance)[self.at])
        self.typical = np.minimum(_TYPICAL, _OF_PRIOR * self.sd)

    def under(
        self, specs: Sequence[Spec], mean: np.ndarray, tau: np.ndarray, unsure: np.ndarray
    ) -> list[Spec]:
        """The specs with another prior of what they share."""
        out = []
        for spec, offset in zip(specs, self.offset, strict=True):
            prior_mean, covariance = spec.prior_mean.copy(), spec.prior_covariance.copy()
            prior_mean[self.at] = mean + offset
            covariance[self.at, self.at] = tau**2 + unsure**2
            out.append(replace(spec, prior_mean=prior_mean, prior_covariance=covariance))
        return out

    def evidence(self, specs: Sequence[Spec], found: Sequence[Centre]) -> tuple[np.ndarray, np.ndarray]:
        """What each domain's own losses say of theta - offset: precision (G, Q, Q), and precision x mean (G, Q).

        The normal posterior over the prior that it was found under. Where the losses curve the other way they are
        taken to say nothing.
        """
        precision, pull = [], []
        for spec, offset, (posterior, u, _) in zip(specs, self.offset, found, strict=True):
            axes = (posterior.root @ Normal(u, posterior.hessian(u)).axes[: posterior.P])[self.at]
            own = np.linalg.inv(axes @ axes.T)
            sd = np.sqrt(np.diag(spec.prior_covariance)[self.at])
            away = posterior.draws(u[None]).z[0, self.at] - spec.prior_mean[self.at]
            # In standard deviations of the prior its own precision is the identity.
            values, vectors = np.linalg.eigh(own * sd * sd[:, None] - np.eye(len(sd)))
            informed = vectors[:, values > 0]
            kept = (informed * values[values > 0]) @ informed.T / sd / sd[:, None]
            precision.append(kept)
            # precision x mean = own x (z - prior mean) + precision x prior mean, in the directions that are kept.
            told = informed @ (informed.T @ (own @ away * sd)) / sd
            pull.append(told + kept @ (spec.prior_mean[self.at] - offset))
        return np.stack(precision), np.stack(pull)

    def fitted(
        self, precision: np.ndarray, pull: np.ndarray, tau: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, tau and standard deviation of the mean, (Q,) each, given the domains' `evidence`; EM from `tau`."""
        eye, G = np.eye(len(tau)), len(pull)
        for _ in range(_MOST_STEPS):
            prior = np.diag(tau**-2.0)
            covariance = np.linalg.inv(precision + prior)  # of theta, given mu
            # Integrated over theta, a domain's evidence on mu has the covariance precision^-1 + tau^2.
            on_mu = prior - prior @ covariance @ prior
            spread = np.linalg.inv(np.diag(self.sd**-2.0) + on_mu.sum(0))
            own = np.einsum("gij,gj->gi", covariance, pull)
            mu = spread @ (self.mean / self.sd**2 + prior @ own.sum(0))
            shrink = covariance @ prior - eye  # theta - mu moves so much with mu
            gap = own + shrink @ mu
            both = covariance + shrink @ spread @ np.swapaxes(shrink, 1, 2)
            squares = (gap**2 + np.einsum("gii->gi", both)).sum(0)
            before, tau = tau, np.sqrt((_WORTH * self.typical**2 + squares) / (_WORTH + G))
            if np.abs(np.log(tau / before)).max() < 1e-4:
                break
        return mu, tau, np.sqrt(np.diag(spread))


def _told(p: Parameter, mean: float, tau: float, relative: bool) -> dict[str, Any]:
    """One parameter's prior for people."""
    natural = {"positive": np.exp, "real": float, "unit": lambda v: 1 / (1 + np.exp(-v))}[p.support]
    middle, lower, upper = (float(natural(mean + sds * tau)) for sds in (0.0, -1.645, 1.645))
    return {
        "mean": float(mean), "sd": float(tau), "natural": middle, "lower": lower, "upper": upper,
        "relative": bool(relative),
    }  # fmt: skip


def _is_loss(law: Law, p: Parameter) -> bool:
    """Whether a positive parameter is so many nats, and scales with the domain's losses."""
    by_prior = p.prior is not None and p.prior.relative_to_loss
    return p.support == "positive" and (by_prior or p.name in law.linear or p.unit.startswith("nats/token"))
