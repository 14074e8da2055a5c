"""The tokenizer of a corpus: one that is given, or a byte-level BPE trained on the sources."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lawkit.errors import CorpusError

__all__ = ["BOS", "EOS", "load_tokenizer", "special_ids", "train_tokenizer", "vocabulary"]

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
_BOS_NAMES = (BOS, "<|begin▁of▁sentence|>", "<s>", "<bos>", "<|bos|>", "[BOS]", "<|startoftext|>", "[CLS]")
_EOS_NAMES = (EOS, "<|end▁of▁sentence|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<|endoftext|>", "[SEP]")
#: Where text is split before BPE, as Llama 3 does it: words with their space, numbers by three digits.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise CorpusError(
            "the package tokenizers is needed to build or describe a corpus: pip install 'lawkit[corpus]'"
        ) from None
    return tokenizers


def load_tokenizer(path: Path) -> Any:
    """Read a tokenizer.json.

    Raises
    ------
    CorpusError
        When it cannot be read, or is none.
    """
    tokenizers = _library()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}). Name a tokenizer.json.") from None
    except UnicodeDecodeError:
        raise CorpusError(f"{path}: is no tokenizer.json (not UTF-8).") from None
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise CorpusError(
            f"{path}: is no tokenizer.json of the tokenizers library ({' '.join(str(error).split())[:150]})."
        ) from None


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Any:
    """Train a byte-level BPE; the same texts give the same tokenizer.

    Parameters
    ----------
    texts : sequence of str
        What to train on.
    vocab_size : int
        Tokens, with the 256 bytes, BOS and EOS. Short texts may give fewer.
    """
    tokenizers = _library()
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    return tokenizer


def vocabulary(tokenizer: Any) -> int:
    """One more than the largest id, which is what an embedding needs; ids may have holes."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def special_ids(
    tokenizer: Any, path: Path, bos: str | None = None, eos: str | None = None
) -> tuple[int, int]:
    """Find the ids of BOS and EOS; one that only knows the end of a text uses it as the beginning too.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Where to look.
    path : Path
        Its file; a tokenizer_config.json beside it may name both.
    bos, eos : str, optional
        Their spelling, where it is known.

    Raises
    ------
    CorpusError
        When there is no such token.
    """
    config: dict[str, Any] = {}
    beside = path.with_name("tokenizer_config.json")
    if beside.is_file():
        try:
            config = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            config = {}

    def find(named: str | None, option: str, key: str, usual: tuple[str, ...]) -> int | None:
        if named is not None:
            if (found := tokenizer.token_to_id(named)) is None:
                raise CorpusError(f"{option} {named!r} is no token of {path}. {known()}")
            return found
        told = config.get(key) if isinstance(config, dict) else None
        told = told.get("content") if isinstance(told, dict) else told
        for name in (told, *usual):
            if isinstance(name, str) and (found := tokenizer.token_to_id(name)) is not None:
                return found
        return None

    def known() -> str:
        names = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
        return f"Its special tokens are {', '.join(map(repr, names[:12])) or 'none'}."

    end = find(eos, "--eos", "eos_token", _EOS_NAMES)
    if end is None:
        raise CorpusError(f"{path}: no token marks the end of a text. Name one with --eos. {known()}")
    begin = find(bos, "--bos", "bos_token", _BOS_NAMES)
    return end if begin is None else begin, end
