"""What mixtures are judged by: one fit at the scale of one run to plan."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture._form import Scale
from lawkit.mixture.corners import smoothed, worst
from lawkit.mixture.problem import RESOLUTION
from lawkit.mixture.smooth import Derivatives, ManyDerivatives

if TYPE_CHECKING:
    from lawkit.fitting import Fit


#: Second derivatives held at once, at most (several such arrays of 8 bytes each).
LARGEST = 2e6


class Target:
    """One fit at one scale.

    Parameters
    ----------
    fit
        The fitted law.
    n_params, n_tokens
        The run to plan; None for the geometric mean of the fitted runs. A size that those do not record is None
        from here on.
    unique
        Unique tokens by source (K,), for laws that count repetition; None otherwise.
    """

    def __init__(
        self, fit: Fit, n_params: float | None, n_tokens: float | None, unique: np.ndarray | None = None
    ) -> None:
        recorded = fit.estimate.recorded
        self.fit = fit
        self.n_params = n_params if "n_params" in recorded else None
        self.n_tokens = n_tokens if "n_tokens" in recorded else None
        self.unique = unique

    @property
    def floor(self) -> float:
        """Least weight that the law tells from zero; 0 where it takes any."""
        least = self.fit.law.weight_floor
        return least if least > RESOLUTION else 0.0

    @property
    def scale(self) -> Scale:
        """The scale as the convex forms read it."""
        n_ref, d_ref = self.fit.reference["n_params"], self.fit.reference["n_tokens"]
        return Scale(
            n_params=n_ref if self.n_params is None else self.n_params,
            n_tokens=d_ref if self.n_tokens is None else self.n_tokens,
            n_ref=n_ref,
            d_ref=d_ref,
        )

    def inputs(self, mixtures: np.ndarray) -> Any:
        """Mixtures (n, K) at this scale, as laws are evaluated."""
        unique = None if self.unique is None else np.broadcast_to(self.unique, mixtures.shape)
        return self.fit.estimate.inputs(mixtures, self.n_params, self.n_tokens, unique)

    def losses(self, mixtures: np.ndarray) -> np.ndarray:
        """Predicted losses (n, E) of mixtures (n, K)."""
        with np.errstate(all="ignore"):
            return self.fit.estimate.losses(self.inputs(mixtures))

    def derivatives(self, target: np.ndarray) -> Derivatives:
        """The target-weighted (E,) objective with gradient and Hessian, as a function of the mixture."""
        used = np.flatnonzero(target > 0)
        v = target[used]

        def evaluate(h: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            with np.errstate(all="ignore"):
                loss, gradient, hessian = self.fit.weights_derivatives(
                    self.n_params, self.n_tokens, h, self.unique
                )
                return float(v @ loss[used]), v @ gradient[used], np.tensordot(v, hessian[used], 1)

        return evaluate

    def with_parameters(self, z: np.ndarray) -> Target:
        """The same target under other unconstrained parameters (G, P)."""
        fit = replace(self.fit, estimate=replace(self.fit.estimate, z=z))
        return Target(fit, self.n_params, self.n_tokens, self.unique)

    def objectives(
        self, z: np.ndarray, mixtures: np.ndarray, target: np.ndarray, over: tuple[str, float] = ("mean", 0.0)
    ) -> np.ndarray:
        """The objective (S, n) of mixtures (n, K) under unconstrained parameters z (S, G, P)."""
        with np.errstate(all="ignore"):
            return over_domains(self.fit.estimate.losses_at(z, self.inputs(mixtures)), target, over)

    def derivatives_of(
        self, z: np.ndarray, target: np.ndarray, over: tuple[str, float] = ("mean", 0.0)
    ) -> ManyDerivatives:
        """The objectives under S unconstrained parameters z (S, G, P), each as a function of its own mixture."""
        law, estimate = self.fit.law, self.fit.estimate
        used = np.flatnonzero(target > 0)
        groups = np.zeros(1, int) if law.coupled else used
        v = target[used]
        caps = domain_caps(v, over)

        def some(which: np.ndarray, h: np.ndarray, barrier: np.ndarray) -> tuple[np.ndarray, ...]:
            m, G = len(h), len(groups)
            x = replace(
                self.inputs(h[:1]).take(np.tile(groups, m)), weights=np.repeat(h, G, axis=0)[:, None, :]
            )
            parts = law.function.hessian(z[which][:, groups].reshape(m * G, -1), x, ("weights",))
            if law.coupled:
                loss, slope, curve = (p[:, 0, used] for p in parts)
            else:
                loss, slope, curve = (p.reshape(m, G, *p.shape[3:]) for p in parts)
            if over[0] == "mean":
                return tuple(np.tensordot(p, v, (1, 0)) for p in (loss, slope, curve))
            value, p, q = smoothed(loss, caps, barrier[:, None])
            middle = np.einsum("mn,mnk->mk", q, slope) / np.maximum(q.sum(1), 1e-300)[:, None]
            apart = slope - middle[:, None]
            bend = np.einsum("mn,mnk,mnl->mkl", q, apart, apart)
            return value, np.einsum("mn,mnk->mk", p, slope), np.einsum("mn,mnkl->mkl", p, curve) + bend

        def evaluate(
            which: np.ndarray, h: np.ndarray, barrier: np.ndarray
        ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            at_once = max(1, int(LARGEST / (len(estimate.domains) * h.shape[1] ** 2)))
            cuts = [slice(i, i + at_once) for i in range(0, len(which), at_once)]
            parts = [some(which[c], h[c], barrier[c]) for c in cuts]
            return tuple(np.concatenate(p) for p in zip(*parts, strict=True))  # type: ignore[return-value]

        return evaluate


def domain_caps(weights: np.ndarray, over: tuple[str, float]) -> np.ndarray:
    """Most that each domain's loss may count (n,), by its weight, in the mean, the maximum or CVaR."""
    return np.ones(len(weights)) if over[0] == "max" else weights / (1 - over[1])


