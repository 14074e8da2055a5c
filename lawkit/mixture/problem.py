"""The set of mixtures to choose from, and the domains to choose for: read, checked, and explained."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lawkit.errors import OptimizeError

#: Limits closer than this are one number.
RESOLUTION = 1e-12


@dataclass(frozen=True, kw_only=True, eq=False)
class MixtureProblem:
    """Mixtures h (K,) with sum 1 and lower <= h <= upper, judged by the target-weighted mean of losses.

    Build it with `MixtureProblem.build`, which checks what users write.

    Attributes
    ----------
    sources, domains
        Names of the K sources and E domains.
    target
        Weight of each domain's loss in the objective (E,), sum 1.
    lower, upper
        Limits of each weight (K,).
    kinds
        What set each upper limit: 'simplex' (nothing but the sum), 'bound' or 'availability'.
    tokens_per_weight
        Unique tokens that one unit of weight needs, n_tokens / max_epochs (K,); NaN without availability.
    """

    sources: tuple[str, ...]
    domains: tuple[str, ...]
    target: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    kinds: tuple[str, ...]
    tokens_per_weight: np.ndarray

    @classmethod
    def build(
        cls,
        sources: Sequence[str],
        domains: Sequence[str],
        *,
        n_tokens: float | None = None,
        bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
        available: Mapping[str, float] | None = None,
        max_epochs: float | Mapping[str, float] = 4.0,
        target: Mapping[str, float] | None = None,
    ) -> MixtureProblem:
        """Check limits and targets and turn them into arrays.

        Parameters
        ----------
        sources, domains
            All that the fit knows.
        n_tokens
            Tokens of the run to plan; needed with `available`.
        bounds
            (lower, upper) of a source's weight, fractions of the mixture; None for no limit.
        available
            Unique tokens that a source has: n_tokens * weight <= max_epochs * tokens.
        max_epochs
            How often a token may be seen, for all sources or by source (4 for those not named).
        target
            Weights of domains in the objective, any positive scale; unnamed domains count nothing.
            Default: all equal.

        Raises
        ------
        OptimizeError
            For unknown names, values out of range, and limits that no mixture satisfies.
        """
        K, places = len(sources), {s: i for i, s in enumerate(sources)}
        lower, upper, kinds = np.zeros(K), np.ones(K), ["simplex"] * K
        for name, limits in (bounds or {}).items():
            i = _place(name, places, "source", "bounds")
            low, high = _pair(name, limits)
            lower[i], upper[i] = low, high
            if high < 1:
                kinds[i] = "bound"
        per_weight = np.full(K, np.nan)
        epochs = _epochs(max_epochs, places)
        for name, tokens in (available or {}).items():
            i = _place(name, places, "source", "available")
            tokens = _number(tokens, f"available[{name!r}]", "unique tokens")
            if tokens < 0:
                raise OptimizeError(f"available[{name!r}] must be unique tokens, 0 or more, got {tokens:g}")
            if n_tokens is None:
                raise OptimizeError("available needs n_tokens: weight <= max_epochs * tokens / n_tokens")
            per_weight[i] = n_tokens / epochs[i]
            most = tokens / per_weight[i]
            if most < upper[i]:
                upper[i], kinds[i] = most, "availability"
        problem = cls(
            sources=tuple(sources),
            domains=tuple(domains),
            target=target_weights(target, domains),
            lower=lower,
            upper=upper,
            kinds=tuple(kinds),
            tokens_per_weight=per_weight,
        )
        problem._refuse_infeasible()
        return problem

    def raised(self, floor: float) -> MixtureProblem:
        """The same problem with no weight under `floor`, for laws that are infinite at zero."""
        if floor <= 0:
            return self
        problem = replace(self, lower=np.maximum(self.lower, floor))
        short = np.flatnonzero(problem.upper < floor)
        if len(short):
            name = self.sources[short[0]]
            raise OptimizeError(
                f"{self._upper_text(short[0])}, but this law needs at least {floor:g} of every source: "
                f"allow {name} {floor:g} or fit a law that takes zero weights (transfer)"
            )
        problem._refuse_infeasible()
        return problem

    def unconstrained(self) -> MixtureProblem:
        """The same objective over all mixtures."""
        K = len(self.sources)
        return replace(self, lower=np.zeros(K), upper=np.ones(K), kinds=("simplex",) * K)

    @property
    def limited(self) -> bool:
        """Whether anything but the simplex limits the weights."""
        return bool((self.lower > 0).any() or (self.upper < 1).any())

    def mixture(self, given: Mapping[str, float], argument: str) -> np.ndarray:
        """A mixture (K,) from weights by source that sum to 1 within 1e-3; it need not keep to the limits.

        Raises
        ------
        OptimizeError
            For an unknown source, a weight that is no fraction, and another sum; `argument` names the mixture.
        """
        out, places = np.zeros(len(self.sources)), {s: i for i, s in enumerate(self.sources)}
        for name, value in given.items():
            i = _place(name, places, "source", argument)
            out[i] = _number(value, f"{argument}[{name!r}]", "a fraction from 0 to 1")
            if not 0 <= out[i] <= 1:
                raise OptimizeError(f"{argument}[{name!r}] must be a fraction from 0 to 1, got {out[i]:g}")
        if abs(out.sum() - 1) > 1e-3:
            raise OptimizeError(f"the weights of {argument} sum to {out.sum():.6g}: they must sum to 1")
        return out / out.sum()

    def interior(self, toward: np.ndarray | None = None, depth: float = 0.05) -> np.ndarray:
        """A mixture (K,) strictly inside all limits that leave room; near `toward` if given."""
        width = self.upper - self.lower
        total = width.sum()
        center = self.lower + (width * (1 - self.lower.sum()) / total if total > 0 else 0.0)
        if toward is None:
            return center
        step = toward - center
        with np.errstate(all="ignore"):  # steps may be denormal
            room = np.where(step > 0, (self.upper - center) / step, (self.lower - center) / step)
        reach = np.min(room[np.abs(step) > RESOLUTION], initial=1.0)
        return center + (1 - depth) * max(float(reach), 0.0) * step

    def snap(self, h: np.ndarray, distance: float, zeros: bool = True) -> np.ndarray:
        """`h` with weights nearer than `distance` to a limit set to it; the freest source takes the rest.

        Without `zeros`, lower limits of 0 are left alone.
        """
        out = np.clip(h, self.lower, self.upper)
        low = (out - self.lower < distance) & (zeros | (self.lower > 0))
        out = np.where(low, self.lower, out)
        out = np.where(self.upper - out < distance, self.upper, out)
        room = np.minimum(out - self.lower, self.upper - out)
        i = int(np.argmax(room))
        moved = out[i] + 1 - math.fsum(out)
        if not self.lower[i] <= moved <= self.upper[i]:
            return h
        out[i] = moved
        return out

    # ---- explanations -----------------------------------------------------------------------------------

    def _refuse_infeasible(self) -> None:
        for i, name in enumerate(self.sources):
            if self.lower[i] > self.upper[i] + RESOLUTION:
                raise OptimizeError(
                    f"no mixture fits: {name} must be at least {self.lower[i]:.6g}, but "
                    f"{self._upper_text(i)}; lower the first by {self.lower[i] - self.upper[i]:.3g} or "
                    f"{self._relief(i, self.lower[i])}"
                )
        low, high = math.fsum(self.lower), math.fsum(self.upper)
        if low > 1 + RESOLUTION:
            named = [f"{s} >= {v:.6g}" for s, v in zip(self.sources, self.lower, strict=True) if v > 0]
            raise OptimizeError(
                f"no mixture fits: the lower limits add up to {low:.6g}, more than 1 ({_listed(named)}); "
                f"lower them by {low - 1:.3g} in total"
            )
        if high < 1 - RESOLUTION:
            named = [self._upper_text(i) for i in range(len(self.sources))]
            missing = 1 - high
            loosest = [int(i) for i in np.argsort(self.upper)[::-1][:2]]
            ways = [self._relief(i, float(self.upper[i]) + missing) for i in loosest]
            raise OptimizeError(
                f"no mixture fits: the upper limits add up to {high:.6g}, less than 1 ({_listed(named)}); "
                f"raise them by {missing:.3g} in total, for example {' or '.join(ways)}"
            )

    def _upper_text(self, i: int) -> str:
        name, limit = self.sources[i], self.upper[i]
        if self.kinds[i] != "availability":
            return f"{name} <= {limit:.6g}"
        return f"{name} <= {limit:.6g} (available: {limit * self.tokens_per_weight[i]:.4g} unique tokens)"

    def _relief(self, i: int, needed: float) -> str:
        name = self.sources[i]
        if self.kinds[i] == "availability":
            more = (needed - self.upper[i]) * self.tokens_per_weight[i]
            factor = needed / self.upper[i] if self.upper[i] > 0 else math.inf
            epochs = f", or {factor:.4g} times the epochs" if math.isfinite(factor) else ""
            return f"find {more:.4g} more unique tokens of {name}{epochs}"
        return f"raise {name}'s limit to {needed:.6g}"


def _listed(parts: Sequence[str], most: int = 12) -> str:
    extra = [f"and {len(parts) - most} more"] if len(parts) > most else []
    return ", ".join([*parts[:most], *extra])


def _place(name: Any, places: Mapping[str, int], what: str, argument: str) -> int:
    if name in places:
        return places[name]
    close = difflib.get_close_matches(str(name), places, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    known = _listed(list(places))
    raise OptimizeError(f"{argument} names an unknown {what} {name!r}; {hint}the fit knows {known}")


def _number(value: Any, argument: str, unit: str) -> float:
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        out = float(value)
    except (TypeError, ValueError):
        raise OptimizeError(f"{argument} must be a number ({unit}), got {value!r}") from None
    if not math.isfinite(out):
        raise OptimizeError(f"{argument} must be a finite number ({unit}), got {value!r}")
    return out


def _pair(name: str, limits: Any) -> tuple[float, float]:
    try:
        if isinstance(limits, str):
            raise TypeError
        low, high = limits
    except (TypeError, ValueError):
        raise OptimizeError(f"bounds[{name!r}] must be a pair (lower, upper), got {limits!r}") from None
    low = 0.0 if low is None else _number(low, f"lower bound of {name}", "a fraction from 0 to 1")
    high = 1.0 if high is None else _number(high, f"upper bound of {name}", "a fraction from 0 to 1")
    for value in (low, high):
        if not 0 <= value <= 1:
            hint = f"; for {value:g}% write {value / 100:g}" if 1 < value <= 100 else ""
            raise OptimizeError(f"bounds[{name!r}] must be fractions from 0 to 1, got {value:g}{hint}")
    if low > high:
        raise OptimizeError(f"bounds[{name!r}]: the lower bound {low:g} is above the upper bound {high:g}")
    return low, high


def _epochs(max_epochs: Any, places: Mapping[str, int]) -> np.ndarray:
    out = np.full(len(places), 4.0)
    if isinstance(max_epochs, Mapping):
        given = {_place(name, places, "source", "max_epochs"): value for name, value in max_epochs.items()}
    else:
        given = dict.fromkeys(places.values(), max_epochs)
    for i, value in given.items():
        out[i] = _number(value, "max_epochs", "passes over a source's unique tokens")
        if out[i] <= 0:
            raise OptimizeError(f"max_epochs must be above 0, got {value!r}")
    return out


def target_weights(target: Mapping[str, float] | None, domains: Sequence[str]) -> np.ndarray:
    """Weight of each domain's loss in the objective (E,), sum 1; see `MixtureProblem.build`."""
    if target is None:
        return np.full(len(domains), 1 / len(domains))
    places = {d: i for i, d in enumerate(domains)}
    out = np.zeros(len(domains))
    for name, value in target.items():
        i = _place(name, places, "domain", "target")
        out[i] = _number(value, f"target[{name!r}]", "a domain's weight in the objective")
        if out[i] < 0:
            raise OptimizeError(f"target[{name!r}] must be 0 or more, got {out[i]:g}")
    if out.sum() <= 0:
        raise OptimizeError(f"target gives no domain a positive weight: name one of {_listed(domains)}")
    return out / out.sum()
