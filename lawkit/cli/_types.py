"""What the options accept: sizes, mixtures, bounds and amounts."""

from __future__ import annotations

import codecs
import contextlib
import math
import re
from collections.abc import Iterable
from typing import Any

import click

# The source's name may hold = and < too (not <=): the limits are numbers.
_BOUND = re.compile(
    r"(?:(?P<first>[\d.e+-]+)\s*(?P<op>[<>]=))?(?P<name>(?:(?![<>]=).)+)(?P<op2>[<>]=)(?P<last>[^<>=]+)",
    re.IGNORECASE,
)


def parse_size(text: str) -> float:
    """Read a positive size: ``7e9``, ``7B``, ``300M``, ``2T``, ``27k``.

    Raises
    ------
    ValueError
        When the text is no positive, finite number with an optional suffix.
    """
    from lawkit.io import _cells

    try:
        value = _cells.parse_size(text)
    except (ValueError, ArithmeticError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{text!r} is not a size: write a positive number such as 7e9, 7B, 300M or 2T")
    return value


def parse_fraction(text: str) -> float:
    """Read a mixture weight: a number from 0 to 1.

    Raises
    ------
    ValueError
        When it is not.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"{text.strip()!r} is not a weight: write a number from 0 to 1, such as .5")
    return value


def parse_mixture(text: str) -> dict[str, float]:
    """Read ``a=.7,b=.3`` as weights that sum to 1 (within 1e-3; then normalised).

    Raises
    ------
    ValueError
        When a piece has no ``=``, a source comes twice, or the weights do not sum to 1.
    """
    weights: dict[str, float] = {}
    for piece in text.split(","):
        name, value = _assignment(piece, "a mixture is written source=weight,source=weight")
        if name in weights:
            raise ValueError(f"source {name!r} comes twice in {text!r}: give each source one weight")
        weights[name] = parse_fraction(value)
    total = math.fsum(weights.values())
    if abs(total - 1) > 1e-3:
        raise ValueError(f"the weights of {text!r} sum to {total:.6g}: they must sum to 1")
    return {name: value / total for name, value in weights.items()}


def parse_bound(text: str) -> tuple[str, float, float]:
    """Read ``hq<=.5``, ``hq>=.1`` or ``.1<=hq<=.5`` as (source, lower, upper).

    Raises
    ------
    ValueError
        When it is none of these, or the lower bound is above the upper.
    """
    match = _BOUND.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a bound: write hq<=.5, hq>=.1 or .1<=hq<=.5 (in quotes)")
    name, op, last = match["name"].strip(), match["op2"], parse_fraction(match["last"].strip())
    if match["first"] is None:
        lower, upper = (0.0, last) if op == "<=" else (last, 1.0)
    else:
        if match["op"] != op:
            raise ValueError(f"{text!r} points both ways: write .1<=hq<=.5")
        ends = parse_fraction(match["first"]), last
        lower, upper = ends if op == "<=" else ends[::-1]
    if lower > upper:
        raise ValueError(
            f"{text!r} leaves nothing: the lower bound {lower:g} is above the upper bound {upper:g}"
        )
    return name, lower, upper


def parse_amount(text: str) -> tuple[str, float]:
    """Read ``hq=2e10`` or ``hq=20B`` as (source, tokens).

    Raises
    ------
    ValueError
        When there is no ``=`` or what follows is no size.
    """
    name, value = _assignment(text, "an amount is written source=tokens, such as hq=2e10")
    return name, parse_size(value)


def parse_quantity(text: str) -> tuple[str, float]:
    """Read ``hq=2e10`` or ``hq=0`` as (source, a number of 0 or more).

    Raises
    ------
    ValueError
        When there is no ``=`` or what follows is neither 0 nor a size.
    """
    name, value = _assignment(text, "write source=number, such as hq=2e10")
    with contextlib.suppress(ValueError):
        if float(value) == 0:
            return name, 0.0
    return name, parse_size(value)


def parse_importance(text: str) -> tuple[str, float]:
    """Read ``wiki=2`` as (domain, weight in the objective).

    Raises
    ------
    ValueError
        When there is no ``=`` or the weight is negative or no number.
    """
    name, value = _assignment(text, "a target is written domain=weight, such as wiki=1")
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(
            f"{value.strip()!r} is not a weight for domain {name!r}: write a number of 0 or more"
        )
    return name, weight


def parse_target(text: str) -> dict[str, float]:
    """Read ``70B,2T`` or ``70B,2T,.5`` as n_params, n_tokens and share of a target.

    Raises
    ------
    ValueError
        When there are not two or three numbers, or one is not positive.
    """
    names = "n_params", "n_tokens", "share"
    found = {}
    for name, part in zip(names, text.split(","), strict=False):
        try:
            found[name] = parse_size(part)
        except ValueError:
            raise ValueError(
                f"{part.strip()!r} in {text.strip()!r} is no {name}: write a positive number, such as 70B,2T,.5"
            ) from None
    if len(found) < 2 or text.count(",") >= len(names):
        raise ValueError(f"{text.strip()!r} is no target: write N,D or N,D,SHARE, such as 70B,2T,.5")
    return found


def parse_holdout(text: str) -> str | float | None:
    """Read ``scale``, ``none`` or a fraction strictly between 0 and 1.

    Raises
    ------
    ValueError
        When it is none of these.
    """
    if text in ("scale", "none"):
        return None if text == "none" else text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise ValueError(
            f"{text!r} is not a hold-out: write scale, none, or a fraction between 0 and 1 such as .2"
        )
    return value


def parse_escaped(text: str) -> str:
    r"""Read \n, \t and the like as a shell user writes them, and leave other characters alone.

    Raises
    ------
    ValueError
        When a backslash begins nothing that is known.
    """
    try:
        return codecs.decode(text.encode("latin-1", "backslashreplace"), "unicode_escape")
    except UnicodeDecodeError as error:
        raise ValueError(f"{text!r}: {error.reason}.") from None


def merge_bounds(bounds: Iterable[tuple[str, float, float]]) -> dict[str, tuple[float, float]]:
    """Join the bounds given for each source into one interval.

    Raises
    ------
    click.UsageError
        When two bounds on one source leave nothing between them.
    """
    merged: dict[str, tuple[float, float]] = {}
    for name, lower, upper in bounds:
        low, high = merged.get(name, (0.0, 1.0))
        low, high = max(low, lower), min(high, upper)
        if low > high:
            raise click.UsageError(
                f"the bounds on {name!r} leave nothing: at least {low:g} and at most {high:g}"
            )
        merged[name] = (low, high)
    return merged


def merge_unique(pairs: Iterable[tuple[str, float]], option: str) -> dict[str, float]:
    """Turn (name, value) pairs into a mapping.

    Raises
    ------
    click.UsageError
        When a name comes twice.
    """
    merged: dict[str, float] = {}
    for name, value in pairs:
        if name in merged:
            raise click.UsageError(f"{option} {name!r} comes twice: give it once")
        merged[name] = value
    return merged


def _assignment(text: str, rule: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not (equals and name.strip() and value.strip()):
        raise ValueError(f"{text.strip()!r} is not of the form name=value: {rule}")
    return name.strip(), value.strip()


class _Parsed(click.ParamType):
    """A click type made of a parsing function that raises ValueError."""

    def __init__(self, name: str, parse: Any) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text; leave what is parsed already (a default) as it is."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


SIZE = _Parsed("size", parse_size)
MIXTURE = _Parsed("mixture", parse_mixture)
BOUND = _Parsed("bound", parse_bound)
AMOUNT = _Parsed("source=tokens", parse_amount)
QUANTITY = _Parsed("source=number", parse_quantity)
IMPORTANCE = _Parsed("domain=weight", parse_importance)
TARGET = _Parsed("N,D[,SHARE]", parse_target)
HOLDOUT = _Parsed("hold-out", parse_holdout)
ESCAPED = _Parsed("text", parse_escaped)
