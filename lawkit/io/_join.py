"""Several files joined row by row on a column that both have."""

from __future__ import annotations

from collections.abc import Sequence

from lawkit.errors import RunsError
from lawkit.io._cells import describe_rows, is_missing
from lawkit.io._patterns import require_column
from lawkit.io._tables import Table

__all__ = ["guess_on", "join_tables"]


def join_tables(tables: Sequence[Table], on: str) -> tuple[Table, list[str]]:
    """Join tables on the values of a column, in the order of the first table.

    Parameters
    ----------
    tables : sequence of Table
        At least one. Each has the column, and no value twice in it.
    on : str
        The column.

    Returns
    -------
    Table
        All columns; a column that several files have is the first file's where they agree.
    list of str
        Warnings: rows without a partner are left out.

    Raises
    ------
    RunsError
        When the column is missing, holds a value twice or is empty somewhere, or no row has a partner.
    """
    where = " with ".join(table.where for table in tables) + f" joined on {on!r}"
    positions = [_positions(table, on) for table in tables]
    keys = [key for key in positions[0] if all(key in other for other in positions[1:])]
    if not keys:
        samples = " and ".join(
            f"{next(iter(place), None)!r} ({t.where})" for place, t in zip(positions, tables, strict=True)
        )
        raise RunsError(
            f"{where}: no row of one has a partner in the other; their values begin {samples}. Check --on."
        )
    warnings = [
        f"{table.where}: {len(place) - len(keys)} of {len(place)} rows have no partner on {on!r}; left out."
        for place, table in zip(positions, tables, strict=True)
        if len(place) > len(keys)
    ]
    columns: dict[str, list[object]] = {}
    for table, place in zip(tables, positions, strict=True):
        for name in table.names:
            cells = table.cells(name)
            picked = [cells[place[key]] for key in keys]
            if name in columns and name != on:
                # Two different columns of one name would be silently mixed up; keep both under telling names.
                if columns[name] != picked:
                    columns[f"{name} ({table.where})"] = picked
            else:
                columns.setdefault(name, picked)
    return Table(tuple(columns), len(keys), where, columns.__getitem__), warnings


def _positions(table: Table, on: str) -> dict[str, int]:
    """Where each value of the column stands: value -> row, counted from 0."""
    require_column(on, table.names, table.where, "--on")
    places: dict[str, int] = {}
    for i, cell in enumerate(table.cells(on)):
        if is_missing(cell):
            raise RunsError(
                f"{table.where}: row {i + 1} has no {on!r} to join on. Fill it in or remove the row."
            )
        key = _key(cell)
        if key in places:
            raise RunsError(
                f"{table.where}: {on!r} is {key!r} in {describe_rows([places[key] + 1, i + 1])}, so that "
                "the row to join with is not certain. Join on a column whose values are unique."
            )
        places[key] = i
    return places


def _key(cell: object) -> str:
    """Spell a value one way, whether it came as 7, 7.0 or " 7"."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def guess_on(tables: Sequence[Table]) -> str:
    """Say which column to join on where the user did not.

    Raises
    ------
    RunsError
        Always when none of the usual names is in every table.
    """
    shared = [name for name in tables[0].names if all(name in table.names for table in tables[1:])]
    for name in ("run_id", "run", "index", "id", "name"):
        if name in shared:
            return name
    files = ", ".join(table.where for table in tables)
    hint = f" They share {', '.join(repr(name) for name in shared[:8])}." if shared else " They share none."
    raise RunsError(
        f"{files}: several files need --on COLUMN, a column with a unique value a run in each.{hint}"
    )
