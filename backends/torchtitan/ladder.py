"""Sizes of proxy models: two ladders of Llama 3 shapes, with their parameters and flops counted exactly.

`n_params` counts what the blocks and the last norm hold: neither the token embedding nor the output layer. Of a
small model with a large vocabulary these two are nearly all of it and say little about what it can learn.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from lawkit.errors import BackendError

#: Vocabulary of the Llama 3 tokenizer, which the published ladder was trained with.
LLAMA3_VOCABULARY = 128_256


@dataclass(frozen=True, kw_only=True)
class Size:
    """Shape of a Llama 3 model: every head attends with its own keys and values, embeddings are not tied.

    Attributes
    ----------
    name
        What the ladder calls it, such as ``27k``.
    dim, n_layers, n_heads
        Width, blocks and heads a block.
    hidden
        Width inside the gated feed-forward layer.

    Examples
    --------
    >>> size = find_size("800k")
    >>> size.n_params, size.flops_per_token(seq_len=256, vocabulary=4096)
    (803968, 9535488)
    """

    name: str
    dim: int
    n_layers: int
    n_heads: int
    hidden: int

    def __post_init__(self) -> None:
        # It begins the names of runs and of their folders.
        if not (isinstance(self.name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,49}", self.name)):
            raise BackendError(
                f"a size's name is {self.name!r}: use at most 50 letters, digits and _ . + -, beginning with a "
                "letter, a digit or _"
            )
        for field in ("dim", "n_layers", "n_heads", "hidden"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
                raise BackendError(
                    f"{field} of size {self.name!r} is {value!r}: give a whole number of 1 or more, at most 1,000,000"
                )
        if self.dim % (2 * self.n_heads):
            raise BackendError(
                f"size {self.name!r}: dim {self.dim} over {self.n_heads} heads is no even number, which rotary "
                "embeddings need; choose dim as a multiple of twice n_heads"
            )

    @property
    def n_params(self) -> int:
        """Non-embedding parameters: blocks and last norm."""
        return self.n_layers * (4 * self.dim**2 + 3 * self.dim * self.hidden + 2 * self.dim) + self.dim

    def n_params_with_head(self, vocabulary: int) -> int:
        """Parameters but for the token embedding: what a token is multiplied with on its way, and the norms."""
        return self.n_params + vocabulary * self.dim

    def flops_per_token(self, seq_len: int, vocabulary: int) -> int:
        """Floating-point operations of all matrix products for one trained token, forward and backward.

        A product of two matrices costs two operations an element pair, its two gradients twice as much. Attention
        is counted over the whole context, as torch's own counter and the usual utilisation figures do.
        """
        weights = self.n_layers * (4 * self.dim**2 + 3 * self.dim * self.hidden) + vocabulary * self.dim
        return 6 * weights + 12 * self.n_layers * self.dim * seq_len

    def to_dict(self) -> dict[str, Any]:
        """The shape as plain values; `size_from` reads it back."""
        return asdict(self)


def _size(name: str, dim: int, n_layers: int, n_heads: int, hidden: int) -> Size:
    return Size(name=name, dim=dim, n_layers=n_layers, n_heads=n_heads, hidden=hidden)


#: Table 1 of Kang et al. 2025 (arXiv 2510.01631): width, blocks and heads are theirs. The feed-forward widths, which
#: we do not have, are chosen (2.3 to 3.2 times the width, where Llama 3 has about 2.7) so that all parameters but the
#: token embedding, with the Llama 3 vocabulary, are what the name says.
PUBLISHED: tuple[Size, ...] = (
    _size("100M", 576, 7, 9, 1376),
    _size("200M", 832, 10, 13, 2624),
    _size("500M", 1280, 16, 20, 3744),
    _size("1B", 1792, 22, 28, 4128),
    _size("2B", 2240, 28, 35, 6112),
    _size("3B", 2624, 32, 41, 7072),
)

#: Sizes that a laptop trains in seconds to minutes, named by their non-embedding parameters.
LAPTOP: tuple[Size, ...] = (
    _size("27k", 32, 2, 2, 96),
    _size("83k", 48, 3, 3, 128),
    _size("160k", 64, 3, 4, 192),
    _size("440k", 96, 4, 3, 256),
    _size("800k", 128, 4, 4, 352),
    _size("1.6M", 160, 5, 5, 448),
    _size("3M", 224, 5, 7, 608),
)

SIZES: tuple[Size, ...] = LAPTOP + PUBLISHED

#: A number of parameters asks for the size within this fraction of it.
TOLERANCE = 0.03


def find_size(asked: str | float) -> Size:
    """Return the size of a name, or the one whose non-embedding parameters are within 3% of a number.

    Raises
    ------
    BackendError
        When there is none; the message names the nearest.

    Examples
    --------
    >>> find_size(27_000).name, find_size("1B").dim
    ('27k', 1792)
    """
    named = ", ".join(f"{size.name} ({size.n_params:,})" for size in SIZES)
    if isinstance(asked, str):
        for size in SIZES:
            if size.name.lower() == asked.strip().lower():
                return size
        close = difflib.get_close_matches(asked, [size.name for size in SIZES], n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise BackendError(
            f"no size {asked!r}; there are, with their non-embedding parameters: {named}.{hint}"
        )
    nearest = min(SIZES, key=lambda size: abs(size.n_params / asked - 1) if asked > 0 else size.n_params)
    if not asked > 0 or abs(nearest.n_params / asked - 1) > TOLERANCE:
        raise BackendError(
            f"no size has {asked:,.0f} non-embedding parameters within {TOLERANCE:.0%}; the nearest is {nearest.name} "
            f"({nearest.n_params:,}). There are {named}"
        )
    return nearest


def size_from(value: Any) -> Size:
    """Return the size that a name, a number or a mapping of dim, n_layers, n_heads and hidden describes.

    `hidden` may be left out: it is then 8/3 of the width, rounded up to a multiple of 32.

    Raises
    ------
    BackendError
        When it describes none.

    Examples
    --------
    >>> size_from({"dim": 64, "n_layers": 2, "n_heads": 2}).hidden
    192
    """
    if isinstance(value, Size):
        return value
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return find_size(value)
    if not isinstance(value, Mapping):
        raise BackendError(f"{value!r} is no size: give a name such as 27k, or dim, n_layers and n_heads")
    keys = {"name", "dim", "n_layers", "n_heads", "hidden"}
    missing = {"dim", "n_layers", "n_heads"} - set(value)
    unknown = set(value) - keys
    if missing or unknown:
        what = f"lacks {sorted(missing)[0]}" if missing else f"has an unknown key {sorted(unknown)[0]!r}"
        raise BackendError(f"a size {what}; it has dim, n_layers, n_heads and, if wished, hidden and name")
    shape = dict(value)
    if "hidden" not in shape and isinstance(shape["dim"], int):
        shape["hidden"] = 32 * -(-8 * shape["dim"] // 96)
    if "name" in shape:
        return Size(**shape)
    size = Size(**shape, name=f"d{shape['dim']}l{shape['n_layers']}h{shape['n_heads']}")
    # A shape of the ladder is that size, so that a study does not train it under two names.
    return next((known for known in SIZES if replace(known, name=size.name) == size), size)
