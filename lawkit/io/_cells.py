"""Cells of a table turned into numbers, exactly, with errors that name the row and the column."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np

from lawkit.errors import RunsError

__all__ = ["describe_rows", "numbers", "parse_size", "refuse", "texts", "truths", "whole_numbers"]

MISSING_WORDS = frozenset({"", "nan", "na", "n/a", "<na>", "null", "none"})
SIZE_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_SIZE = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([KMBT])", re.IGNORECASE)
_MOST_ROWS = 5


def describe_rows(rows: Sequence[int] | np.ndarray, most: int = _MOST_ROWS) -> str:
    """Name data rows for a message: at most `most` of them, then how many more.

    Examples
    --------
    >>> describe_rows([3])
    'row 3'
    >>> describe_rows([1, 2, 3, 4, 5, 6, 7])
    'rows 1, 2, 3, 4, 5 and 2 more'
    """
    names = [str(int(row)) for row in rows]
    if len(names) == 1:
        return f"row {names[0]}"
    if len(names) <= most:
        return f"rows {', '.join(names[:-1])} and {names[-1]}"
    return f"rows {', '.join(names[:most])} and {len(names) - most} more"


def shown(value: object) -> str:
    """Show a value as a message does: its repr, cut where it is long."""
    text = repr(float(value)) if isinstance(value, np.floating) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def refuse(where: str, bad: Sequence[tuple[int, str, object]], rule: str, action: str) -> RunsError:
    """Make the error for bad cells: at most five of them named by row, column and value, and a count.

    Parameters
    ----------
    where : str
        The file, or "the table".
    bad : sequence of (row, column, value)
        The cells at fault, data row 1 being the first under the header.
    rule : str
        What a cell of this kind must be, as in "a loss must be a positive number (nats per token)".
    action : str
        What to do next.
    """
    cells = [f"row {row}, column {column!r}: {shown(value)}" for row, column, value in bad[:_MOST_ROWS]]
    if len(bad) > _MOST_ROWS:
        cells.append(f"and {len(bad) - _MOST_ROWS} more such cells")
    return RunsError(f"{where}: {rule}, but found {'; '.join(cells)}. {action}")


def is_missing(value: object) -> bool:
    """Whether a cell is empty: None, NaN, pandas' NA or NaT, or one of the usual words for it."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip().lower() in MISSING_WORDS
    if isinstance(value, float):
        return value != value
    return type(value).__name__ in {"NAType", "NaTType"}


def parse_number(value: object) -> float:
    """Read the number in a cell exactly; NaN for an empty cell.

    Raises
    ------
    ValueError
        When the cell holds something else (a word, a truth value, a list).
    """
    if isinstance(value, float):
        return value
    if is_missing(value):
        return float("nan")
    if isinstance(value, str):
        # Python's float also takes 1_000 and non-ASCII digits; a table with those is more likely broken.
        if "_" in value or not value.isascii():
            raise ValueError(value)
        return float(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | Decimal | np.number):
        raise ValueError(value)
    if isinstance(value, np.complexfloating):
        raise ValueError(value)
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def parse_size(value: object) -> float:
    """Read a number of parameters or tokens: a plain number, or one with K, M, B or T after it.

    Examples
    --------
    >>> parse_size("1.4B")
    1400000000.0
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match:
            return float(Decimal(match.group(1)) * SIZE_UNITS[match.group(2).upper()])
    return parse_number(value)


def numbers(
    values: Sequence[object], column: str, where: str, parse: Callable[[object], float] = parse_number
) -> np.ndarray:
    """Read a column as floats, shape (n,); NaN where a cell is empty.

    Raises
    ------
    RunsError
        When a cell does not hold a number; it names at most five such cells.
    """
    out = np.empty(len(values))
    bad: list[tuple[int, str, object]] = []
    for i, value in enumerate(values):
        try:
            out[i] = parse(value)
        except (ValueError, TypeError, ArithmeticError):
            bad.append((i + 1, column, value))
    if bad:
        action = "Write plain numbers with a decimal point (7e9, 0.25), or leave the cell empty."
        if any(isinstance(value, str) and "," in value for _, _, value in bad):
            action = "Write numbers without thousands separators and with a decimal point, not a comma."
        raise refuse(where, bad, f"column {column!r} must hold numbers", action)
    return out


def whole_numbers(values: Sequence[object], column: str, where: str) -> np.ndarray:
    """Read a column of whole numbers of at least 0 as int64, shape (n,); -1 where a cell is empty."""
    found = numbers(values, column, where)
    with np.errstate(invalid="ignore"):
        wrong = ~np.isnan(found) & ~((found >= 0) & (found == np.floor(found)) & (found < 2.0**53))
    if wrong.any():
        bad = [(i + 1, column, values[i]) for i in np.flatnonzero(wrong).tolist()]
        raise refuse(
            where, bad, f"column {column!r} must hold whole numbers from 0", "Correct or empty the cell."
        )
    return np.where(np.isnan(found), -1, found).astype(np.int64)


_TRUTHS = {
    "true": True,
    "yes": True,
    "1": True,
    "1.0": True,
    "false": False,
    "no": False,
    "0": False,
    "0.0": False,
}


def truths(values: Sequence[object], column: str, where: str) -> np.ndarray:
    """Read a column of true and false (also yes and no, 1 and 0) as bool, shape (n,)."""
    found = [_TRUTHS.get(str(value).strip().lower()) for value in values]
    bad = [(i + 1, column, values[i]) for i, truth in enumerate(found) if truth is None]
    if bad:
        raise refuse(where, bad, f"column {column!r} must hold true or false", "Fill in the cell.")
    return np.array(found, dtype=bool)


def texts(values: Sequence[object]) -> np.ndarray:
    """Read a column as text, shape (n,), dtype object; "" where a cell is empty."""
    out = np.empty(len(values), dtype=object)
    out[:] = ["" if not isinstance(value, str) and is_missing(value) else str(value) for value in values]
    return out
