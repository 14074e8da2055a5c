"""The pieces of the corpus builder: cuts, the quick encoder, near-duplicates, the choice of held-out documents."""

from __future__ import annotations

import json
import random
import re
import sysconfig
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lawkit.corpus import _cuts, _scan, _tokenizer
from lawkit.corpus._encode import Encoder
from lawkit.corpus._near import OVERLAP, SHINGLE, NearDuplicates, shingles
from needs import need

need("tokenizers")
import tokenizers  # noqa: E402

U16 = np.dtype("<u2")


def library_texts(least: int) -> list[str]:
    """Sources of Python's own library, by name, until there is enough."""
    texts, size = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        texts.append(path.read_text(encoding="utf-8"))
        size += len(texts[-1])
        if size >= least:
            return texts
    raise AssertionError("the standard library is smaller than thought")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return library_texts(600_000)


@pytest.fixture(scope="module")
def bpe(texts):
    return _tokenizer.train_tokenizer(texts, 1024)


# --- cuts ---------------------------------------------------------------------------------

words = st.text("ab é\n漢", max_size=60)


@given(words, st.integers(4, 30))
def test_cuts_join_to_the_text_and_never_split_a_character(text, length):
    raw = text.encode()
    pieces = list(_cuts.cuts(raw, length))
    assert b"".join(pieces) == raw
    assert all(0 < len(piece) <= length for piece in pieces)
    for piece in pieces:
        piece.decode()


def test_a_cut_prefers_a_paragraph_to_a_line_to_a_space():
    text = b"aaaa\n\nbb cc\ndd ee"
    assert _cuts.cut_at(text, 0, 10) == 6
    assert _cuts.cut_at(text, 6, 8) == 12
    assert _cuts.cut_at(text, 12, 4) == 15


@given(
    st.lists(st.sampled_from([b"--", b"-", b"\n", b" ", b"word", b"x" * 40]), max_size=60),
    st.integers(1, 50),
    st.integers(10, 80),
)
def test_parts_do_not_depend_on_the_blocks(pieces, block, longest):
    data = b"".join(pieces)
    whole = list(_cuts.parts([data], b"--", longest))
    blocks = [data[i : i + block] for i in range(0, len(data), block)]
    assert list(_cuts.parts(blocks, b"--", longest)) == whole
    for offset, part in whole:
        assert data[offset : offset + len(part)] == part
        assert b"--" not in part


def test_a_long_stream_is_cut_in_bounded_memory():
    """A generator that never ends is read piece by piece: nothing waits for its end."""
    endless = iter(lambda: b"some words in a line\n" * 1000, None)
    found = _cuts.parts(endless, None, 1 << 20)
    sizes = [len(next(found)[1]) for _ in range(500)]
    assert max(sizes) <= _cuts.CUT
    assert min(sizes) > _cuts.CUT // 2


# --- the encoder --------------------------------------------------------------------------


def library_ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def test_ids_are_the_library_s_on_real_text(bpe, texts):
    encoder = Encoder(bpe, U16)
    assert encoder.check(texts)
    for text in texts:
        assert encoder(text).tolist() == library_ids(bpe, text)


odd_text = st.lists(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(" \t\r\n'sStTlLreve019aZ.,_-=()é漢ſK\u00a0\u2028\u0301\u0345\u200d"),
        st.sampled_from(["<tool>", "<|endoftext|>", "'ll", "  ", "self", "e\u0301"]),
    ),
    max_size=30,
).map("".join)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "nfc"])
@given(text=odd_text)
@settings(max_examples=400)
def test_ids_are_the_library_s_on_any_text(kind, text):
    tokenizer = small_tokenizer(kind)
    encoder = Encoder(tokenizer, U16)
    assert encoder.fast
    assert encoder(text).tolist() == library_ids(tokenizer, text)


_small: dict[str, object] = {}


def small_tokenizer(kind):
    if kind not in _small:
        _small[kind] = trained_as(kind)
    return _small[kind]


def trained_as(kind):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if kind == "llama":
        return _tokenizer.train_tokenizer(library_texts(200_000), 700)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    if kind == "nfc":  # as Qwen: composed characters, and tokens of its own that are not special
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.add_tokens(["<tool>", "ll"])
    tokenizer.train_from_iterator(library_texts(200_000), trainer)
    return tokenizer


def test_special_tokens_in_a_text_are_text(bpe):
    ids = Encoder(bpe, U16)(f"a{_tokenizer.EOS}b{_tokenizer.BOS}")
    assert not {0, 1} & set(ids.tolist())
    assert bpe.decode(ids.tolist()) == f"a{_tokenizer.EOS}b{_tokenizer.BOS}"


def test_other_tokenizers_are_left_to_the_library(texts):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(texts[:5], trainer)
    encoder = Encoder(tokenizer, U16)
    assert not encoder.fast
    assert encoder(texts[0]).tolist() == library_ids(tokenizer, texts[0])


