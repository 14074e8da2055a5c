"""Pieces of HTML that a page is made of; what goes into them is escaped by the caller unless said otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any


def asset(name: str) -> str:
    """A file that lies beside this one."""
    return files("lawkit.report").joinpath(name).read_text(encoding="utf-8")


def section(title: str, body: str) -> str:
    """A part of the page under a heading."""
    return f"<section><h2>{title}</h2>\n{body}</section>"


def figure(name: str, title: str, key: str) -> str:
    """A place that `_page.js` draws into."""
    return f'<figure><h3>{title}</h3>{key}<svg data-figure="{name}" role="img" aria-label="{title}"></svg></figure>'


def key(names: Sequence[str]) -> str:
    """Which colour is what; `_page.js` has the same colours."""
    colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#333333")
    items = (f'<span style="--c:{colours[i % 7]}">{escape(name)}</span>' for i, name in enumerate(names))
    return f'<div class="key">{"".join(items)}</div>'


def table(names: Sequence[str], rows: Iterable[Sequence[Any]], words: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already."""
    rows = list(rows)
    if not rows:
        return ""

    def cells(tag: str, values: Sequence[Any]) -> str:
        return "".join(
            f'<{tag} class="words">{value}</{tag}>' if i in words else f"<{tag}>{value}</{tag}>"
            for i, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells("th", names)}</tr></thead><tbody>{body}</tbody></table></div>'


def cell(value: Any, text: str) -> str:
    """A cell that sorts by a value."""
    return f'<td data-value="{"" if value is None else value}">{text}</td>'


def ordered(weights: dict[str, float]) -> list[tuple[str, float]]:
    """The largest first."""
    return sorted(weights.items(), key=lambda item: -item[1])


def mixture(weights: dict[str, float]) -> str:
    """Sources and weights, the largest first."""
    return ", ".join(f"{escape(name)} {weight:.3f}" for name, weight in ordered(weights) if weight >= 5e-4)


def number(value: float | None, digits: int) -> str:
    """A number of so many digits, or a dash."""
    return (
        "–"
        if value is None
        else f"{value:.{digits}g}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-")
    )


def percent(value: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * value:.1f}%"


def size(value: float) -> str:
    """A count as people say it: 7B, 1.5T."""
    from lawkit.cli._output import size

    return size(value)
