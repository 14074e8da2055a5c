"""What `optimize_mixture` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lawkit.io._json import finite

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class ActiveConstraint:
    """A limit that the mixture sits on, and what moving it is worth.

    Attributes
    ----------
    name
        Of the source or group that it limits; 'generation', 'divergence', or 'loss_' and a domain.
    kind
        'lower' or 'upper' (the user's bounds), 'availability', 'cap' (relative to the prior), 'fixed' (a weight or
        a group's sum held at one value by both its limits), 'law' (the law itself is infinite at zero weight), 'group',
        'generation', 'divergence' or 'loss'.
    limit
        Its value: a fraction of the mixture, or nats of divergence and of loss.
    price
        Change of the objective per unit of the limit, nats per unit weight (or per nat): 0 or less for an upper limit
        (raising it lowers the loss), 0 or more for a lower one, any for 'fixed'.
    text
        The limit, readable.
    price_per_unit, unit
        The price again in the user's own unit, where it has one: '1B tokens', '1e18 flops', '1 x prior'.
    """

    name: str
    kind: str
    limit: float
    price: float
    text: str
    price_per_unit: float | None = None
    unit: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class Against:
    """The mixture beside another one, over draws.

    Attributes
    ----------
    objective
        The other mixture's, under the fitted parameters.
    probability_worse
        Share of the draws in which the other mixture has the higher loss; where both are equal counts half.
    difference
        (lower, median, upper) of its loss less that of the mixture, nats per token.
    """

    objective: float
    probability_worse: float
    difference: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """What the fit's uncertainty about its parameters means for the mixture.

    All of it is about mean losses under the law: neither the noise of single runs is in it nor what the law itself
    may get wrong beyond the data.

    Attributes
    ----------
    kind
        Where the draws come from: 'laplace', 'nuts', 'bootstrap', or 'normal' (the Gauss-Newton normal around the
        point fit).
    interval
        Nominal coverage of what follows.
    optima
        (S, K) the best mixture of each draw.
    left_out
        Number of further draws for which none was found.
    weights
        Source to (lower, upper). They hold, all at once, this share of the draws' best mixtures, and this share of
        those that other runs like the fitted ones would have led to (their errors as large, and as much shared by
        checkpoints and domains, as in the table); and are widened on both sides by the source's `pull`.
    weights_marginal
        The same for one source at a time.
    pull
        Source to the change of the best weight when the losses that the fit predicts for its own runs are fitted
        again: what the law's priors do to it; 0 without priors.
    objective
        (lower, upper) of the chosen mixture's loss.
    regret_mean, regret_upper
        Loss given up by the chosen mixture to each draw's own best one: mean and quantile at `interval`, nats per
        token.
    against
        Other mixtures by name, as in `MixtureResult.baselines`.
    """

    kind: Literal["laplace", "nuts", "bootstrap", "normal"]
    interval: float
    optima: np.ndarray
    left_out: int
    weights: dict[str, tuple[float, float]]
    weights_marginal: dict[str, tuple[float, float]]
    pull: dict[str, float]
    objective: tuple[float, float]
    regret_mean: float
    regret_upper: float
    against: dict[str, Against]

    def to_dict(self) -> dict[str, Any]:
        """Its part of `MixtureResult.to_dict`."""
        return {
            "interval": self.interval,
            "draws": {"kind": self.kind, "used": len(self.optima), "left_out": self.left_out},
            "weights_interval": {s: list(v) for s, v in self.weights.items()},
            "weights_interval_marginal": {s: list(v) for s, v in self.weights_marginal.items()},
            "pull": self.pull,
            "objective_interval": list(self.objective),
            "regret": {"mean": self.regret_mean, "upper": self.regret_upper},
            "against": {
                name: {
                    "objective": other.objective,
                    "probability_worse": other.probability_worse,
                    "difference": list(other.difference),
                }
                for name, other in self.against.items()
            },
        }


@dataclass(frozen=True, kw_only=True)
class MixtureResult:
    """The best mixture for a target, and how good it is known to be.

    Attributes
    ----------
    weights
        Source to fraction of the training tokens, sum 1.
    objective
        Target-weighted mean (or maximum or CVaR) of the predicted losses, nats per token; its `risk` over draws where
        one was asked for.
    risk
        'point' (the fit's own parameters), 'mean', 'cvar:q' or 'quantile:q' over draws.
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
        The objective at other mixtures: 'uniform', 'best_recorded', the best of the runs' own mixtures, and
        'baseline' where one was given.
    epochs
        Source to passes over its unique tokens that the mixture asks for, where their number is known.
    uncertainty
        Over draws of the parameters; None without draws.
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
    risk: str = "point"
    unconstrained_weights: dict[str, float] | None = None
    unconstrained_objective: float | None = None
    baselines: dict[str, float] = field(default_factory=dict)
    epochs: dict[str, float] = field(default_factory=dict)
    uncertainty: Uncertainty | None = None
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
        """Name of each limit that binds to the change of the objective per unit: nats per weight, or per nat."""
        return {a.name: a.price for a in self.active}

    @property
    def prices_per_billion_tokens(self) -> dict[str, float]:
        """Source to the change of the objective per 1e9 more unique tokens, where availability binds."""
        return {
            a.name: a.price_per_unit
            for a in self.active
            if a.kind == "availability" and a.price_per_unit is not None
        }

    @property
    def price_of_generation(self) -> float | None:
        """Change of the objective per 1e18 more flops of generation, where its budget binds."""
        return next((a.price_per_unit for a in self.active if a.kind == "generation"), None)

    def to_dict(self) -> dict[str, Any]:
        """The object that `lawkit optimize-mixture --json` prints (numbers that are not finite as None).

        Without draws there are no `weights_interval`, `objective_interval`, `regret` and `against`.
        """
        return finite(
            {
                "weights": self.weights,
                "objective": self.objective,
                "risk": self.risk,
                "predicted": self.predicted,
                "optimality_gap": self.optimality_gap,
                "relative_gap": self.relative_gap,
                "certificate": self.certificate,
                "lower_bound": self.lower_bound,
                "active_constraints": list(self.active_constraints),
                "shadow_prices": self.shadow_prices,
                "prices_per_billion_tokens": self.prices_per_billion_tokens,
                "price_per_1e18_flops_of_generation": self.price_of_generation,
                "unconstrained": {
                    "weights": self.unconstrained_weights,
                    "objective": self.unconstrained_objective,
                },
                "baselines": self.baselines,
                "epochs": self.epochs,
                **({} if self.uncertainty is None else self.uncertainty.to_dict()),
                "warnings": list(self.warnings),
            }
        )
