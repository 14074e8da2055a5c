"""What a runs table must hold to be fitted by a law, and the objective that the two make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.solver import LeastSquares, Target
from lawkit.laws._function import Inputs
from lawkit.laws._law import Law, Objective, PriorContext
from lawkit.runs import Runs


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A law and runs, ready to be fitted: what `prepare` makes of them.

    Attributes
    ----------
    problem
        The objective, for G groups.
    context
        What priors and starts depend on.
    domains, own, recorded, n_ref, d_ref
        As in `Estimate`.
    size
        Number of parameters P of a group.
    warnings
        What was left out, and priors that had to stand in for runs.
    """

    law: Law
    problem: LeastSquares
    context: PriorContext
    domains: tuple[str, ...]
    own: np.ndarray
    recorded: frozenset[str]
    n_ref: float
    d_ref: float
    size: int
    warnings: list[str]


def prepare(runs: Runs, law: Law, objective: Objective, min_weight: float = 0.0) -> Prepared:
    """Turns runs into the objective that is minimised.

    Raises
    ------
    FitError
        If the table lacks what the law needs, or has fewer losses than parameters (and the law no priors).
    """
    check_columns(law, runs)
    keep, warnings = usable_domains(law, runs)
    domains = tuple(runs.domains[i] for i in keep)
    own = np.array([runs.sources.index(d) if d in runs.sources else -1 for d in domains])
    groups = own[None, :] if law.coupled else own[:, None]
    scale = [np.ones(len(runs)) if v is None else v for v in (runs.n_params, runs.n_tokens)]
    n_ref, d_ref = (float(np.exp(np.log(v).mean())) for v in scale)
    recorded = recorded_sizes(runs)
    unique = total_unique(runs.weights, runs.unique)
    if "unique" in law.columns and unique is not None and np.isnan(unique).any():
        raise FitError(
            f"law {law.name!r} needs the tokens that exist of every source in use; unique_<source> is empty in "
            f"{rows_text(runs.rows[np.isnan(unique)])}: fill it in, or choose another law"
        )
    x = Inputs(
        n_params=scale[0],
        n_tokens=scale[1],
        weights=runs.weights,
        own=groups,
        unique=unique,
        n_ref=n_ref,
        d_ref=d_ref,
    )
    masked = np.isnan(runs.losses[:, keep]) | ~fitted_cells(runs, own, min_weight)
    losses = np.where(masked, 1.0, runs.losses[:, keep])
    size = law.n_parameters(len(runs.sources))
    has_priors = objective.sigma is not None and any(p.prior for p in law.parameters)
    warnings += _check_size(law, size, domains, masked, has_priors)
    omega = scale[1] ** objective.token_power
    cells = np.where(masked, 0.0, (omega / omega.mean())[:, None])
    lowest = np.where(masked, np.inf, losses).min(0)
    context = PriorContext(
        lowest_loss=lowest[None] if law.coupled else lowest[:, None],
        own=groups,
        n_sources=len(runs.sources),
        n_model_sizes=distinct(scale[0]),
        n_scales=len(np.unique(np.column_stack([same_size(v) for v in scale]), axis=0)),
    )
    mean = root = None
    if has_priors:
        mean, covariance = law.prior(context)
        root = np.linalg.inv(np.linalg.cholesky(covariance))
    stack = (lambda a: a[None]) if law.coupled else (lambda a: a.T[:, :, None])
    problem = LeastSquares(law.function, x, Target(stack(losses), stack(cells), mean, root), objective)
    return Prepared(
        law=law, problem=problem, context=context, domains=domains, own=own, recorded=recorded, n_ref=n_ref,
        d_ref=d_ref, size=size, warnings=warnings,
    )  # fmt: skip


def usable_domains(law: Law, runs: Runs) -> tuple[list[int], list[str]]:
    """Indices of the domains that `law` can be fitted to, in its order, and warnings about the others.

    Raises
    ------
    FitError
        If none is left, or a coupled law lacks a source among the domains.
    """
    if not law.needs_own_source:
        return list(range(len(runs.domains))), []
    if law.coupled:
        missing = [s for s in runs.sources if s not in runs.domains]
        if missing:
            raise FitError(
                f"law {law.name!r} needs every source to be an evaluation domain as well; the table has no column "
                f"loss_{missing[0]}"
                + (f" (nor {len(missing) - 1} more)" if missing[1:] else "")
                + ": choose another law"
            )
        keep = [runs.domains.index(s) for s in runs.sources]
    else:
        keep = [i for i, d in enumerate(runs.domains) if d in runs.sources]
    if runs.domains and not keep:
        raise FitError(
            f"law {law.name!r} needs domains that are sources; none of {', '.join(runs.domains)} is one of the sources "
            f"{', '.join(runs.sources) or '(none)'}: choose another law"
        )
    left = [d for i, d in enumerate(runs.domains) if i not in keep]
    return keep, [
        f"domain {d!r} is not a source; law {law.name!r} cannot be fitted to it, so it is left out"
        for d in left
    ]


