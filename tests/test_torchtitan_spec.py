"""Sizes, recipes and specifications: counted exactly, checked before anything is trained."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lawkit.backends.torchtitan.ladder import (
    LAPTOP,
    LLAMA3_VOCABULARY,
    PUBLISHED,
    SIZES,
    find_size,
    size_from,
)
from lawkit.backends.torchtitan.planning import check_corpus, plan
from lawkit.backends.torchtitan.recipe import default_lr, recipe_for
from lawkit.backends.torchtitan.spec import TrainingSpec, read_spec, write_spec
from lawkit.cli._types import parse_size
from lawkit.errors import BackendError

TOKENS = {"web": 100_000, "hq": 20_000}


def corpus(**changes) -> Any:
    """What `plan` asks of a corpus; the tests that train have real ones."""
    values = {"sources": ("web", "hq"), "vocab_size": 300, "digest": "a" * 64, **changes}
    return SimpleNamespace(n_tokens=lambda name: TOKENS[name], n_heldout_tokens=lambda name: 5_000, **values)


def planned(**changes) -> TrainingSpec:
    asked = {"size": "27k", "n_tokens": 1e6, "weights": {"web": 0.5, "hq": 0.5}, **changes}
    return plan(asked.pop("corpus", corpus()), "corpus", **asked)


def test_names_of_sizes_tell_their_parameters():
    for size in LAPTOP:
        assert size.n_params == pytest.approx(parse_size(size.name), rel=0.03)
    for size in PUBLISHED:
        assert size.n_params_with_head(LLAMA3_VOCABULARY) == pytest.approx(parse_size(size.name), rel=0.03)
    assert [size.n_params for size in SIZES] == sorted(size.n_params for size in SIZES)
    assert LAPTOP[0].n_params < 27_000
    assert LAPTOP[-1].n_params > 3_000_000


def test_published_shapes():
    shapes = {(size.dim, size.n_layers, size.n_heads) for size in PUBLISHED}
    assert shapes == {
        (576, 7, 9), (832, 10, 13), (1280, 16, 20), (1792, 22, 28), (2240, 28, 35), (2624, 32, 41)
    }  # fmt: skip


def test_sizes_are_found_by_name_number_and_shape():
    assert find_size("3m") is find_size(3.05e6) is LAPTOP[-1]
    custom = size_from({"dim": 48, "n_layers": 1, "n_heads": 2})
    assert (custom.hidden, custom.name) == (128, "d48l1h2")
    assert size_from({"dim": 32, "n_layers": 2, "n_heads": 2}) is LAPTOP[0]
    assert size_from({**LAPTOP[0].to_dict(), "name": "mine"}).name == "mine"
    for asked, message in (
        ("27", "no size '27'.*Did you mean '27k'"),
        (5e5, r"no size has 500,000 .*; the nearest is 440k \(443,232\)"),
        (-1, "no size has -1"),
        ({"dim": 48}, "lacks n_heads"),
        ({"dim": 48, "n_layers": 1, "n_heads": 5}, "48 over 5 heads is no even number"),
        ({"dim": 48, "n_layers": 0, "n_heads": 2}, "n_layers of size .* is 0"),
        ({"dim": 48, "n_layers": 1, "n_heads": 2, "width": 3}, "unknown key 'width'"),
        (
            {"dim": 10**30, "n_layers": 1, "n_heads": 2},
            "dim of size .* is 10+: give a whole number of 1 or more, at",
        ),
        (
            {"dim": 48, "n_layers": 1, "n_heads": 2, "name": "a/b"},
            "a size's name is 'a/b': use at most 50 letters",
        ),
        ({"dim": 48, "n_layers": 1, "n_heads": 2, "name": 5}, "a size's name is 5"),
        (True, "True is no size"),
    ):
        with pytest.raises(BackendError, match=message):
            size_from(asked)


def test_learning_rate_falls_with_size():
    rates = [default_lr(size) for size in SIZES]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 3e-4


def test_recipe_defaults_and_overrides():
    large, small = recipe_for(PUBLISHED[0]), recipe_for(LAPTOP[0])
    assert large.batch_rows * large.seq_len == 2**20
    assert (large.precision, small.precision) == ("bf16", "fp32")
    assert recipe_for(LAPTOP[0], {"lr": 1, "eval_at": [0.5]}).eval_at == (0.5,)
    for given, message in (
        ({"learning_rate": 1.0}, "recipe.learning_rate: a recipe has no such field"),
        ({"weightdecay": 1.0}, "did you mean weight_decay"),
        ({"lr": "high"}, "recipe.lr is 'high': it must be float"),
        ({"lr": True}, "recipe.lr is True"),
        ({"lr": 0}, "recipe.lr is 0: it must be above 0"),
        ({"batch_rows": 2.5}, "recipe.batch_rows is 2.5: it must be int"),
        ({"precision": "fp8"}, "it must be fp32 or bf16"),
        ({"eval_at": [1.5]}, "fractions between 0 and 1"),
        ({"eval_at": 0.5}, "it must be a list of numbers"),
    ):
        with pytest.raises(BackendError, match=message):
            recipe_for(LAPTOP[0], given)


def test_steps_tokens_and_flops():
    spec = planned(n_tokens=1e6, recipe={"eval_at": [0.5, 0.999]})
    assert (spec.steps, spec.warmup_steps, spec.eval_steps) == (244, 24, (122, 244))
    d, L, h, T, V = 32, 2, 96, 256, 300
    per_token = 6 * (L * (4 * d * d + 3 * d * h) + V * d) + 6 * L * 2 * d * T
    assert spec.flops(10) == per_token * 10 * 4096
    assert planned(n_tokens=1).steps == 1


def test_a_specification_survives_its_file(tmp_path):
    spec = planned(recipe={"eval_at": [0.5]}, available={"hq": 5_000})
    write_spec(spec, tmp_path / "run")
    again = read_spec(tmp_path / "run")
    assert again == spec
    assert again.run_id == spec.run_id
    value = json.loads((tmp_path / "run" / "spec.json").read_text())
    for change, message in (
        ({"version": 99}, "specified by another version"),
        ({"size": {"dim": 1}}, "lacks n_heads"),
        ({"extra": 1}, "no specification of a run"),
    ):
        with pytest.raises(BackendError, match=message):
            TrainingSpec.from_dict({**value, **change})
    with pytest.raises(BackendError, match="is no folder of a run"):
        read_spec(tmp_path)
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(BackendError, match="is no JSON"):
        read_spec(tmp_path)


def test_identity_changes_with_what_decides_the_result_alone():
    spec = planned()
    same = [
        planned(n_tokens=1.0001e6),
        planned(weights={"hq": 0.5, "web": 0.5}),
        planned(recipe={"log_every": 3, "tensorboard": True, "keep_checkpoint": True, "checkpoint_every": 9}),
    ]
    other = [
        planned(n_tokens=2e6),
        planned(weights={"web": 0.6, "hq": 0.4}),
        planned(seed=1),
        planned(size="83k"),
        planned(recipe={"lr": 1e-3}),
        planned(available={"hq": 10_000}),
        planned(corpus=corpus(digest="b" * 64)),
    ]
    assert {s.identity for s in same} == {spec.identity}
    assert len({s.identity for s in [spec, *other]}) == len(other) + 1
    assert planned(weights={"web": 1.0}).identity == planned(weights={"web": 1.0, "hq": 0.0}).identity


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"weights": {"web": 0.5, "wiki": 0.5}},
            "weights.wiki: the corpus has no source 'wiki'; it has web, hq",
        ),
        ({"weights": {"web": 0.5, "hq": 0.4}}, "sum to 0.9: they must sum to 1"),
        ({"weights": {"web": 1.5, "hq": -0.5}}, "weights.web is 1.5"),
        ({"n_tokens": float("nan")}, "n_tokens is nan"),
        ({"n_tokens": -5}, "n_tokens is -5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808: give a whole number of 0 or more, below"),
        ({"n_tokens": 1e30}, "n_tokens is 1e.30: .* at most 1e15"),
        ({"available": {"wiki": 5}}, "available.wiki: the corpus has no source"),
        ({"available": {"hq": 100}}, "source 'hq' has 100 tokens, fewer than one row of 256"),
        (
            {"available": {"hq": 1_000}},
            "'hq' has 1,000 tokens, 3 rows of 256, fewer than the 8 that each step takes",
        ),
        ({"recipe": {"local_rows": 3}}, "local_rows is 3, which does not divide recipe.batch_rows 16"),
        (
            {"recipe": {"seq_len": 6_000, "batch_rows": 2}},
            "held-out text of 'web' has 5,000 tokens, fewer than one row of 6,000",
        ),
        ({"recipe": {"seq_len": 30_000}}, "source 'hq' has 20,000 tokens, fewer than one row"),
    ],
)
def test_what_cannot_be_trained_is_refused(asked, message):
    with pytest.raises(BackendError, match=message):
        planned(**asked)


def test_a_run_does_not_go_on_with_another_corpus():
    spec = planned()
    for other, message in (
        (corpus(vocab_size=512), "a vocabulary of 512, and this run was specified with one of 300"),
        (corpus(digest="b" * 64), "is another than this run was specified with"),
    ):
        with pytest.raises(BackendError, match=message):
            check_corpus(spec, other)


def test_unique_tokens_are_what_is_available():
    rows = planned(available={"hq": 5_121}).mixture(corpus())
    assert rows.unique_tokens() == (390 * 256, 20 * 256)
    assert np.isclose(sum(rows.counts(1000)), 1000)
