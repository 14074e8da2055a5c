"""What figures of a fit are made of: runs with what the fit says of them, and where they lie on an axis of scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import ReportError
from lawkit.fitting.estimate import estimate
from lawkit.fitting.holdout import split
from lawkit.fitting.prepare import distinct, fitted_cells
from lawkit.mixture.allocate import FLOPS_PER
from lawkit.report._style import listed, power, size
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.fitting import Fit


#: Where draws of parameters come from.
DRAWN = {
    "normal": "the Gauss-Newton normal",
    "laplace": "the Laplace posterior",
    "nuts": "the NUTS posterior",
    "bootstrap": "the bootstrap",
}


@dataclass(frozen=True)
class Scale:
    """What a run's place on the x axis is: the one size that varies, or compute where both do.

    Attributes
    ----------
    columns
        Which of 'n_params' and 'n_tokens' vary.
    label
        Of the axis.
    write
        A value as the axis shows it.
    """

    columns: tuple[str, ...]
    label: str
    write: Callable[[float], str]

    @classmethod
    def of(cls, *tables: Runs, among: frozenset[str] = frozenset({"n_params", "n_tokens"})) -> Scale | None:
        """That of tables of one fit; None where none of the sizes `among` which to look varies."""
        vary = []
        for column in ("n_params", "n_tokens"):
            values = [getattr(t, column) for t in tables]
            if (
                column in among
                and all(v is not None for v in values)
                and distinct(np.concatenate(values)) > 1
            ):
                vary.append(column)
        if len(vary) == 2:
            return cls(tuple(vary), f"training compute, {FLOPS_PER:g} × n_params × n_tokens (flops)", power)
        return cls(tuple(vary), vary[0], size) if vary else None

    def x(self, n_params: Any, n_tokens: Any) -> np.ndarray:
        """(n,) places of runs."""
        if len(self.columns) == 2:
            return FLOPS_PER * n_params * n_tokens
        return np.asarray(n_params if self.columns == ("n_params",) else n_tokens, float)

    def sizes(self, x: np.ndarray, n_params: Any, n_tokens: Any) -> tuple[Any, Any]:
        """n_params and n_tokens at places x (n,) of a curve whose other size is as given."""
        if len(self.columns) == 2:
            return np.broadcast_to(n_params, x.shape), x / (FLOPS_PER * n_params)
        return (x, n_tokens) if self.columns == ("n_params",) else (n_params, x)


class Part:
    """Runs with what the fit says of each.

    Attributes
    ----------
    runs
        The runs.
    observed
        (n, E) their losses, NaN where missing or left out of the fit.
    mean, lower, upper
        (n, E) the prediction and its band.
    level, kind
        Nominal coverage of the band, and what sort it is.
    """

    def __init__(self, fit: Fit, runs: Runs, interval: float) -> None:
        e = fit.estimate
        losses = runs.losses[:, [runs.domains.index(d) for d in fit.domains]]
        said = fit.predict(
            runs.n_params,
            runs.n_tokens,
            runs.weights if fit.sources else None,
            runs.unique,
            interval=interval,
        )
        assert said.lower is not None
        assert said.upper is not None
        self.runs = runs
        self.observed = np.where(fitted_cells(runs, e.own, e.min_weight), losses, np.nan)
        self.mean, self.lower, self.upper = said.mean, said.lower, said.upper
        self.level, self.kind = interval, str(said.kind)

    def coverage(self, domains: Sequence[int]) -> float | None:
        """Share of the losses inside the bands; None where there are no losses."""
        seen = ~np.isnan(self.observed[:, domains])
        inside = (self.observed >= self.lower) & (self.observed <= self.upper)
        return float(inside[:, domains][seen].mean()) if seen.any() else None


def without_held_out(fit: Fit) -> tuple[Fit, Runs] | None:
    """The fit to all but the runs that `fit` was judged by on larger scales, and those runs.

    None where it was judged by none, or by runs chosen at random, which are not on record.
    """
    cut = split(fit.runs, "scale", 0)
    if fit.holdout is None or cut is None or cut[1] != fit.holdout["what"] or "random" in cut[1]:
        return None
    kept, e = fit.runs.select(~cut[0]), fit.estimate
    # From fresh starts: where the kept runs leave a parameter open, those of the whole fit would tell of the others.
    part, _ = estimate(kept, fit.law, e.objective, e.min_weight)
    return replace(fit, runs=kept, estimate=part, draws=None, netcdf=None, holdout=None), fit.runs.select(
        cut[0]
    )


def chosen(fit: Fit, domains: Sequence[str] | None) -> list[int]:
    """Indices of domains by name; all of them for None.

    Raises
    ------
    ReportError
        For a name that the fit does not have.
    """
    if domains is None:
        return list(range(len(fit.domains)))
    if isinstance(domains, str) or not len(domains):
        raise ReportError(f"domains must be a list of names, got {domains!r}")
    if unknown := [d for d in domains if d not in fit.domains]:
        raise ReportError(f"the fit has no domain {unknown[0]!r}; it has {listed(fit.domains)}")
    return [fit.domains.index(d) for d in domains]


def matching(fit: Fit, runs: Runs) -> Runs:
    """Runs that the fit has not seen, if it can say something of them.

    Raises
    ------
    ReportError
        For other sources, and for a domain or a size that is missing.
    """
    if runs.sources != fit.runs.sources:
        raise ReportError(
            f"the held-out runs have sources {listed(runs.sources) or '(none)'}, the fit has "
            f"{listed(fit.runs.sources) or '(none)'}: give runs of the same sources in the same order"
        )
    if missing := [d for d in fit.domains if d not in runs.domains]:
        raise ReportError(
            f"the held-out runs have no loss_{missing[0]}, which the fit predicts: add the column"
        )
    for column in ("n_params", "n_tokens"):
        if column in fit.estimate.recorded and getattr(runs, column) is None:
            raise ReportError(
                f"the held-out runs have no column {column}, which the fitted ones have: add it"
            )
    if not len(runs):
        raise ReportError("there are no held-out runs in the table that was given: give None instead")
    return runs


def at_sizes(sizes: Mapping[str, float | None]) -> str:
    """Sizes in words, those that are known."""
    return ", ".join(f"{c} {size(v)}" for c, v in sizes.items() if v is not None) or "the scale of the runs"
