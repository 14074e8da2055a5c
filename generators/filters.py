"""Which answers become training text, and why the others do not."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from lawkit.errors import GeneratorError
from lawkit.generators._generator import Answer

__all__ = ["Filters"]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Rules for answers, counted in the model's own tokens.

    Attributes
    ----------
    min_tokens
        A shorter answer is dropped.
    over
        An answer of more than so many times the style's usual length is dropped.
    keep_cut_off
        Keep answers that ended at their limit of tokens rather than where the model ended them.

    Examples
    --------
    >>> short = Answer(text="Yes.", finish="stop", prompt_tokens=90, completion_tokens=3)
    >>> Filters().why_dropped(short, max_tokens=2048, target_tokens=550)
    'short'
    """

    min_tokens: int = 50
    over: float = 3.0
    keep_cut_off: bool = False

    def __post_init__(self) -> None:
        if self.min_tokens < 0 or not 1 <= self.over < math.inf:
            raise GeneratorError(
                f"min_tokens is {self.min_tokens!r} and over {self.over!r}: at least 0, and at least 1."
            )

    def why_dropped(self, answer: Answer, *, max_tokens: int, target_tokens: int) -> str | None:
        """``empty``, ``cut off``, ``context full``, ``short`` or ``long``, or None where the answer is kept.

        Parameters
        ----------
        answer
            What the model said.
        max_tokens
            The limit that was asked for. An answer that was cut off before it met the end of the model's context.
        target_tokens
            Usual length of the style.
        """
        if not answer.text.strip():
            return "empty"
        if answer.finish != "stop" and not self.keep_cut_off:
            return "cut off" if answer.completion_tokens >= max_tokens else "context full"
        if answer.completion_tokens < self.min_tokens:
            return "short"
        if answer.completion_tokens > self.over * target_tokens:
            return "long"
        return None

    def as_dict(self) -> dict[str, Any]:
        """The rules as JSON knows them."""
        return asdict(self)
