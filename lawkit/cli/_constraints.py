"""Options of the commands that choose mixtures: constraints beyond those on single sources."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lawkit.cli import _types

_PATH = re.compile(r"n[-_](?P<what>params|tokens)\s*=\s*(?P<start>[^:]+):(?P<stop>[^:]+)")


def parse_group(text: str) -> tuple[str, dict[str, Any]]:
    """Read ``hq+qa<=.5`` as a group of that name, its sources and limits.

    Raises
    ------
    ValueError
        When it is no bound, or names fewer than two sources.
    """
    name, lower, upper = _types.parse_bound(text)
    sources = [part.strip() for part in name.split("+")]
    if len(sources) < 2 or not all(sources):
        raise ValueError(f"{text!r} is no group: write hq+qa<=.5; for one source use --bound")
    return "+".join(sources), {"sources": sources, "lower": lower, "upper": upper}


def parse_path(text: str) -> tuple[str, float, float]:
    """Read ``n-tokens=10B:20T`` as (n_tokens, 1e10, 2e13).

    Raises
    ------
    ValueError
        When it is not of that form.
    """
    match = _PATH.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no path: write n-tokens=10B:20T or n-params=1B:70B")
    start, stop = _types.parse_size(match["start"]), _types.parse_size(match["stop"])
    if start >= stop:
        raise ValueError(f"{text!r} goes nowhere: the first size must be below the second")
    return f"n_{match['what']}", start, stop


GROUP = _types._Parsed("group", parse_group)
PATH = _types._Parsed("path", parse_path)

_OPTIONS = (
    click.option(
        "--group",
        "groups",
        type=GROUP,
        multiple=True,
        metavar="'hq+qa<=.5'",
        help="Bound on the sum of several weights; may be repeated.",
    ),
    click.option(
        "--constraints",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="YAML file of these limits and more: caps and divergence from a prior mixture, highest losses of domains, "
        "a budget of generation, the worst instead of the mean of domains (docs/mixtures.md). Bounds given as "
        "options hold as well; other options win over it.",
    ),
)


def constraint_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command --group and --constraints."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def constraint_arguments(
    groups: tuple[tuple[str, dict[str, Any]], ...], constraints: Path | None
) -> dict[str, Any]:
    """Arguments of the Python functions; max_epochs is left to the file unless the option was given.

    Raises
    ------
    click.UsageError
        When bounds on one group leave nothing.
    """
    merged = _types.merge_bounds((name, g["lower"], g["upper"]) for name, g in groups)
    members = {name: g["sources"] for name, g in groups}
    return {
        "groups": {
            n: {"sources": members[n], "lower": low, "upper": high} for n, (low, high) in merged.items()
        }
        or None,
        "constraints": constraints,
    }


def drop_default_epochs(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments without a max_epochs that nobody wrote, which would win over that of a file."""
    source = click.get_current_context().get_parameter_source("max_epochs")
    if source is not None and source.name == "DEFAULT":
        arguments = {**arguments, "max_epochs": None}
    return arguments
