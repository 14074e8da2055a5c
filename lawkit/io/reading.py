"""From the cells of a table to :class:`lawkit.runs.Runs`: what a column means, which values are possible."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lawkit.errors import RunsError
from lawkit.io._cells import numbers, parse_size, refuse, texts, truths, whole_numbers
from lawkit.io._tables import Table
from lawkit.io.checks import check_runs
from lawkit.runs import Runs

__all__ = ["SUM_TOLERANCE", "runs_from_table"]

SUM_TOLERANCE = 1e-3
# Below this a row's weights already sum to 1 up to rounding; dividing again would change last bits at every
# write and read.
_EXACT_SUM = 1e-12
# A weight computed as one minus the others may come out as -1e-17.
_ROUNDING = 1e-9

SCALARS = ("n_params", "n_tokens", "flops", "run_id", "seed", "is_final")
_ALIASES = {
    "n_params": ("params", "parameters", "num_params", "model_size", "size", "n"),
    "n_tokens": ("tokens", "num_tokens", "training_tokens", "train_tokens", "d"),
}


@dataclass
class _Layout:
    """Which column is what."""

    scalars: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)  # source -> column
    unique: dict[str, str] = field(default_factory=dict)
    losses: dict[str, str] = field(default_factory=dict)  # domain -> column
    errors: dict[str, str] = field(default_factory=dict)  # domain -> column of standard errors
    unknown: list[str] = field(default_factory=list)


def _layout(table: Table) -> _Layout:
    out = _Layout()
    for name in table.names:
        prefix, _, rest = name.partition("_")
        if name in SCALARS:
            out.scalars.append(name)
        elif prefix == "loss" and rest.endswith("_se") and f"loss_{rest[:-3]}" in table.names:
            out.errors[rest[:-3]] = name
        elif prefix in ("weight", "unique", "loss") and rest:
            {"weight": out.weights, "unique": out.unique, "loss": out.losses}[prefix][rest] = name
        else:
            out.unknown.append(name)
    lone = [name for domain, name in out.losses.items() if domain.endswith("_se") and len(domain) > 3]
    if lone:
        raise RunsError(
            f"{table.where}: column {lone[0]!r} is a standard error, but there is no column {lone[0][:-3]!r} "
            "beside it. Add the losses, or rename the column if it is a domain of its own."
        )
    for source in [source for source in out.unique if source not in out.weights]:
        out.unknown.append(out.unique.pop(source))
    return out


def _meant(name: str, layout: _Layout) -> str | None:
    """Guess which column of the runs table a column's name stands for; None where none is near."""
    lower = name.lower()
    if lower != name and (lower in SCALARS or lower.startswith(("weight_", "loss_", "unique_"))):
        return lower
    for known, aliases in _ALIASES.items():
        if lower in aliases and known not in layout.scalars:
            return known
    prefix, _, rest = lower.partition("_")
    if rest and prefix not in ("weight", "unique", "loss"):
        close = difflib.get_close_matches(prefix, ("weight", "unique", "loss"), n=1, cutoff=0.72)
        if close:
            return f"{close[0]}_{rest}"
        if lower.endswith("_loss"):
            return f"loss_{lower[: -len('_loss')]}"
    if prefix == "unique" and rest:
        close = difflib.get_close_matches(rest, layout.weights, n=1)
        return f"unique_{close[0]}" if close else None
    close = difflib.get_close_matches(
        lower, [known for known in SCALARS if known not in layout.scalars], 1, 0.8
    )
    return close[0] if close else None


