"""The set of mixtures to choose from, and the domains to choose for: read, checked, and explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture import _checks
from lawkit.mixture._checks import target_weights
from lawkit.mixture.infeasible import refuse_infeasible
from lawkit.mixture.limits import Kind, Limit, cap_limits, generation_limit, group_limits
from lawkit.mixture.polytope import RESOLUTION, Polytope

__all__ = ["RESOLUTION", "MixtureProblem", "target_weights"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MixtureProblem:
    """Mixtures h (K,) with sum 1 under limits, judged by the target-weighted mean (or worst) of losses.

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
        What set each upper limit: 'simplex' (nothing but the sum), 'bound', 'availability' or 'cap'.
    tokens_per_weight
        Unique tokens that one unit of weight needs, n_tokens / max_epochs (K,); NaN without availability.
    rows
        Limits on groups and on generation.
    prior
        (K,) mixture to keep near, or None.
    max_kl
        Most KL divergence from it, nats; infinite for no limit.
    max_loss
        (E,) highest loss of single domains, infinite for none; None for none at all.
    over
        ('mean', 0), ('max', 0) or ('cvar', q): how losses of domains become one number.
    floor
        Least weight that the law takes (see `raised`).
    """

    sources: tuple[str, ...]
    domains: tuple[str, ...]
    target: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    kinds: tuple[str, ...]
    tokens_per_weight: np.ndarray
    rows: tuple[Limit, ...] = ()
    prior: np.ndarray | None = None
    max_kl: float = np.inf
    max_loss: np.ndarray | None = None
    over: tuple[str, float] = ("mean", 0.0)
    floor: float = 0.0

    @classmethod
    def build(
        cls,
        sources: Sequence[str],
        domains: Sequence[str],
        *,
        n_tokens: float | None = None,
        bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
        available: Mapping[str, float] | None = None,
        max_epochs: float | Mapping[str, float] | None = None,
        target: Mapping[str, float] | None = None,
        groups: Mapping[str, Any] | None = None,
        prior: Mapping[str, float] | None = None,
        max_ratio: float | Mapping[str, float] | None = None,
        max_kl: float | None = None,
        max_loss: Mapping[str, float] | None = None,
        generation: Mapping[str, Any] | None = None,
        over: str = "mean",
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
        groups
            Name to {'sources': names, 'lower': fraction, 'upper': fraction} of their weights' sum.
        prior
            A mixture (weights by source, sum 1 within 1e-3) that `max_ratio` and `max_kl` refer to.
        max_ratio
            Most that a weight may be times its prior weight, for all sources or by source.
        max_kl
            Most KL divergence of the mixture from the prior, nats.
        max_loss
            Domain to the highest loss it may have, nats per token.
        generation
            {'cost': source to flops per token, 'budget': flops}: n_tokens * sum of cost * weight <= budget.
        over
            'mean' (by `target`), 'max' or 'cvar:q' (the mean of the worst share 1 - q by `target`) over domains.

        Raises
        ------
        OptimizeError
            For unknown names, values out of range, and limits that no mixture satisfies.
        """
        K, places = len(sources), {s: i for i, s in enumerate(sources)}
        lower, upper, kinds = np.zeros(K), np.ones(K), ["simplex"] * K
        for name, limits in (bounds or {}).items():
            i = _checks.place(name, places, "source", "bounds")
            lower[i], upper[i] = _checks.pair(limits, f"bounds[{name!r}]")
            if upper[i] < 1:
                kinds[i] = "bound"
        per_weight = np.full(K, np.nan)
        passes = _checks.epochs(4.0 if max_epochs is None else max_epochs, places)
        for name, tokens in (available or {}).items():
            i = _checks.place(name, places, "source", "available")
            tokens = _checks.positive(tokens, f"available[{name!r}]", "unique tokens")
            if n_tokens is None:
                raise OptimizeError("available needs n_tokens: weight <= max_epochs * tokens / n_tokens")
            per_weight[i] = n_tokens / passes[i]
            most = tokens / per_weight[i]
            if most < upper[i]:
                upper[i], kinds[i] = most, "availability"
        near, kl = _reference(prior, max_ratio, max_kl, sources)
        caps = [] if max_ratio is None or near is None else cap_limits(max_ratio, near, sources)
        for cap in caps:
            i = places[cap.name]
            if cap.value < upper[i]:
                upper[i], kinds[i] = cap.value, "cap"
        if near is not None and kl < np.inf:  # the divergence of what the prior lacks is infinite
            kinds = [k if p > 0 or u <= 0 else "cap" for k, p, u in zip(kinds, near, upper, strict=True)]
            upper = np.where(near > 0, upper, 0.0)
        rows = group_limits(groups or {}, sources)
        if generation is not None and generation.get("budget") is not None:
            limit = generation_limit(generation.get("cost", {}), generation["budget"], n_tokens, sources)
            if limit.value < 1 - 1e-9:  # else it pays for every mixture
                rows.append(limit)
        _refuse_names(sources, rows, kl, max_loss or {})
        problem = cls(
            sources=tuple(sources),
            domains=tuple(domains),
            target=target_weights(target, domains),
            lower=lower,
            upper=upper,
            kinds=tuple(kinds),
            tokens_per_weight=per_weight,
            rows=tuple(rows),
            prior=near,
            max_kl=kl,
            max_loss=_ceilings(max_loss, domains),
            over=_checks.tail(over, "over", ("mean", "max", "cvar:")),
        )
        refuse_infeasible(problem)
        return problem

    # ---- the set ---------------------------------------------------------------------------------------------

    @cached_property
    def polytope(self) -> Polytope:
        """The linear limits; rows with a lower and an upper limit that agree are equations."""
        K = len(self.sources)
        rows: list[tuple[np.ndarray, float]] = []
        equal = [(np.ones(K), 1.0)]
        done: set[int] = set()
        for i, limit in enumerate(self.rows):
            if i in done:
                continue
            twin = next(
                (
                    k
                    for k in range(i + 1, len(self.rows))
                    if self.rows[k].sense != limit.sense
                    and np.array_equal(self.rows[k].coefficients, limit.coefficients)
                    and abs(self.rows[k].value - limit.value) <= RESOLUTION
                ),
                None,
            )
            if twin is None:
                rows.append(limit.row)
            else:
                done.add(twin)
                equal.append((limit.coefficients, limit.value))
        return Polytope(
            self.lower,
            self.upper,
            np.array([r for r, _ in rows]).reshape(-1, K),
            np.array([m for _, m in rows]),
            np.array([r for r, _ in equal]),
            np.array([m for _, m in equal]),
        )

    @cached_property
    def limits(self) -> list[Limit]:
        """All linear limits that users set, and the law's floor, one by one."""
        out, K = [], len(self.sources)
        for i, name in enumerate(self.sources):
            unit = np.eye(K)[i]
            if self.lower[i] > 0:
                low: Kind = "law" if self.lower[i] <= self.floor else "lower"
                out.append(
                    Limit(name=name, kind=low, sense=">=", coefficients=unit, value=float(self.lower[i]))
                )
            if self.upper[i] < 1:
                per, kind = 1.0, "upper"
                if self.kinds[i] == "availability":
                    per, kind = float(self.tokens_per_weight[i]), "availability"
                elif self.kinds[i] == "cap" and self.prior is not None:
                    per, kind = (1 / self.prior[i] if self.prior[i] > 0 else np.inf), "cap"
                out.append(
                    Limit(
                        name=name, kind=kind, sense="<=", coefficients=unit, value=float(self.upper[i]), per_unit=per
                    )
                )  # fmt: skip
        return [*out, *self.rows]

    def raised(self, floor: float) -> MixtureProblem:
        """The same problem with no weight under `floor`, for laws that are infinite at zero."""
        if floor <= 0:
            return self
        problem = replace(self, lower=np.maximum(self.lower, floor), floor=floor)
        short = np.flatnonzero(problem.upper < floor)
        if len(short):
            name = self.sources[short[0]]
            given = next(s for s in self.limits if s.name == name and s.sense == "<=")
            raise OptimizeError(
                f"{given}, but this law needs at least {floor:g} of every source: "
                f"allow {name} {floor:g} or fit a law that takes zero weights (transfer)"
            )
        refuse_infeasible(problem)
        return problem

    def unconstrained(self) -> MixtureProblem:
        """The same objective over all mixtures."""
        K = len(self.sources)
        return replace(
            self, lower=np.zeros(K), upper=np.ones(K), kinds=("simplex",) * K, rows=(), max_kl=np.inf, max_loss=None,
            floor=0.0,
        )  # fmt: skip

    @property
    def limited(self) -> bool:
        """Whether anything but the simplex limits the weights."""
        box = (self.lower > 0).any() or (self.upper < 1).any()
        return bool(box or self.rows or self.max_kl < np.inf or self.ceilings.size)

    @property
    def ceilings(self) -> np.ndarray:
        """Numbers of the domains whose loss is limited."""
        return np.flatnonzero(np.isfinite(self.max_loss)) if self.max_loss is not None else np.empty(0, int)

    def mixture(self, given: Mapping[str, float], argument: str) -> np.ndarray:
        """A mixture (K,) from weights by source that sum to 1 within 1e-3; it need not keep to the limits."""
        return _checks.mixture(given, self.sources, argument)

    def interior(self, toward: np.ndarray | None = None, depth: float = 0.05) -> np.ndarray:
        """A mixture (K,) strictly inside all linear limits that leave room; near `toward` if given."""
        return self.polytope.center if toward is None else self.polytope.toward(toward, depth)

    def snap(self, h: np.ndarray, distance: float, zeros: bool = True) -> np.ndarray:
        """`h` with weights nearer than `distance` to a limit set to it; see `Polytope.snap`."""
        return self.polytope.snap(h, distance, zeros)


