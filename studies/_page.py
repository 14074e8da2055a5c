"""Headings and paragraphs of a study's page on a terminal."""

from __future__ import annotations

import textwrap

from lawkit.cli import _output


def title(text: str) -> None:
    """Print a heading."""
    _output.say(f"\n== {text}")


def paragraph(text: str) -> None:
    """Print a paragraph at the terminal's width, at most 88; in a pipe, at 88."""
    width = min(_output.console().width, 88)
    _output.say(textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False))
