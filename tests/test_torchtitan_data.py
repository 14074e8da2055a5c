"""The rows of a run are what its mixture asks for, wherever it resumes and however many ranks share them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lawkit.backends.torchtitan.mixture import Mixture, permuted, points
from lawkit.errors import BackendError

NAMES = ("web", "hq", "books", "code")
TOKENS = (100_001, 20_001, 5_001, 1_001)


def mixture(weights=(0.4, 0.3, 0.2, 0.1), *, seed=0, seq_len=100) -> Mixture:
    return Mixture(NAMES, weights, TOKENS, seq_len=seq_len, seed=seed)


def test_realised_shares_are_the_weights_over_100_random_mixtures():
    rng = np.random.default_rng(1)
    rows = 1000
    for seed in range(100):
        weights = rng.dirichlet(np.ones(4) * rng.choice([0.3, 1.0, 3.0]))
        counts = np.array(mixture(weights, seed=seed).counts(rows))
        assert counts.sum() == rows
        # Three standard errors of independent draws, and far closer: off by a few rows at the most.
        errors = np.abs(counts - rows * weights)
        assert (errors <= 3 * np.sqrt(rows * weights * (1 - weights)) + 1e-9).all() or errors.max() < 1
        assert errors.max() < 4


@given(
    seed=st.integers(0, 2**63),
    first=st.integers(0, 10**7),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_rows_do_not_depend_on_where_they_are_cut(seed, first, cuts):
    rows = mixture(seed=seed)
    before = (first // 2, first // 4, first // 8, first // 16)
    whole = rows.take(first, before, sum(cuts))
    pieces, at, counts = [], first, before
    for cut in cuts:
        source, start, counts = rows.take(at, counts, cut)
        pieces.append((source, start))
        at += cut
    for i in range(2):
        np.testing.assert_array_equal(np.concatenate([piece[i] for piece in pieces]), whole[i])
    assert counts == whole[2]


def test_resuming_needs_the_number_of_rows_alone():
    rows = mixture(seed=3)
    _, _, taken = rows.take(0, (0,) * 4, 777)
    assert rows.counts(777) == taken
    assert rows.counts(777, block=50) == taken


def test_an_epoch_passes_over_every_window_once():
    rows = mixture((0, 0, 0, 1), seed=5)
    windows = rows.windows[3]
    assert windows == 10
    _, start, _ = rows.take(0, (0,) * 4, 3 * windows)
    epochs = start.reshape(3, windows)
    for epoch in epochs:
        found = np.sort(epoch)
        np.testing.assert_array_equal(np.diff(found), 100)
        assert found[0] >= 0
        assert found[-1] + 100 < 1_001
    assert not np.array_equal(epochs[0], epochs[1])
    assert rows.unique_tokens()[3] == 1_000


def test_windows_leave_no_tokens_out_for_ever():
    rows = Mixture(("web",), (1.0,), (1_050,), seq_len=100, seed=0)
    _, start, _ = rows.take(0, (0,), 10 * 40)
    seen = np.zeros(1_050, bool)
    for at in start:
        seen[at : at + 101] = True
    assert seen.all()


def test_another_seed_is_another_order_of_sources_and_windows():
    a, b = (mixture(seed=seed).take(0, (0,) * 4, 500) for seed in (0, 1))
    assert (a[0] != b[0]).mean() > 0.05
    assert (a[1][a[0] == 0][:50] != b[1][b[0] == 0][:50]).mean() > 0.8


def test_a_source_keeps_its_order_when_others_join():
    two = Mixture(("web", "hq"), (0.5, 0.5), (10_001, 10_001), seq_len=100, seed=0)
    three = Mixture(("code", "hq", "web"), (0, 0.5, 0.5), (501, 10_001, 10_001), seq_len=100, seed=0)
    here, there = two.take(0, (0, 0), 200), three.take(0, (0, 0, 0), 200)
    np.testing.assert_array_equal(here[1][here[0] == 1], there[1][there[0] == 1])


@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permutations_permute(n, key):
    np.testing.assert_array_equal(np.sort(permuted(np.arange(n), n, key)), np.arange(n))


def test_permutations_look_random():
    n = 1000
    moves = np.array([permuted(np.arange(n), n, key) for key in range(200)])
    # Each place goes everywhere about as often: a chi-square over ten stretches, 9 degrees of freedom.
    counts = np.array([np.bincount(moves[:, place] * 10 // n, minlength=10) for place in range(0, n, 37)])
    chi2 = ((counts - 20) ** 2 / 20).sum(1)
    assert chi2.mean() == pytest.approx(9, abs=2.5)
    assert abs(np.corrcoef(moves[0], moves[1])[0, 1]) < 0.1


def test_points_fill_every_stretch():
    for m in (1, 4, 10):
        found = np.sort(points(9, 3 << m, 1 << m))
        np.testing.assert_array_equal((found * (1 << m)).astype(int), np.arange(1 << m))


def test_a_source_shorter_than_a_row_is_refused_where_it_is_used():
    with pytest.raises(BackendError, match=r"source 'code' has 1,001 tokens, fewer than one row of 2,000"):
        mixture(seq_len=2_000)
    assert mixture((0.5, 0.3, 0.2, 0), seq_len=2_000).windows[3] == 0