def check_values(runs: Runs) -> None:
    """Refuses numbers that no law can be fitted to; tables that were read from a file never hold them.

    Raises
    ------
    FitError
        Naming the column, the row and the value.
    """
    if not len(runs):
        raise FitError("the runs table is empty: nothing to fit")
    if len(runs) == 1:
        raise FitError("there is one run only, and no law can be fitted to one: add runs")
    if not runs.domains:
        raise FitError("the runs table has no loss_<domain> column: nothing to fit")
    columns: list[tuple[str, np.ndarray | None, float]] = [
        ("n_params", runs.n_params, 0),
        ("n_tokens", runs.n_tokens, 0),
    ]
    columns += [
        (f"loss_{d}", np.where(np.isnan(v), 1.0, v), 0)
        for d, v in zip(runs.domains, runs.losses.T, strict=True)
    ]
    columns += [(f"weight_{s}", v, -1e-300) for s, v in zip(runs.sources, runs.weights.T, strict=True)]
    for name, values, above in columns:
        if values is not None and (bad := ~((values > above) & np.isfinite(values))).any():
            row = int(np.argmax(bad))
            what = "positive and finite" if above == 0 else "finite and not negative"
            raise FitError(
                f"{name} must be {what}, got {values[row]!r} in {rows_text(runs.rows[bad])}: correct or remove it"
            )


def check_columns(law: Law, runs: Runs) -> None:
    """Refuses a law whose columns the table lacks.

    Raises
    ------
    FitError
        Naming the column.
    """
    if "weights" in law.columns and not runs.sources:
        raise FitError(
            f"law {law.name!r} needs mixture weights; the table has no weight_<source> column: "
            "choose a law of scale only"
        )
    if "unique" in law.columns and runs.unique is None:
        raise FitError(
            f"law {law.name!r} needs the tokens that exist of each source; the table has no unique_<source> column"
        )
    for column in ("n_params", "n_tokens"):
        # A mixture law may be fitted to runs of one scale; a law of scale only may not.
        if column in law.columns and getattr(runs, column) is None and "weights" not in law.columns:
            raise FitError(f"law {law.name!r} needs the column {column}, which the table does not have")


def _check_size(
    law: Law, size: int, domains: tuple[str, ...], masked: np.ndarray, has_priors: bool
) -> list[str]:
    counts = (~masked).sum(0)
    if empty := [d for d, c in zip(domains, counts, strict=True) if c == 0]:
        which = some(empty, 5)
        raise FitError(
            f"no loss to fit of {'domains' if empty[1:] else 'domain'} {which}: leave "
            f"{'them' if empty[1:] else 'it'} out with --domain, or add runs that have {'them' if empty[1:] else 'it'}"
        )
    found = [(", ".join(domains), counts.sum())] if law.coupled else list(zip(domains, counts, strict=True))
    few = [(domain, int(count)) for domain, count in found if count < size]
    if not few:
        return []
    named = [f"{count} {'loss' if count == 1 else 'losses'} of {domain}" for domain, count in few]
    which = ", ".join(named[:5]) + (f" and as few of {len(few) - 5} more" if named[5:] else "")
    text = f"{which} for {size} parameters of law {law.name!r}"
    if not has_priors:
        raise FitError(f"{text}: add runs or choose a law with fewer parameters (`lawkit laws` lists them)")
    return [f"{text}: where the runs are silent its priors speak"]


def recorded_sizes(runs: Runs) -> frozenset[str]:
    """Which of 'n_params' and 'n_tokens' the runs have."""
    return frozenset(c for c in ("n_params", "n_tokens") if getattr(runs, c) is not None)


def fitted_cells(runs: Runs, own: np.ndarray, min_weight: float) -> np.ndarray:
    """(n, E) cells whose own source has at least `min_weight`; all where a domain (`own` -1) has no own source."""
    out = np.ones((len(runs), len(own)), bool)
    if min_weight > 0 and runs.sources:
        out[:, own >= 0] = runs.weights[:, own[own >= 0]] >= min_weight
    return out


def total_unique(weights: np.ndarray, unique: np.ndarray | None) -> np.ndarray | None:
    """(n,) tokens that exist of all sources in use, from (n, K) by source; NaN where one of them is not known."""
    return None if unique is None else np.where(weights > 0, unique, 0.0).sum(1)


def rows_text(rows: np.ndarray | list[int], most: int = 5) -> str:
    """'row 3', or 'rows 3, 7 and 2 more', for messages."""
    return ("rows " if len(rows) > 1 else "row ") + some([str(r) for r in rows], most)


def some(items: list[str], most: int = 4) -> str:
    """At most `most` of the items, then how many more, for messages."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def distinct(values: np.ndarray) -> int:
    """How many values differ by more than 2%."""
    return int(same_size(values).max() + 1) if len(values) else 0


def same_size(values: np.ndarray) -> np.ndarray:
    """(n,) which of the sizes that differ by more than 2% each value is, counted from 0 in increasing order."""
    order = np.argsort(values)
    out = np.empty(len(values), int)
    out[order] = np.r_[0, np.cumsum(np.diff(np.log(values[order])) > 0.02)][: len(values)]
    return out