def test_an_encoder_that_differs_from_the_library_is_not_used(bpe, texts):
    """A split that Python's `re` reads otherwise is noticed on the user's own text."""
    config = json.loads(bpe.to_str())
    # \h is a hexadecimal digit to the library and nothing to Python; \d+? differs by engine only in what follows.
    config["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\h+|[^\n]+|\n"
    assert not Encoder(tokenizers.Tokenizer.from_str(json.dumps(config)), U16).fast
    # POSIX brackets: letters to the library, the characters : a l p h to Python.
    config["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"[a:lph]+|[^a:lph]+"
    agreed = Encoder(tokenizers.Tokenizer.from_str(json.dumps(config)), U16)
    assert agreed.check(texts[:2])
    agreed._split = re.compile(r"[a-m]+|[^a-m]+")
    assert not agreed.check(texts[:2])
    assert agreed(texts[0]).tolist() == library_ids(agreed._tokenizer, texts[0])


def test_training_twice_gives_one_tokenizer(texts):
    assert _tokenizer.train_tokenizer(texts, 600).to_str() == _tokenizer.train_tokenizer(texts, 600).to_str()


# --- near-duplicates ----------------------------------------------------------------------


def plain_shingles(text: str) -> set[tuple[str, ...]]:
    """The runs of five words as anyone would write it."""
    spaced = re.sub("([\u3000-\u9fff])", r" \1 ", text.lower())
    found = "".join(c if c.isalnum() or ord(c) >= 128 else " " for c in spaced).split()
    n = max(len(found) - SHINGLE + 1, 1)
    return {tuple(found[i : i + SHINGLE]) for i in range(n)} if found else set()


def test_runs_of_words_are_counted_as_by_hand(texts):
    for text in texts:
        if text.isascii() and len(text) < 200_000:
            assert len(shingles([text.encode()])[1]) == len(plain_shingles(text))


@given(
    st.lists(st.sampled_from(["one", "two", "Three", "4"]), max_size=12), st.sampled_from([" ", "\n", ", "])
)
def test_case_and_punctuation_do_not_count(listed, gap):
    _, plain = shingles([" ".join(listed).lower().encode()])
    assert np.array_equal(shingles([gap.join(listed).upper().encode()])[1], plain)
    assert len(plain) == len(plain_shingles(" ".join(listed)))


documents = st.lists(
    st.lists(st.sampled_from(["one", "two", "three", "4", "...", "漢字", "é"]), max_size=9).map(" ".join),
    min_size=1,
    max_size=12,
)


@given(documents, documents)
def test_documents_together_are_as_each_alone(held, asked):
    near, raws = NearDuplicates(text.encode() for text in held), [text.encode() for text in asked]
    assert near.repeated(raws).tolist() == [repeats(near, text) for text in asked]
    of, runs = shingles(raws)
    for i, raw in enumerate(raws):
        assert np.array_equal(runs[of == i], shingles([raw])[1])


@given(documents, documents)
def test_overlaps_are_counted_as_by_hand(held, asked):
    def alike(a: str, b: str) -> bool:
        first, second = plain_shingles(a), plain_shingles(b)
        return bool(first and second) and len(first & second) >= OVERLAP * min(len(first), len(second))

    near = NearDuplicates(text.encode() for text in held)
    for text in asked:
        assert repeats(near, text) == any(alike(text, other) for other in held)


def repeats(near: NearDuplicates, text: str) -> bool:
    return bool(near.repeated([text.encode()])[0])


def edited(text: str, share: float, rng: random.Random) -> str:
    return " ".join(f"w{rng.randrange(10**6)}" if rng.random() < share else word for word in text.split(" "))


def test_recall_of_near_duplicates():
    """Copies with 5% of their words changed are found, most with 10% (0.9^5 = 0.59 of the runs stay), few with 25%."""
    rng = random.Random(0)
    held = [text for text in topics.values() if len(text.split()) >= 60]
    near = NearDuplicates(text.encode() for text in held)
    recall = {
        share: np.mean([repeats(near, edited(text, share, rng)) for text in held])
        for share in (0.05, 0.1, 0.25)
    }
    assert len(held) >= 60
    assert recall[0.05] >= 0.98
    assert recall[0.1] >= 0.85
    assert recall[0.25] <= 0.1
    assert OVERLAP == 0.5
    # A part of a held-out document is one too, and so is a document that holds it.
    assert all(repeats(near, text[: len(text) // 2]) for text in held)
    assert all(repeats(near, "other words here " * 200 + text) for text in held)


def test_unrelated_documents_are_no_near_duplicates(texts):
    files = [text.encode() for text in texts]
    near = NearDuplicates(files[::2])
    assert sum(near.repeated([raw])[0] for raw in files[1::2]) <= 0.02 * len(files)


def test_nothing_held_out_has_no_near_duplicates():
    assert not NearDuplicates([]).repeated([b"one two three four five six"]).any()
    assert not NearDuplicates([b"...", b""]).repeated([b"!!!", b"", b"one"]).any()


# --- what is held out ---------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=40), st.randoms(use_true_random=False)
)
def test_the_smallest_hashes_are_kept_whatever_the_order(pairs, rng):
    sizes = dict(pairs)

    def kept(order):
        chosen = _scan._Smallest(40, 20)
        for key in order:
            chosen.offer(key, b"x" * sizes[key])
        return list(chosen.result())

    shuffled = [key for key in sizes for _ in range(2)]
    rng.shuffle(shuffled)
    expected, total = [], 0
    for key in sorted(k for k in sizes if k < 40):
        total += sizes[key]
        if total > 20 and expected:
            break
        expected.append(key)
    assert kept(shuffled) == kept(sorted(sizes)) == expected


def test_seeds_give_other_hashes():
    assert len({_scan.document_hash(b"text", seed) for seed in (-1, 0, 1, 2**63)}) == 4
