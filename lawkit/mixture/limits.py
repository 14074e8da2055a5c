"""What users ask of a mixture beyond bounds on single sources, each limit as one row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture._checks import listed, number, pair, place, positive

Kind = Literal[
    "lower", "upper", "availability", "cap", "fixed", "law", "group", "generation", "divergence", "loss"
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Limit:
    """One linear limit: coefficients . h <= value, or >= value.

    Attributes
    ----------
    name
        Of the source or group, or 'generation'.
    kind
        What set it.
    sense
        '<=' or '>='.
    coefficients
        (K,)
    value
        In units of weight.
    per_unit
        What one unit of `value` is in the user's units: tokens of availability, flops of generation, times the
        prior's weight for caps, infinite for a source that the prior lacks; 1 for weights.
    label
        What stands before the sign.
    """

    name: str
    kind: Kind
    sense: Literal["<=", ">="]
    coefficients: np.ndarray
    value: float
    per_unit: float = 1.0
    label: str = ""

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """The limit as users write it."""
        label, value = self.label or self.name, self.value * self.per_unit
        if self.kind == "availability":
            return f"{label} <= {self.value:.6g} (available: {value:.4g} unique tokens)"
        if self.kind == "cap" and math.isinf(self.per_unit):
            return f"{label} <= 0 (the prior has none of it)"
        if self.kind == "cap":
            return f"{label} <= {self.value:.6g} ({value:.4g} times its prior weight)"
        if self.kind == "generation":
            return f"{label} <= {value:.4g} flops"
        return f"{label} {self.sense} {self.value:.6g}"

    def relief(self, by: float) -> str:
        """What moving the limit by that much of a weight means."""
        more, label = by * self.per_unit, self.label or self.name
        if self.kind == "availability":
            factor = (self.value + by) / self.value if self.value > 0 else math.inf
            times = f", or {factor:.4g} times the epochs" if math.isfinite(factor) else ""
            return f"find {more:.4g} more unique tokens of {label}{times}"
        if self.kind == "cap" and math.isinf(self.per_unit):
            return f"give {label} a weight in the prior, which has none of it"
        if self.kind == "cap":
            return (
                f"raise the cap of {label} to {(self.value + by) * self.per_unit:.4g} times its prior weight"
            )
        if self.kind == "generation":
            return f"raise the budget of generation to {(self.value + by) * self.per_unit:.4g} flops"
        if self.sense == ">=":
            return f"lower {label}'s limit to {max(0.0, round(self.value - by, 12)):.6g}"
        return f"raise {label}'s limit to {self.value + by:.6g}"

    @property
    def row(self) -> tuple[np.ndarray, float]:
        """(row, most) of the same limit as row . h <= most."""
        return (self.coefficients, self.value) if self.sense == "<=" else (-self.coefficients, -self.value)


def group_limits(groups: Mapping[str, Any], sources: Sequence[str]) -> list[Limit]:
    """Limits on the sum of the weights of several sources.

    Parameters
    ----------
    groups
        Name to {'sources': names, 'lower': fraction, 'upper': fraction}; one of the last two may be missing.

    Raises
    ------
    OptimizeError
        For names that are unknown, come twice or are those of a source or another limit, and limits that are no
        fractions.
    """
    places, out = {s: i for i, s in enumerate(sources)}, []
    for name, given in groups.items():
        where = f"groups[{name!r}]"
        if name in places:
            raise OptimizeError(f"{where} has the name of a source: give the group one of its own")
        if name in ("generation", "divergence") or name.startswith("loss_"):
            raise OptimizeError(
                f"{where} has a name that prices of other limits go by: give the group another"
            )
        if not isinstance(given, Mapping) or "sources" not in given:
            raise OptimizeError(f"{where} must have sources and lower or upper, got {given!r}")
        if unknown := sorted(set(given) - {"sources", "lower", "upper"}):
            raise OptimizeError(
                f"{where} has an unknown key {unknown[0]!r}; it takes sources, lower and upper"
            )
        members = given["sources"]
        if isinstance(members, str) or not isinstance(members, Sequence) or not members:
            raise OptimizeError(f"{where}: sources must be a list of sources, got {members!r}")
        index = [place(s, places, "source", f"{where}: sources") for s in members]
        if len(set(index)) < len(index):
            twice = next(s for s in members if list(members).count(s) > 1)
            raise OptimizeError(f"{where} names source {twice!r} twice: name it once")
        low, high = pair((given.get("lower"), given.get("upper")), where)
        if low <= 0 and high >= 1:
            raise OptimizeError(f"{where} limits nothing: give it a lower or an upper limit")
        coefficients = np.zeros(len(sources))
        coefficients[index] = 1.0
        told = listed(list(members), 4).replace(", ", " + ")
        label = name if name.replace(" ", "") == told.replace(" ", "") else f"{name} ({told})"
        ends: tuple[tuple[Literal["<=", ">="], float], ...] = ((">=", low), ("<=", high))
        for sense, value in ends:
            if value > 0 and (sense == ">=" or value < 1):
                out.append(
                    Limit(
                        name=name,
                        kind="group",
                        sense=sense,
                        coefficients=coefficients,
                        value=value,
                        label=label,
                    )
                )
        if high <= 0:
            out.append(
                Limit(name=name, kind="group", sense="<=", coefficients=coefficients, value=0.0, label=label)
            )
    return out


def generation_limit(
    cost: Mapping[str, Any], budget: Any, n_tokens: float | None, sources: Sequence[str]
) -> Limit:
    """The budget for generating text: n_tokens . sum of cost_j h_j <= budget.

    Parameters
    ----------
    cost
        Source to flops per token generated.
    budget
        Flops.

    Raises
    ------
    OptimizeError
        For unknown sources, numbers below zero, and without n_tokens.
    """
    each = generation_cost(cost, sources)
    budget = positive(budget, "generation: budget", "flops")
    if n_tokens is None:
        raise OptimizeError("a budget of generation needs n_tokens: cost * n_tokens * weight <= budget")
    size = float(each.max()) * n_tokens
    return Limit(
        name="generation", kind="generation", sense="<=", coefficients=each * n_tokens / size, value=budget / size,
        per_unit=size, label="generation",
    )  # fmt: skip


def generation_cost(cost: Mapping[str, Any], sources: Sequence[str]) -> np.ndarray:
    """Flops per token (K,) of generating each source, 0 for those not named.

    Raises
    ------
    OptimizeError
        For unknown sources, numbers below zero, and none above.
    """
    places, out = {s: i for i, s in enumerate(sources)}, np.zeros(len(sources))
    for name, value in cost.items():
        i = place(name, places, "source", "generation: cost")
        out[i] = positive(value, f"generation: cost[{name!r}]", "flops per token")
    if not out.any():
        raise OptimizeError("generation: cost must name a source that costs something per token")
    return out


def cap_limits(max_ratio: Any, prior: np.ndarray, sources: Sequence[str]) -> list[Limit]:
    """Limits h_j <= ratio * prior_j, for all sources or those named.

    Raises
    ------
    OptimizeError
        For unknown sources and ratios that are not positive.
    """
    places = {s: i for i, s in enumerate(sources)}
    if isinstance(max_ratio, Mapping):
        given = {place(s, places, "source", "max_ratio"): v for s, v in max_ratio.items()}
    else:
        given = dict.fromkeys(range(len(sources)), max_ratio)
    out = []
    for i, value in given.items():
        ratio = number(value, "max_ratio", "times the prior weight")
        if ratio <= 0:
            raise OptimizeError(f"max_ratio must be above 0, got {value!r}")
        most = ratio * prior[i]
        if most < 1:
            out.append(
                Limit(
                    name=sources[i], kind="cap", sense="<=", coefficients=np.eye(len(sources))[i], value=float(most),
                    per_unit=1 / prior[i] if prior[i] > 0 else math.inf,
                )
            )  # fmt: skip
    return out
