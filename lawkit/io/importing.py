"""Other people's tables, brought into the runs table: column patterns, joins, formats of other tools."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.errors import RunsError
from lawkit.io._cells import numbers, parse_size, refuse
from lawkit.io._formats import FORMATS, Plan
from lawkit.io._join import guess_on, join_tables
from lawkit.io._patterns import match_columns, require_column
from lawkit.io._repeats import last_checkpoints
from lawkit.io._tables import Table, read_table
from lawkit.io.reading import SCALARS, runs_from_table

if TYPE_CHECKING:
    import pandas as pd

    from lawkit.runs import Runs

__all__ = ["FORMATS", "import_runs"]

_Path = str | os.PathLike[str]


def import_runs(
    files: _Path | pd.DataFrame | Sequence[_Path | pd.DataFrame],
    *,
    on: str | None = None,
    format: str | None = None,
    params_column: str | None = None,
    tokens_column: str | None = None,
    flops_column: str | None = None,
    run_id_column: str | None = None,
    seed_column: str | None = None,
    weights: str | Sequence[str] | None = None,
    losses: str | Sequence[str] | None = None,
    unique: str | Sequence[str] | None = None,
    source: str | None = None,
    n_params: float | None = None,
    n_tokens: float | None = None,
    params_scale: float = 1.0,
    tokens_scale: float = 1.0,
    normalize: bool = False,
    mark_final: bool = False,
) -> Runs:
    """Bring one or several tables into the runs table.

    Parameters
    ----------
    files : path, DataFrame, or sequence of them
        Several are joined row by row.
    on : str, optional
        The column to join on; by default run_id, run, index, id or name where every file has it.
    format : {"regmix", "olmix"}, optional
        The tables of these tools: a file of mixtures and a file of losses.
    params_column, tokens_column : str, optional
        Columns of sizes; `n_params` and `n_tokens` where there are such columns.
    flops_column : str, optional
        Training compute C. Without a column of tokens they are derived as C / (6 n_params).
    run_id_column, seed_column : str, optional
        Columns to keep as run_id and seed.
    weights, losses, unique : str or sequence of str, optional
        Column patterns: `weight_{}`, `NAME=COLUMN` or a plain column. By default weights match `weight_{}`
        and losses `{}_loss`, else `loss_{}`.
    source : str, optional
        All runs were trained on this one source, with weight 1.
    n_params, n_tokens : float, optional
        The size of every run, where the files do not say.
    params_scale, tokens_scale : float
        Factors that turn the columns into counts: 1e9 for billions. Unique tokens take `tokens_scale` too.
    normalize : bool
        Divide every row's weights by their sum (percentages, token counts, rounded fractions).
    mark_final : bool
        Add the column is_final: true on the row with the most tokens of every run, false on its checkpoints.

    Returns
    -------
    Runs
        Checked like any table; its `warnings` say what was assumed.

    Raises
    ------
    RunsError
        When a column is missing, files do not join, or a cell is impossible; messages name the
        user's columns.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"size": [0.07, 0.16], "tok": [2, 2], "final_loss": [3.5, 3.25]})
    >>> runs = import_runs(table, params_column="size", params_scale=1e9, tokens_column="tok",
    ...     tokens_scale=1e9, losses="web=final_loss")
    >>> runs.n_params.tolist(), runs.domains
    ([70000000.0, 160000000.0], ('web',))
    """
    single = isinstance(files, str | os.PathLike) or hasattr(files, "iloc")
    tables = [read_table(file) for file in ([files] if single else files)]  # pyright: ignore[reportGeneralTypeIssues]
    if not tables:
        raise RunsError("no file to import. Name at least one table.")
    plan = Plan()
    if format is not None:
        if format not in FORMATS:
            raise RunsError(
                f"unknown format {format!r}; there are {', '.join(FORMATS)}, or none for column patterns."
            )
        tables, plan = FORMATS[format](tables, _listed(losses))
    warnings = list(plan.warnings)
    for name, given, column in (("n_params", n_params, params_column), ("n_tokens", n_tokens, tokens_column)):
        if given is not None:
            plan = replace(plan, **{name: float(given)})
        elif column is None and name in plan.assumed:
            warnings.append(plan.assumed[name])
    if len(tables) > 1:
        on = on or plan.on or guess_on(tables)
        table, unmatched = join_tables(tables, on)
        warnings += unmatched
    else:
        table = tables[0]
        if on is not None:
            require_column(on, table.names, table.where, "--on")
    builder = _Builder(table)
    builder.sizes("n_params", params_column, "--params-column", params_scale, plan.n_params)
    builder.flops(flops_column)
    builder.sizes("n_tokens", tokens_column, "--tokens-column", tokens_scale, plan.n_tokens)
    builder.tokens_from_flops(flops_column)
    builder.keep("run_id", run_id_column, "--run-id-column", plan.run_id or (on if len(tables) > 1 else None))
    builder.keep("seed", seed_column, "--seed-column", None)
    builder.keep("is_final", None, "", None)
    sources = builder.weights(_listed(weights) or plan.weights, source, normalize, plan.rounding)
    builder.unique(_listed(unique), sources, tokens_scale)
    builder.losses((() if format == "olmix" else _listed(losses)) or plan.losses)
    runs = runs_from_table(builder.table())
    if mark_final:
        builder.columns["is_final"] = last_checkpoints(runs).tolist()
        runs = runs_from_table(builder.table())
    return replace(runs, warnings=(*warnings, *builder.warnings, *runs.warnings))


def _listed(patterns: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if patterns is None else (patterns,) if isinstance(patterns, str) else tuple(patterns)


class _Builder:
    """Columns of the runs table, collected from a table with other names."""

    def __init__(self, source: Table) -> None:
        self.source = source
        self.columns: dict[str, Sequence[object]] = {}
        self.labels: dict[str, str] = {}
        self.warnings: list[str] = []

    def table(self) -> Table:
        """Return what was collected."""
        s = self.source
        return Table(tuple(self.columns), s.n_rows, s.where, self.columns.__getitem__, self.labels)

    def _take(self, name: str, column: str) -> Sequence[object]:
        self.columns[name] = self.source.cells(column)
        self.labels[name] = column
        return self.columns[name]

    def _scaled(self, name: str, column: str, scale: float) -> None:
        cells = self._take(name, column)
        if scale != 1.0:
            with np.errstate(over="ignore"):  # an infinite size is refused by the reader
                self.columns[name] = (numbers(cells, column, self.source.where, parse_size) * scale).tolist()

    def sizes(self, name: str, column: str | None, option: str, scale: float, constant: float | None) -> None:
        """Take n_params or n_tokens from a column, or set it to a constant."""
        names = self.source.names
        if column is None and constant is not None:
            self.columns[name] = [constant] * self.source.n_rows
            return
        column = column or (name if name in names else None)
        if column is not None:
            self._scaled(name, require_column(column, names, self.source.where, option), scale)

    def flops(self, column: str | None) -> None:
        """Keep training compute."""
        names = self.source.names
        if column is not None:
            require_column(column, names, self.source.where, "--flops-column")
        if column is not None or "flops" in names:
            self._take("flops", column or "flops")

    def tokens_from_flops(self, column: str | None) -> None:
        """Derive tokens as C / (6 N) where a column of compute was named and no tokens are known."""
        if column is None or "n_tokens" in self.columns:
            return
        if "n_params" not in self.columns:
            raise RunsError(
                f"{self.source.where}: tokens follow from --flops-column only together with the number "
                "of parameters. Give --params-column or --n-params."
            )
        where = self.source.where
        compute = numbers(self.columns["flops"], column, where, parse_size)
        params = numbers(self.columns["n_params"], self.labels.get("n_params", "n_params"), where, parse_size)
        for values, name in ((compute, "flops"), (params, "n_params")):
            wrong = ~(np.isfinite(values) & (values > 0))
            if wrong.any():
                bad = [
                    (i + 1, self.labels.get(name, name), values[i]) for i in np.flatnonzero(wrong).tolist()
                ]
                raise refuse(
                    where, bad, f"{name} must be positive and finite", "Correct or remove those rows."
                )
        with np.errstate(over="ignore", under="ignore"):
            self.columns["n_tokens"] = (compute / (6.0 * params)).tolist()
        self.warnings.append(f"n_tokens is derived as {column} / (6 n_params).")

    def keep(self, name: str, column: str | None, option: str, default: str | None) -> None:
        """Keep a column that may be there."""
        names = self.source.names
        if column is not None:
            self._take(name, require_column(column, names, self.source.where, option))
        elif name in names:
            self._take(name, name)
        elif default is not None and default in names:
            self._take(name, default)

    def weights(
        self, patterns: tuple[str, ...], source: str | None, normalize: bool, rounding: float
    ) -> list[str]:
        """Take the mixture; return the sources."""
        where = self.source.where
        if source is not None:
            if patterns:
                raise RunsError(
                    f"{where}: --source {source} and --weights exclude each other. Give one of them."
                )
            self.columns[f"weight_{source}"] = [1.0] * self.source.n_rows
            return [source]
        found = match_columns(patterns or ("weight_{}",), self.source.names, where, "--weights")
        if patterns and not found:
            raise RunsError(
                f"{where}: no column matches --weights {' '.join(patterns)}; the columns are "
                f"{', '.join(map(repr, self.source.names[:20]))}. Write {{}} where the source's name stands."
            )
        if not found and any(name.startswith("train_the_pile_") for name in self.source.names):
            raise RunsError(f"{where}: the columns look like RegMix's. Use --format regmix, or --weights.")
        for name, column in found.items():
            self._take(f"weight_{name}", column)
        if found and (normalize or rounding):
            self._normalize(list(found), normalize, rounding)
        return list(found)

    def _normalize(self, sources: list[str], always: bool, rounding: float) -> None:
        names = [f"weight_{source}" for source in sources]
        where = self.source.where
        values = np.column_stack([numbers(self.columns[n], self.labels[n], where) for n in names])
        if not (np.isfinite(values) & (values >= 0)).all():
            return  # the reader refuses these cells and names them
        with np.errstate(over="ignore"):
            sums = values.sum(axis=1)
        empty = np.flatnonzero(sums == 0)
        if len(empty):
            bad = [(i + 1, "weights", 0.0) for i in empty.tolist()]
            raise refuse(
                where, bad, "the weights of a row must not all be 0", "Fill in the mixtures of those rows."
            )
        off = float(np.abs(sums - 1.0).max())
        if not always and off > rounding:
            return
        if off > 1e-6:
            self.warnings.append(f"weights were divided by their sums, {sums.min():.6g} to {sums.max():.6g}.")
        values = values / sums[:, None]
        self.columns.update({name: values[:, j].tolist() for j, name in enumerate(names)})

    def unique(self, patterns: tuple[str, ...], sources: list[str], scale: float) -> None:
        """Take the numbers of unique tokens."""
        where = self.source.where
        found = match_columns(patterns or ("unique_{}",), self.source.names, where, "--unique")
        if not patterns:
            found = {name: column for name, column in found.items() if name in sources}
        elif len(found) == 1 and len(sources) == 1:
            found = {sources[0]: next(iter(found.values()))}
        unknown = [name for name in found if name not in sources]
        if unknown:
            raise RunsError(
                f"{where}: --unique names {unknown[0]!r}, which is no source; the sources are "
                f"{', '.join(sources) or 'none (give --weights or --source)'}. Write --unique SOURCE=COLUMN."
            )
        for name, column in found.items():
            self._scaled(f"unique_{name}", column, scale)

    def losses(self, patterns: tuple[str, ...]) -> None:
        """Take the losses and, under the runs table's own names, their standard errors."""
        names, where = self.source.names, self.source.where
        taken = set(self.labels.values()) | set(SCALARS)
        free = [name for name in names if name not in taken]
        found: dict[str, str] = {}
        for option in [patterns] if patterns else [("{}_loss",), ("loss_{}",)]:
            found = match_columns(option, free, where, "--losses", strip="loss")
            if found:
                break
        errors = {name for name in found if name.endswith("_se") and name.removesuffix("_se") in found}
        found = {name: column for name, column in found.items() if name not in errors}
        if not found:
            raise RunsError(
                f"{where}: no column matches --losses {' '.join(patterns) or '{}_loss'}; the columns are "
                f"{', '.join(map(repr, names[:20]))}. Write {{}} where the domain's name stands."
            )
        for name, column in found.items():
            self._take(f"loss_{name}", column)
            if f"{column}_se" in names:
                self._take(f"loss_{name}_se", f"{column}_se")