def _reference(
    prior: Mapping[str, float] | None, max_ratio: Any, max_kl: Any, sources: Sequence[str]
) -> tuple[np.ndarray | None, float]:
    """The prior mixture (K,) and the most divergence from it."""
    if prior is None:
        for name, value in (("max_ratio", max_ratio), ("max_kl", max_kl)):
            if value is not None:
                raise OptimizeError(f"{name} needs prior: the mixture that it refers to")
        return None, np.inf
    kl = np.inf if max_kl is None else _checks.number(max_kl, "max_kl", "nats")
    if kl <= 0:
        raise OptimizeError(f"max_kl must be above 0 nats, got {max_kl!r}")
    return _checks.mixture(prior, sources, "prior"), kl


def _refuse_names(
    sources: Sequence[str], rows: Sequence[Limit], kl: float, max_loss: Mapping[str, float]
) -> None:
    """Nothing, unless a source has the name that the price of another limit goes by."""
    taken = {row.name for row in rows if row.kind == "generation"} | {f"loss_{d}" for d in max_loss}
    taken |= {"divergence"} if kl < np.inf else set()
    for name in sources:
        if name in taken:
            raise OptimizeError(
                f"a source is called {name!r}, and so is the price of a limit asked for (of generation, of the "
                "divergence from the prior, or loss_ and a domain): leave that limit out, or rename the source's "
                "columns in the runs table and fit again"
            )


def _ceilings(max_loss: Mapping[str, float] | None, domains: Sequence[str]) -> np.ndarray | None:
    """Highest loss of each domain (E,)."""
    if not max_loss:
        return None
    places, out = {d: i for i, d in enumerate(domains)}, np.full(len(domains), np.inf)
    for name, value in max_loss.items():
        i = _checks.place(name, places, "domain", "max_loss")
        out[i] = _checks.number(value, f"max_loss[{name!r}]", "nats per token")
        if out[i] <= 0:
            raise OptimizeError(f"max_loss[{name!r}] must be above 0 nats, got {out[i]:g}")
    return out
