"""Column patterns: `weight_{}` finds every such column and the name inside it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from lawkit.errors import RunsError

__all__ = ["did_you_mean", "match_columns", "require_column"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name: ' Did you mean ...?', or nothing."""
    known = list(known)
    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    return f" Did you mean {folded[close[0]]!r}?" if close else ""


def require_column(name: str, names: Sequence[str], where: str, option: str) -> str:
    """Return `name` if it is a column.

    Raises
    ------
    RunsError
        When it is not; the message lists the columns and the nearest one.
    """
    if name in names:
        return name
    listed = ", ".join(repr(known) for known in names[:20]) + (", ..." if len(names) > 20 else "")
    raise RunsError(
        f"{where}: there is no column {name!r} ({option}); "
        f"the columns are {listed}.{did_you_mean(name, names)}"
    )


def match_columns(
    patterns: Sequence[str], names: Sequence[str], where: str, option: str, *, strip: str = ""
) -> dict[str, str]:
    """Find the columns that patterns name.

    Parameters
    ----------
    patterns : sequence of str
        `weight_{}`: every column of that shape, named by what stands for {}; `wiki=eval/wiki`: that
        one column, named wiki; `final_loss`: that one column, named by itself without `strip`.
    names : sequence of str
        The columns there are.
    where, option : str
        The file and the option, for messages.
    strip : str
        A word that a plain column name loses as prefix or suffix: "loss" makes final_loss the domain final.

    Returns
    -------
    dict
        Name -> column, in the order of the columns.

    Raises
    ------
    RunsError
        When a plain column does not exist, a pattern has several {}, or two columns give one name.

    Examples
    --------
    >>> match_columns(["{}_loss"], ["n", "wiki_loss", "code_loss"], "runs.csv", "--losses")
    {'wiki': 'wiki_loss', 'code': 'code_loss'}
    >>> match_columns(["final_loss"], ["n", "final_loss"], "runs.csv", "--losses", strip="loss")
    {'final': 'final_loss'}
    """
    found: dict[str, str] = {}

    def add(name: str, column: str) -> None:
        if found.get(name, column) != column:
            raise RunsError(
                f"{where}: {option} finds {name!r} twice, in columns {found[name]!r} and {column!r}. "
                "Narrow the pattern."
            )
        found[name] = column

    for pattern in patterns:
        if pattern.count("{}") > 1:
            raise RunsError(
                f"{option} {pattern!r} has more than one {{}}. Write one {{}} where the name stands."
            )
        if "{}" in pattern:
            head, tail = pattern.split("{}")
            shape = re.compile(re.escape(head) + "(.+)" + re.escape(tail), re.DOTALL)
            for column in names:
                matched = shape.fullmatch(column)
                if matched:
                    add(matched.group(1), column)
            continue
        name, equals, column = pattern.partition("=")
        if not equals or pattern in names:
            name = column = pattern
            if strip:
                name = name.removesuffix(f"_{strip}").removeprefix(f"{strip}_") or name
        if not name:
            raise RunsError(f"{option} {pattern!r} lacks a name before the equals sign. Write NAME=COLUMN.")
        add(name, require_column(column, names, where, option))
    return found