def _unknown(layout: _Layout) -> tuple[list[str], str]:
    """Make warnings for the columns that are ignored, and a hint for errors where one looks misspelt."""
    meant = {name: _meant(name, layout) for name in layout.unknown}
    warnings = [
        f"column {name!r} is ignored: did you mean {guess!r}? Rename it, or bring the table in with "
        "`lawkit runs import`."
        for name, guess in meant.items()
        if guess
    ]
    plain = [name for name, guess in meant.items() if not guess]
    if plain:
        names = ", ".join(repr(name) for name in plain[:8]) + (
            f" and {len(plain) - 8} more" if len(plain) > 8 else ""
        )
        warnings.append(
            f"not part of the runs table and ignored: {'column' if len(plain) == 1 else 'columns'} {names}."
        )
    guesses = [f"{name!r} (did you mean {guess!r}?)" for name, guess in meant.items() if guess]
    hint = f" Columns that were ignored: {', '.join(guesses[:5])}." if guesses else ""
    return warnings, hint


def runs_from_table(table: Table, *, require_losses: bool = True) -> Runs:
    """Read and check the cells of a table in the columns of the runs table.

    Parameters
    ----------
    table : Table
        Cells as they stand in the file.
    require_losses : bool
        Whether a table without losses is refused.

    Raises
    ------
    RunsError
        At the first rule that the table breaks.
    """
    layout = _layout(table)
    warnings, hint = _unknown(layout)
    where = table.where
    if table.n_rows == 0:
        raise RunsError(f"{where}: the table has a header but no rows. Add one row a trained model.")
    if require_losses and not layout.losses:
        raise RunsError(
            f"{where}: there is no loss_<domain> column; the columns are {_listed(table.names)}. Name the "
            f"losses loss_<domain>, or use `lawkit runs import` with --losses.{hint}"
        )
    if not layout.weights and "n_params" not in layout.scalars and "n_tokens" not in layout.scalars:
        raise RunsError(
            f"{where}: there is no n_params, n_tokens or weight_<source> column; the columns are "
            f"{_listed(table.names)}. Losses need a scale or a mixture to depend on.{hint}"
        )
    weights = _weights(table, layout.weights, hint)
    losses = _losses(table, layout.losses)
    observed = np.asarray((~np.isnan(losses)).any(axis=0))
    domains = [domain for domain, seen in zip(layout.losses, observed, strict=True) if seen]
    empty = [column for column, seen in zip(layout.losses.values(), observed, strict=True) if not seen]
    if require_losses and not domains:
        raise RunsError(f"{where}: every loss is missing ({_listed(empty)}). Fill in the losses of the runs.")
    if empty:
        warnings.append(f"left out, because every loss is missing: {_listed(empty)}.")
    runs = Runs(
        sources=tuple(layout.weights),
        domains=tuple(domains),
        n_params=_sizes(table, layout, "n_params"),
        n_tokens=_sizes(table, layout, "n_tokens"),
        weights=weights,
        losses=losses[:, observed],
        losses_se=_optional(table, domains, layout.errors, "a standard error"),
        unique=_optional(table, list(layout.weights), layout.unique, "a number of unique tokens"),
        flops=_sizes(table, layout, "flops"),
        run_id=texts(table.cells("run_id")) if "run_id" in layout.scalars else None,
        seed=whole_numbers(table.cells("seed"), "seed", where) if "seed" in layout.scalars else None,
        is_final=truths(table.cells("is_final"), "is_final", where) if "is_final" in layout.scalars else None,
        path=None if where == "the table" else where,
    )
    warnings += [finding.message for finding in check_runs(runs) if finding.level == "warning"]
    return replace(runs, warnings=tuple(warnings))


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def _sizes(table: Table, layout: _Layout, column: str) -> np.ndarray | None:
    """Read a column of sizes, shape (n,): every cell a positive, finite count."""
    if column not in layout.scalars:
        return None
    cells = table.cells(column)
    values = numbers(cells, table.label(column), table.where, parse_size)
    wrong: np.ndarray = ~(np.isfinite(values) & (values > 0))
    if wrong.any():
        bad = [(i + 1, table.label(column), cells[i]) for i in np.flatnonzero(wrong).tolist()]
        raise refuse(
            table.where,
            bad,
            f"{column} must be a positive, finite number in every row",
            "Correct those rows or take them out, or remove the column if all runs share one value.",
        )
    return values


