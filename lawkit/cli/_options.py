"""Options that several commands share: the target run and what its mixture must keep to, and how text is read."""

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
_READING = (
    click.option(
        "--text-column",
        default="text",
        show_default=True,
        metavar="NAME",
        help="Where the text is in jsonl, parquet.",
    ),
    click.option(
        "--document-separator",
        type=_types.ESCAPED,
        metavar="TEXT",
        help=r"What stands between the documents of a text file, such as '\n\n'.",
    ),
    click.option(
        "--encoding-errors",
        type=click.Choice(["strict", "replace"]),
        default="strict",
        show_default=True,
        help="Refuse invalid UTF-8, or read it as U+FFFD.",
    ),
    click.option(
        "--max-document",
        "max_document_bytes",
        type=_types.SIZE,
        callback=lambda _ctx, _param, value: int(value),
        default=64 << 20,
        metavar="BYTES",
        help="Refuse a longer line of jsonl or row of parquet.  [default: 64 MiB]",
    ),
)


def reading_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of how text files are read; they are arguments of the Python functions as they are."""
    for option in reversed(_READING):
        function = option(function)
    return function


def files_by_name(sources: Iterable[str]) -> dict[str, list[str]]:
    """Read ``name=files`` texts, in which a name may come several times.

    Raises
    ------
    click.UsageError
        When one is not of that form.
    """
    named: dict[str, list[str]] = {}
    for text in sources:
        name, equals, files = text.partition("=")
        if not (name and equals and files):
            raise click.UsageError(f"{text!r} is not of the form SOURCE=FILES, such as 'code=src/**/*.py'.")
        named.setdefault(name, []).append(files)
    return named


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
