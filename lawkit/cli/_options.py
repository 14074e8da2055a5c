"""Options that several commands share: the target run and what its mixture must keep to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from lawkit.cli import _types

_SIZES = (
    click.option(
        "--n-params", type=_types.SIZE, required=True, help="Non-embedding parameters of the target run."
    ),
    click.option("--n-tokens", type=_types.SIZE, required=True, help="Tokens of the target run."),
)
_LIMITS = (
    click.option(
        "--bound",
        "bounds",
        type=_types.BOUND,
        multiple=True,
        metavar="'hq<=.5'",
        help="Bound on a weight; may be repeated.",
    ),
    click.option(
        "--available",
        type=_types.AMOUNT,
        multiple=True,
        metavar="hq=2e10",
        help="Unique tokens that exist of a source; may be repeated.",
    ),
    click.option(
        "--max-epochs",
        type=click.FloatRange(min=0, min_open=True),
        default=4.0,
        show_default=True,
        help="How often the tokens of --available may be repeated.",
    ),
    click.option(
        "--target",
        type=_types.IMPORTANCE,
        multiple=True,
        metavar="D=weight",
        help="Weight of a domain in the objective; may be repeated.  [default: all alike]",
    ),
)


def target_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name the target run and its constraints."""
    for option in reversed((*_SIZES, *_LIMITS)):
        function = option(function)
    return function


def limit_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the constraints and the objective alone."""
    for option in reversed(_LIMITS):
        function = option(function)
    return function


def target_arguments(*, n_params: float, n_tokens: float, **limits: Any) -> dict[str, Any]:
    """Turn what `target_options` gave into the arguments of the Python functions.

    Raises
    ------
    click.UsageError
        As `limit_arguments`.
    """
    return {"n_params": n_params, "n_tokens": n_tokens, **limit_arguments(**limits)}


def limit_arguments(
    *,
    bounds: Iterable[tuple[str, float, float]],
    available: Iterable[tuple[str, float]],
    max_epochs: float,
    target: Iterable[tuple[str, float]],
) -> dict[str, Any]:
    """Turn what `limit_options` gave into the arguments of the Python functions.

    Raises
    ------
    click.UsageError
        When bounds on one source leave nothing, or a name comes twice.
    """
    return {
        "bounds": _types.merge_bounds(bounds) or None,
        "available": _types.merge_unique(available, "--available") or None,
        "max_epochs": max_epochs,
        "target": _types.merge_unique(target, "--target") or None,
    }
