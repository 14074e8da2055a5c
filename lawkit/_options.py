"""Options that a user gives by name, against what the class or function that takes them declares."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lawkit.errors import LawkitError

#: What a value of a declared type is called; values of other types are not looked at.
_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    Sequence: "a list",
    dict: "a table",
    Mapping: "a table",
    Callable: "a function",
    type(None): "left out",
}


def check_options(made: Callable[..., Any], given: Mapping[str, Any], *, first: int = 0) -> None:
    """Refuse an option that is not declared, or a value of another type than is.

    Parameters
    ----------
    made
        What takes the options. One that takes any (``**options``) is asked about those alone that it names.
    given
        Options by name.
    first
        So many parameters are not for the user.

    Raises
    ------
    LawkitError
        The message begins with the option's name.

    Examples
    --------
    >>> def server(model: str, *, port: int = 80, url: str | None = None): ...
    >>> check_options(server, {"port": 8000}, first=1)
    >>> check_options(server, {"port": "high"}, first=1)
    Traceback (most recent call last):
    lawkit.errors.LawkitError: port is 'high': it must be a whole number
    >>> check_options(server, {"ports": 8000}, first=1)
    Traceback (most recent call last):
    lawkit.errors.LawkitError: ports is unknown; did you mean port?
    """
    parameters = list(inspect.signature(made).parameters.values())[first:]
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name, value in given.items():
        if name in known:
            hint = declared(made, name)
            if not fits(value, hint):
                raise LawkitError(f"{name} is {value!r}: it must be {_called(hint)}")
        elif all(p.kind is not p.VAR_KEYWORD for p in parameters):
            close = difflib.get_close_matches(name, known, n=1)
            there = f"there are {', '.join(known)}" if known else "there are no options"
            raise LawkitError(f"{name} is unknown; {f'did you mean {close[0]}?' if close else there}")


def declared(made: Callable[..., Any], name: str) -> Any:
    """The type that a parameter is declared to have; Any where that is not known."""
    function: Any = made.__init__ if isinstance(made, type) else made
    # One by one: another may name what is imported for type checkers alone.
    hints = {key: value for key, value in getattr(function, "__annotations__", {}).items() if key == name}
    try:
        return typing.get_type_hints(
            types.SimpleNamespace(__annotations__=hints), getattr(function, "__globals__", {})
        ).get(name, Any)
    except (NameError, TypeError):
        return Any


def fits(value: Any, hint: Any) -> bool:
    """Whether a value, as JSON or TOML has it, is of a declared type; True for types that these do not know."""
    kind = typing.get_origin(hint) or hint
    if kind in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in typing.get_args(hint))
    if kind not in _KINDS:
        return True
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if not isinstance(value, kind) or (kind is Sequence and isinstance(value, str)):
        return False
    each = typing.get_args(hint) if kind in (list, Sequence) else ()
    return all(fits(entry, part) for part in each for entry in value)


def _called(hint: Any) -> str:
    kind = typing.get_origin(hint) or hint
    parts = typing.get_args(hint) if kind in (typing.Union, types.UnionType) else (hint,)
    return ", or ".join(dict.fromkeys(_kind(part) for part in parts))


def _kind(hint: Any) -> str:
    kind = typing.get_origin(hint) or hint
    each = typing.get_args(hint) if kind in (list, Sequence) else ()
    return _KINDS[kind] + "".join(f", each entry {_called(part)}" for part in each)
