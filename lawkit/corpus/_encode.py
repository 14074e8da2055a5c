"""Text to token ids, by a tokenizer.json of Hugging Face's tokenizers, several times faster than that library alone.

Most byte-level BPE tokenizers split text by a regular expression and encode each segment by itself. Segments repeat:
a segment's ids are kept once the library has made them, and the split is done by Python's `re`. Whether that gives
the library's ids is not assumed but compared on the user's own text; where it does not, or where the tokenizer is
built otherwise, the library does it all.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from array import array
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Encoder"]

#: The split of a ByteLevel pre-tokenizer that has no other (GPT-2's).
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_MOST_SEGMENTS = 400_000
_LONGEST_KEPT = 64
_SPACE = r"\t-\r\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CLASS = re.compile(r"\\p\{(\w{1,2})\}|\\[sS]|\\(?![rnt'.*+?|()\[\]{}^$-])|\[\^?|\]|\\.|.", re.DOTALL)


class Encoder:
    """Encodes documents with a tokenizer.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Special tokens spelt out in a text are encoded as the text they are.
    dtype : numpy dtype
        Of the ids.
    """

    def __init__(self, tokenizer: Any, dtype: np.dtype[Any]) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._dtype = dtype
        config = json.loads(tokenizer.to_str())
        pattern = _split_pattern(config)
        self._split = None if pattern is None else _in_python(pattern)
        self._nfc = config["normalizer"] is not None
        # Tokens that the library looks for in the text, before it splits.
        words = [re.escape(token["content"]) for token in config["added_tokens"] if not token["special"]]
        self._added = re.compile("|".join(words)) if words else None
        self._ids = _Segments(tokenizer, dtype)

    @property
    def fast(self) -> bool:
        """Whether segments are kept."""
        return self._split is not None

    def check(self, texts: Iterable[str]) -> bool:
        """Compare with the library's own ids; where one differs, leave all to the library from now on."""
        if self._split is not None and any(
            not np.array_equal(self(text), self._by_library(text)) for text in texts
        ):
            self._split = None
        return self.fast

    def __call__(self, text: str) -> NDArray[Any]:
        """Return the ids of a text, without BOS and EOS."""
        return (
            self._by_segments(text)
            if self._split is not None and self._known(text)
            else self._by_library(text)
        )

    def _known(self, text: str) -> bool:
        """Whether a text is one for which splitting is all that the library does before it looks segments up."""
        if self._added is not None and self._added.search(text):
            return False
        # Characters that Python's tables do not know, and those beyond 16 bits, are left to the library.
        return text.isascii() or not (
            _odd().search(text) or (self._nfc and not unicodedata.is_normalized("NFC", text))
        )

    def _by_library(self, text: str) -> NDArray[Any]:
        (found,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return np.array(found.ids, self._dtype)

    def _by_segments(self, text: str) -> NDArray[Any]:
        assert self._split is not None
        if len(self._ids) > _MOST_SEGMENTS:
            self._ids.clear()
        return np.frombuffer(b"".join(map(self._ids.__getitem__, self._split.findall(text))), self._dtype)


class _Segments(dict[str, bytes]):
    """The ids of segments, as bytes; made when first asked for."""

    def __init__(self, tokenizer: Any, dtype: np.dtype[Any]) -> None:
        super().__init__()
        self._tokenize = tokenizer.model.tokenize
        self._spelling = _spelling()
        self._code = {2: "H", 4: "I"}[dtype.itemsize]
        self._swap = sys.byteorder == "big"

    def __missing__(self, segment: str) -> bytes:
        spelt = segment.encode().decode("latin-1").translate(self._spelling)
        ids = array(self._code, [token.id for token in self._tokenize(spelt)])
        if self._swap:
            ids.byteswap()
        found = ids.tobytes()
        if len(segment) <= _LONGEST_KEPT:
            self[segment] = found
        return found


@cache
def _spelling() -> dict[int, str]:
    """The character by which a byte-level tokenizer spells each byte, as the library has it."""
    from tokenizers import pre_tokenizers

    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str
    # One, two, three and four bytes: every byte that UTF-8 knows is among theirs.
    codes = (*range(0x800), *range(0x800, 0xD800, 0x400), *range(0xE000, 0x110000, 0x1000))
    table: dict[int, str] = {}
    for character in map(chr, codes):
        table.update(zip(character.encode(), spell(character)[0][0], strict=True))
    return table


def _split_pattern(config: dict[str, Any]) -> str | None:
    """Return the expression by which a byte-level BPE splits text; None where it does more than split."""
    model, before = config["model"], config["pre_tokenizer"] or {}
    plain = (
        model["type"] == "BPE"
        and not model.get("dropout")
        and config["normalizer"] in (None, {"type": "NFC"})
    )
    steps = before.get("pretokenizers", []) if before.get("type") == "Sequence" else [before]
    if not plain or not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    *splits, last = steps
    if not splits and last.get("use_regex", True):
        return _GPT2
    if len(splits) != 1 or last.get("use_regex", True):
        return None
    (split,) = splits
    isolated = (
        split.get("type") == "Split" and split.get("behavior") == "Isolated" and not split.get("invert")
    )
    return split["pattern"].get("Regex") if isolated else None


def _in_python(pattern: str) -> re.Pattern[str] | None:
    r"""Write \p{L}, \s and \S as Python's `re` understands them; None where that cannot be done."""
    out, inside = [], False
    for match in _CLASS.finditer(pattern):
        piece = match[0]
        if match[1]:
            members = _members(match[1])
            out.append(members if inside else f"[{members}]")
        elif piece == r"\s":
            out.append(_SPACE if inside else f"[{_SPACE}]")
        elif piece == r"\S":
            if inside:
                return None
            out.append(f"[^{_SPACE}]")
        elif piece in ("[", "[^"):
            if inside:
                return None
            inside = True
            out.append(piece)
        elif piece == "]":
            inside = False
            out.append(piece)
        elif piece == "\\":
            return None
        else:
            out.append(piece)
    try:
        found = re.compile("".join(out))
    except re.error:
        return None
    return found if found.groups == 0 else None


@cache
def _members(category: str) -> str:
    """The characters of up to 16 bits in a Unicode category, as ranges inside brackets."""
    ranges: list[list[int]] = []
    for code in range(1 << 16):
        if unicodedata.category(chr(code)).startswith(category):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\u{a:04x}-\\u{b:04x}" for a, b in ranges)


@cache
def _odd() -> re.Pattern[str]:
    return re.compile(rf"[{_members('Cn')}\U00010000-\U0010ffff]")