def over_domains(losses: np.ndarray, target: np.ndarray, over: tuple[str, float]) -> np.ndarray:
    """What is minimised of losses (..., E): their target-weighted (E,) mean, or their maximum or CVaR."""
    used = np.flatnonzero(target > 0)
    if over[0] == "mean":
        return losses[..., used] @ target[used]
    if over[0] == "max":
        return losses[..., used].max(-1)
    caps = domain_caps(target[used], over)
    return np.apply_along_axis(lambda f: worst(f, caps)[0], -1, losses[..., used])


def check_size(name: str, value: Any) -> None:
    """Refuses what is no number of parameters, tokens or flops.

    Raises
    ------
    OptimizeError
        Naming the argument and the value.
    """
    number = math.nan
    if not isinstance(value, (bool, str)) and value is not None:
        with contextlib.suppress(TypeError, ValueError):
            number = float(value)
    if not (math.isfinite(number) and number > 0):
        hint = "; in Python write 7e9 for 7B" if isinstance(value, str) else ""
        raise OptimizeError(f"{name} must be a positive finite number, got {value!r}{hint}")


def unique_tokens(fit: Fit, available: Mapping[str, float] | None) -> np.ndarray | None:
    """(K,) tokens that exist of each source at the target, for a law that counts repetition; else None.

    Raises
    ------
    OptimizeError
        If `available` lacks a source.
    """
    if "unique" not in fit.law.columns:
        return None
    given = available or {}
    missing = [s for s in fit.sources if s not in given]
    if missing:
        raise OptimizeError(
            f"law {fit.law.name} counts repetition: say how many unique tokens of every source exist (available); "
            f"missing: {', '.join(missing)}"
        )
    return np.array([float(given[s]) for s in fit.sources])