def _losses(table: Table, columns: dict[str, str]) -> np.ndarray:
    """Read losses, shape (n, E): positive and finite, or missing."""
    out = np.empty((table.n_rows, len(columns)))
    bad: list[tuple[int, str, object]] = []
    for j, column in enumerate(columns.values()):
        cells = table.cells(column)
        out[:, j] = numbers(cells, table.label(column), table.where)
        with np.errstate(invalid="ignore"):
            wrong = (out[:, j] <= 0) | np.isinf(out[:, j])
        bad += [(i + 1, table.label(column), cells[i]) for i in np.flatnonzero(wrong).tolist()]
    if bad:
        raise refuse(
            table.where,
            bad,
            "a loss must be positive and finite (nats per token)",
            "Leave the cell empty where a run diverged or was not evaluated.",
        )
    return out


def _optional(table: Table, names: Sequence[str], columns: dict[str, str], what: str) -> np.ndarray | None:
    """Read columns that need not be there, shape (n, len(names)), NaN where missing; None if absent."""
    if not any(name in columns for name in names):
        return None
    out = np.full((table.n_rows, len(names)), np.nan)
    for j, name in enumerate(names):
        if name not in columns:
            continue
        cells = table.cells(columns[name])
        out[:, j] = numbers(cells, table.label(columns[name]), table.where, parse_size)
        with np.errstate(invalid="ignore"):
            wrong = (out[:, j] <= 0) | np.isinf(out[:, j])
        if wrong.any():
            bad = [(i + 1, table.label(columns[name]), cells[i]) for i in np.flatnonzero(wrong).tolist()]
            raise refuse(
                table.where,
                bad,
                f"{what} must be positive and finite",
                "Leave the cell empty if it is unknown.",
            )
    return out


def _weights(table: Table, columns: dict[str, str], hint: str) -> np.ndarray:
    """Read weights, shape (n, K), every row normalised to sum 1."""
    out = np.empty((table.n_rows, len(columns)))
    if not columns:
        return out
    bad: list[tuple[int, str, object]] = []
    for j, column in enumerate(columns.values()):
        cells = table.cells(column)
        out[:, j] = numbers(cells, table.label(column), table.where)
        wrong = ~(np.isfinite(out[:, j]) & (out[:, j] >= -_ROUNDING))
        bad += [(i + 1, table.label(column), cells[i]) for i in np.flatnonzero(wrong).tolist()]
    if bad:
        raise refuse(
            table.where,
            bad,
            "a weight must be a finite number of at least 0, and 0 must be written out",
            "Correct the mixture of those rows.",
        )
    out = np.maximum(out, 0.0)
    with np.errstate(over="ignore"):
        sums = out.sum(axis=1)
    off = np.flatnonzero(~(np.abs(sums - 1.0) <= SUM_TOLERANCE))
    if len(off):
        named = ", ".join(f"row {i + 1}: {sums[i]:.6g}" for i in off[:5])
        more = f" and {len(off) - 5} more rows" if len(off) > 5 else ""
        raise RunsError(
            f"{table.where}: the weights of a row must sum to 1 within {SUM_TOLERANCE:g}, but their sums are "
            f"{named}{more}. {_sum_advice(sums)}{hint}"
        )
    rounded = np.abs(sums - 1.0) > _EXACT_SUM
    out[rounded] /= sums[rounded, None]
    return out


def _sum_advice(sums: np.ndarray) -> str:
    if np.median(np.abs(sums - 100.0)) < 0.5:
        return "They look like percentages: divide them by 100, or `lawkit runs import FILE --normalize`."
    if np.all(np.abs(sums - 1.0) < 0.02):
        return "They look rounded: `lawkit runs import FILE --normalize` divides each row by its sum."
    if np.median(sums) > 1000:
        return (
            "They look like token counts: `lawkit runs import FILE --normalize` divides each row by its sum."
        )
    absent = (
        "A weight_<source> column may be missing." if np.median(sums) < 1 else "Two columns may count twice."
    )
    return f"Correct those rows. {absent}"
