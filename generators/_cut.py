"""Documents cut to what a model is shown of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lawkit.errors import GeneratorError

__all__ = ["Cutter"]

#: Characters of a token where nobody counts tokens; English in a large vocabulary has more, other text less.
_CHARACTERS = 4
#: No text is read further than so many characters a token.
_MOST_CHARACTERS = 32


class Cutter:
    """Cuts texts after so many tokens.

    Parameters
    ----------
    n_tokens
        Tokens of a text that are kept.
    tokenizer
        A tokenizer.json, of the model; without one a token is taken for four characters.
    """

    def __init__(self, n_tokens: int, tokenizer: str | Path | None = None) -> None:
        if n_tokens < 1:
            raise GeneratorError(f"input_tokens is {n_tokens!r}: at least 1.")
        self._n_tokens, self._tokenizer = n_tokens, None
        #: What the cut depends on.
        self.rule: dict[str, Any] = {"input_tokens": n_tokens, "tokenizer": None}
        if tokenizer is not None:
            from lawkit.corpus._tokenizer import load_tokenizer

            self._tokenizer = load_tokenizer(Path(tokenizer))
            self.rule["tokenizer"] = hashlib.sha256(Path(tokenizer).read_bytes()).hexdigest()

    def __call__(self, text: str) -> tuple[str, bool]:
        """The part of a text that is kept, and whether it is less than all of it."""
        if self._tokenizer is None:
            kept = text[: self._n_tokens * _CHARACTERS]
        elif len(text.encode(errors="replace")) <= self._n_tokens:  # a token has at least one byte
            kept = text
        else:
            kept = text[: self._n_tokens * _MOST_CHARACTERS]
            offsets = self._tokenizer.encode(kept, add_special_tokens=False).offsets
            if len(offsets) > self._n_tokens:
                kept = kept[
                    : offsets[self._n_tokens][0]
                ]  # where the next one begins: half a character is none
        return kept, len(kept) < len(text)
