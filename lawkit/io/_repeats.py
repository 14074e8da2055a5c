"""Rows that say the same thing twice: duplicates, copies, repeats of a setting, checkpoints of one run."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lawkit.io._cells import describe_rows
from lawkit.io._findings import Finding, by_key, column

if TYPE_CHECKING:
    from lawkit.runs import Runs

__all__ = ["checkpoints", "last_checkpoints", "repeats", "settings"]


def settings(runs: Runs, *, tokens: bool, seed: bool) -> list[Hashable]:
    """Describe what was trained, one hashable a row: sizes, mixture and, on request, tokens and seed."""
    n = len(runs)
    columns = [column(runs.n_params, n), [tuple(row) for row in runs.weights.tolist()]]
    if runs.unique is not None:
        columns.append([tuple(-1.0 if x != x else x for x in row) for row in runs.unique.tolist()])
    if tokens:
        columns.append(column(runs.n_tokens, n))
    if seed:
        columns.append(column(runs.seed, n))
    return list(zip(*columns, strict=True))


def repeats(runs: Runs) -> Iterator[Finding]:
    """Find duplicate rows, settings trained several times, copied losses and clashing run ids."""
    each = settings(runs, tokens=True, seed=True)
    ids = column(runs.run_id, len(runs))
    losses = [tuple(-1.0 if x != x else x for x in row) for row in runs.losses.tolist()]
    same = [rows for rows in by_key(zip(each, ids, losses, strict=True)).values() if len(rows) > 1]
    if same and runs.domains:
        extra = sorted(i for rows in same for i in rows[1:])
        message = f"{describe_rows(runs.rows[extra])} repeat an earlier row exactly and would count double. "
        yield Finding("warning", "duplicates", message + "Remove them.", tuple(runs.rows[extra].tolist()))
    repeated = [rows for rows in by_key(settings(runs, tokens=True, seed=False)).values() if len(rows) > 1]
    repeated = [rows for rows in repeated if len({losses[i] for i in rows}) > 1]
    if repeated:
        count = sum(len(rows) for rows in repeated)
        message = (
            f"{len(repeated)} settings were trained more than once ({count} runs): their spread is noise."
        )
        yield Finding("note", "repeats", message, tuple(int(runs.rows[i]) for rows in repeated for i in rows))
    if len(runs.domains) > 1:
        groups = [g for g in by_key(losses).values() if len(g) > 1 and len({each[i] for i in g}) > 1]
        copied = [g for g in groups if (~np.isnan(runs.losses[g[0]])).sum() > 1]
        if copied:
            rows = tuple(int(runs.rows[i]) for g in copied for i in g)
            message = f"{len(rows)} rows carry exactly the losses of another row at another setting (such as "
            message += (
                f"{describe_rows(runs.rows[copied[0]])}): one of each is a copy. Remove it or correct it."
            )
            yield Finding("warning", "copied-losses", message, rows)
    if runs.run_id is not None:
        clash: list[int] = []
        stands = settings(runs, tokens=False, seed=True)
        for name, rows in by_key(ids).items():
            if name and len({stands[i] for i in rows}) > 1:
                clash += rows
        if clash:
            message = (
                f"{describe_rows(runs.rows[clash])} share a run_id but not model size, mixture or seed. "
            )
            yield Finding(
                "warning", "run-id", message + "Give every run its own.", tuple(runs.rows[clash].tolist())
            )


def checkpoints(runs: Runs) -> Iterator[Finding]:
    """Find rows of one training run at several token counts, whose errors are not independent."""
    if runs.is_final is not None:
        passing = ~runs.is_final
        if passing.any():
            message = (
                f"{int(passing.sum())} of {len(runs)} rows are intermediate checkpoints (is_final is false)."
            )
            yield Finding("note", "checkpoints", message, tuple(runs.rows[passing].tolist()), ("is_final",))
        return
    if runs.n_tokens is None:
        return
    named = runs.run_id is not None and any(runs.run_id)
    # Without names, one model size at many token counts may be honest separate runs when no mixture tells
    # runs apart; with three or more counts of one mixture, size and seed it hardly is.
    if not named and not runs.sources:
        return
    keys = column(runs.run_id, len(runs)) if named else settings(runs, tokens=False, seed=True)
    tokens = runs.n_tokens.tolist()
    fewest = 2 if named else 3
    groups = [
        rows for name, rows in by_key(keys).items() if name and len({tokens[i] for i in rows}) >= fewest
    ]
    count = sum(len(rows) for rows in groups)
    if not groups or (not named and count < len(runs) / 2):
        return
    most = max(len({tokens[i] for i in rows}) for rows in groups)
    what = "share a run_id" if named else "share mixture, n_params and seed"
    rows = tuple(int(runs.rows[i]) for group in groups for i in group)
    message = (
        f"{count} rows look like checkpoints of {len(groups)} runs ({describe_rows(runs.rows[groups[0]])} "
        f"{what}, at up to {most} token counts): before the learning rate has decayed the loss sits above a "
        "finished run's, and their errors are not independent. A fit takes every row: keep the finished ones only, "
        "or add a column is_final (`lawkit runs import --mark-final`), with which it says how many are not finished."
    )
    yield Finding("warning", "checkpoints", message, rows, ("n_tokens",))


def last_checkpoints(runs: Runs) -> np.ndarray:
    """Find the row with the most tokens of every run, shape (n,), bool.

    Rows of one run share their run_id or, where the table names no runs, mixture, n_params and seed.
    """
    final = np.ones(len(runs), dtype=bool)
    if runs.n_tokens is not None:
        named = runs.run_id is not None and any(runs.run_id)
        keys = column(runs.run_id, len(runs)) if named else settings(runs, tokens=False, seed=True)
        for name, rows in by_key(keys).items():
            if name:
                final[rows] = runs.n_tokens[rows] == runs.n_tokens[rows].max()
    return final
