"""What `optimize_mixture` returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class ActiveConstraint:
    """A limit that the mixture sits on, and what moving it is worth.

    Attributes
    ----------
    source
        Whose weight it limits.
    kind
        'lower' or 'upper' (the user's bounds), 'availability', 'fixed' (both bounds equal), or 'law' (the law
        itself is infinite at zero weight).
    limit
        Its value, a fraction of the mixture.
    price
        Change of the objective per unit of the limit, nats per unit weight: negative for a cap (raising it
        lowers the loss), positive for a lower bound.
    price_per_billion_tokens
        For availability: change of the objective per 1e9 more unique tokens, in nats.
    """

    source: str
    kind: Literal["lower", "upper", "availability", "fixed", "law"]
    limit: float
    price: float
    price_per_billion_tokens: float | None = None

    def __str__(self) -> str:
        sign = {"lower": ">=", "law": ">=", "fixed": "="}.get(self.kind, "<=")
        note = {"availability": " (availability)", "law": " (the law's own floor)"}.get(self.kind, "")
        return f"{self.source} {sign} {self.limit:.6g}{note}"


@dataclass(frozen=True, kw_only=True)
class MixtureResult:
    """The best mixture for a target, and how good it is known to be.

    Attributes
    ----------
    weights
        Source to fraction of the training tokens, sum 1.
    objective
        Target-weighted mean of the predicted losses, nats per token.
    predicted
        Domain to predicted loss, for all of the fit's domains.
    optimality_gap
        No feasible mixture is better by more than this many nats under the fitted law. With a 'local'
        certificate and no `lower_bound` it is the first-order gap only: how far the mixture is from
        stationary, which says nothing of mixtures elsewhere.
    certificate
        'global' when the gap is a proof, 'local' otherwise.
    lower_bound
        Proven lower bound of the objective over all feasible mixtures; None if nothing is proven.
    active
        The limits that bind, with their prices.
    unconstrained_weights, unconstrained_objective
        The optimum over all mixtures, without bounds and availability; None where there is none to compare with.
    baselines
        The objective at other mixtures: 'uniform', and 'best_recorded', the best of the runs' own mixtures.
    warnings
        What to know before acting on it.
    """

    weights: dict[str, float]
    objective: float
    predicted: dict[str, float]
    optimality_gap: float
    certificate: Literal["global", "local"]
    lower_bound: float | None
    active: tuple[ActiveConstraint, ...]
    unconstrained_weights: dict[str, float] | None
    unconstrained_objective: float | None
    baselines: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def relative_gap(self) -> float:
        """The optimality gap as a fraction of the objective."""
        return self.optimality_gap / self.objective

    @property
    def active_constraints(self) -> tuple[str, ...]:
        """The limits that bind, readable: 'hq <= 0.5'."""
        return tuple(str(a) for a in self.active)

    @property
    def shadow_prices(self) -> dict[str, float]:
        """Source to the change of the objective per unit of its binding limit, nats per unit weight."""
        return {a.source: a.price for a in self.active}

    @property
    def prices_per_billion_tokens(self) -> dict[str, float]:
        """Source to the change of the objective per 1e9 more unique tokens, where availability binds."""
        return {
            a.source: a.price_per_billion_tokens
            for a in self.active
            if a.price_per_billion_tokens is not None
        }

    def to_dict(self) -> dict[str, Any]:
        """The object that `lawkit optimize-mixture --json` prints (numbers that are not finite as None)."""
        return _finite(
            {
                "weights": self.weights,
                "objective": self.objective,
                "predicted": self.predicted,
                "optimality_gap": self.optimality_gap,
                "relative_gap": self.relative_gap,
                "certificate": self.certificate,
                "lower_bound": self.lower_bound,
                "active_constraints": list(self.active_constraints),
                "shadow_prices": self.shadow_prices,
                "prices_per_billion_tokens": self.prices_per_billion_tokens,
                "unconstrained": {
                    "weights": self.unconstrained_weights,
                    "objective": self.unconstrained_objective,
                },
                "baselines": self.baselines,
                "warnings": list(self.warnings),
            }
        )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
