"""The bootstrap: what a replicate is, that it reaches its optimum, and that its spread is the sampling error."""

from __future__ import annotations

import csv
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lawkit import laws
from lawkit.errors import FitError
from lawkit.fitting import bootstrap as module
from lawkit.fitting.bootstrap import bootstrap
from lawkit.fitting.draws import Draws
from lawkit.fitting.estimate import Estimate, estimate
from lawkit.fitting.prepare import Prepared, prepare
from lawkit.fitting.resample import Resampler
from lawkit.fitting.solver import LeastSquares, Target, minimise
from lawkit.fitting.starts import starting_points
from lawkit.laws._average import Average
from lawkit.runs import Runs


def chinchilla(datasets: Path) -> Runs:
    """The published points, the five highest losses left out."""
    with (datasets / "chinchilla_epoch" / "svg_extracted_data.csv").open() as file:
        rows = [[float(r[c]) for c in ("Model Size", "Training FLOP", "loss")] for r in csv.DictReader(file)]
    n, flops, loss = np.array(sorted(rows, key=lambda row: row[2])[:-5]).T
    return Runs(
        sources=(), domains=("web",), n_params=n, n_tokens=flops / (6 * n), weights=np.zeros((len(n), 0)),
        losses=loss[:, None],
    )  # fmt: skip


def scale_table(n: int = 40, noise: float = 0.01, seed: int = 1) -> Runs:
    """Runs of one domain that follow Chinchilla's law."""
    rng = np.random.default_rng(seed)
    n_params, n_tokens = np.exp(rng.uniform(17, 22, n)), np.exp(rng.uniform(21, 25, n))
    loss = (1.8 + 480 / n_params**0.35 + 2000 / n_tokens**0.37) * np.exp(rng.normal(0, noise, n))
    return Runs(
        sources=(), domains=("web",), n_params=n_params, n_tokens=n_tokens, weights=np.zeros((n, 0)),
        losses=loss[:, None],
    )  # fmt: skip


def mixture_table(n: int = 60, sources: int = 3) -> Runs:
    """Runs of several mixtures; every source is a domain."""
    rng = np.random.default_rng(2)
    weights = rng.dirichlet(np.ones(sources), n)
    n_params, n_tokens = np.exp(rng.uniform(18, 21, n)), np.exp(rng.uniform(21, 24, n))
    losses = 1.5 + (300 / n_params**0.33 + 700 / n_tokens**0.34)[:, None] + 0.2 * (weights + 0.05) ** -0.4
    losses *= np.exp(rng.normal(0, 0.004, losses.shape))
    names = ("a", "b", "c")[:sources]
    return Runs(
        sources=names, domains=names, n_params=n_params, n_tokens=n_tokens, weights=weights, losses=losses
    )


def capacity_table(n: int = 24) -> Runs:
    """Two sources and domains that follow the capacity law."""
    runs, law = mixture_table(n, sources=2), laws.get("capacity-plain")
    ready = prepare(runs, law, law.objective)
    z = np.concatenate(
        [np.full(p.per_source + 1, np.mean(law.unconstrained_range(p))) for p in law.parameters]
    )
    exact = law.function.value(z[None], ready.problem.inputs)[0]
    return replace(runs, losses=exact * np.exp(np.random.default_rng(3).normal(0, 0.005, exact.shape)))


def fitted(runs: Runs, law: str = "chinchilla", starts: int | None = None) -> tuple[Estimate, Prepared]:
    chosen = laws.get(law)
    return estimate(runs, chosen, chosen.objective, starts=starts)


def boot(runs: Runs, law: str = "chinchilla", count: int = 60, seed: int = 0) -> Draws:
    e, ready = fitted(runs, law)
    return bootstrap(runs, ready, e, count, seed)


def same(a: Draws, b: Draws) -> bool:
    return np.array_equal(a.z, b.z) and np.array_equal(a.noise, b.noise)


def naturals(e: Estimate, z: np.ndarray) -> np.ndarray:
    """A, B, E, alpha and beta (S, 5) of Chinchilla's law, whose A and B are fitted as terms at the reference scale."""
    v = {name: np.exp(z[:, part.start]) for name, part in e.law.layout(0).items()}
    return np.stack(
        [v["A"] * e.n_ref ** v["alpha"], v["B"] * e.d_ref ** v["beta"], v["E"], v["alpha"], v["beta"]], 1
    )


# ---- published standard errors ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(datasets: Path) -> tuple[Runs, Estimate, Prepared, Draws]:
    runs = chinchilla(datasets)
    e, ready = fitted(runs)
    return runs, e, ready, bootstrap(runs, ready, e, 4000)


def test_standard_errors_of_chinchilla(published: tuple[Runs, Estimate, Prepared, Draws]) -> None:
    _, e, _, draws = published
    found = naturals(e, draws.z[:, 0]).std(0)
    np.testing.assert_allclose(found, [118.6, 1454, 0.0252, 0.0149, 0.0203], rtol=0.15)
    assert draws.diagnostics["replicates"] == 4000
    assert draws.warnings == ()


def test_warm_starts_reach_the_optimum(published: tuple[Runs, Estimate, Prepared, Draws]) -> None:
    runs, _, ready, draws = published
    resampler = Resampler.of(runs, ready, 0)
    for s in range(25):
        counts, _ = resampler.draw(s)
        assert counts is not None
        target = ready.problem.target
        weighted = Target(target.losses, target.cell_weights * counts[:, None])
        problem = LeastSquares(
            ready.problem.function, ready.problem.inputs, weighted, ready.problem.objective
        )
        starts = starting_points(problem, ready.law, ready.context, 30, s)[0]
        _, cost = minimise(problem, starts, np.zeros(30, int))
        warm = problem.cost(draws.z[s], np.zeros(1, int))[0]
        assert warm <= cost.min() * (1 + 1e-6)


# ---- what a replicate is ------------------------------------------------------------------------------------


def test_a_replicate_is_the_fit_of_a_table_that_repeats_the_rows_drawn() -> None:
    runs = scale_table()
    e, ready = fitted(runs)
    draws = bootstrap(runs, ready, e, 60, seed=3)
    resampler = Resampler.of(runs, ready, 3)
    for s in range(5):
        counts, _ = resampler.draw(s)
        assert counts is not None
        assert counts.sum() == len(runs)
        repeated = runs.select(np.repeat(np.arange(len(runs)), counts))
        own, _ = fitted(replace(repeated, rows=np.arange(1, len(repeated) + 1)))
        np.testing.assert_allclose(naturals(e, draws.z[s]), naturals(own, own.z), rtol=1e-4, err_msg=str(s))


def test_all_domains_see_the_same_resample() -> None:
    one = scale_table()
    two = replace(one, domains=("web", "code"), losses=np.repeat(one.losses, 2, 1))
    draws = boot(two)
    assert np.array_equal(draws.z[:, 0], draws.z[:, 1])
    assert np.array_equal(draws.noise[:, 0], draws.noise[:, 1])
    assert same(boot(one), replace(draws, z=draws.z[:, :1], noise=draws.noise[:, :1]))


def test_members_of_an_average_see_the_same_resample() -> None:
    runs = mixture_table()
    law = laws.get("transfer-average")
    assert isinstance(law, Average)
    e, ready = estimate(runs, law, law.objective)
    draws = bootstrap(runs, ready, e, 50)
    at = 0
    for member in law.members:
        own_e, own_ready = estimate(runs, member, law.objective)
        own = bootstrap(runs, own_ready, own_e, 50)
        assert np.array_equal(draws.z[..., at : at + own.z.shape[2]], own.z), member.name
        at += own.z.shape[2]
    assert at == draws.z.shape[2]


def test_priors_stay_as_they_are() -> None:
    """A replicate of a law with priors minimises the weighted misfit and the unchanged prior."""
    runs = mixture_table(sources=2)
    e, ready = fitted(runs, "transfer-plain")
    draws = bootstrap(runs, ready, e, 50)
    target = ready.problem.target
    for s in range(3):
        counts, _ = Resampler.of(runs, ready, 0).draw(s)
        assert counts is not None
        problem = LeastSquares(
            ready.problem.function, ready.problem.inputs,
            replace(target, cell_weights=target.cell_weights * counts[:, None]), ready.problem.objective,
        )  # fmt: skip
        each = np.arange(len(e.z))
        _, cost = minimise(problem, e.z + 0.05, each)
        np.testing.assert_allclose(problem.cost(draws.z[s], each), cost, rtol=1e-9)
        assert np.abs(draws.z[s] - e.z).max() > 1e-3


def test_parameters_that_priors_decide_are_named() -> None:
    """With runs of one size, nothing is known of the exponents of size."""
    runs = mixture_table(sources=2)
    flat = np.ones(len(runs))
    single = replace(runs, n_params=1e9 * flat, n_tokens=2e10 * flat)
    (warning,) = boot(single, "transfer-plain").warnings
    assert "alpha, beta" in warning
    assert "whose priors a bootstrap does not resample" in warning
    assert boot(runs, "chinchilla").warnings == ()


def test_a_coupled_law_is_one_group() -> None:
    """The misfit of all domains together is what a replicate minimises; its noise is by domain."""
    runs = capacity_table()
    e, ready = fitted(runs, "capacity-plain", starts=4)
    draws = bootstrap(runs, ready, e, 50)
    assert draws.z.shape == (50, 1, 7)
    assert draws.noise.shape == draws.nu.shape == (50, 2)
    assert draws.eta.shape == (50, 2, 0)
    target = ready.problem.target
    gains = []
    for s in range(50):
        counts, _ = Resampler.of(runs, ready, 0).draw(s)
        assert counts is not None
        value = e.law.function.value(np.concatenate([e.z, draws.z[s]]), ready.problem.inputs)
        before, after = (counts[:, None] * (value - target.losses[0]) ** 2).sum((1, 2))
        gains.append(1 - after / before)
        residual = np.log(value[0] / target.losses[0])
        square = (counts[:, None] * residual**2).sum(0) / (residual**2).sum(0)
        np.testing.assert_allclose(draws.noise[s], e.noise * np.sqrt(square), rtol=1e-9)
    assert min(gains) > 0
    assert np.mean(gains) > 0.03  # about 7 parameters of 48 losses


# ---- to the bit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["chinchilla", "transfer-plain", "capacity-plain"])
def test_bits_depend_on_the_seed_alone(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same to the bit whatever the number of replicates, the size of a batch and the number of cores."""
    runs = capacity_table()
    e, ready = fitted(runs, law, starts=2)
    first = bootstrap(runs, ready, e, 50, seed=5)
    assert same(first, bootstrap(runs, ready, e, 50, seed=5))
    monkeypatch.setattr(module, "_CELLS", 7 * ready.problem.target.losses.size)
    monkeypatch.setattr(module, "cores", lambda: 3)
    more = bootstrap(runs, ready, e, 60, seed=5)
    assert same(first, replace(more, z=more.z[:50], noise=more.noise[:50]))
    assert not np.isclose(first.z, bootstrap(runs, ready, e, 50, seed=6).z).all((1, 2)).any()


# ---- rows that share their error ----------------------------------------------------------------------------


def checkpoints(seed: int, named: bool) -> Runs:
    """14 runs of 8 checkpoints each; all rows of a run share an error of 2%, and have .2% of their own."""
    rng = np.random.default_rng(seed)
    sizes = np.repeat(np.geomspace(3e7, 3e9, 14), 8)
    tokens = np.tile(np.geomspace(2e9, 1e11, 8), 14)
    error = np.repeat(rng.normal(0, 0.02, 14), 8) + rng.normal(0, 0.002, 112)
    loss = (1.8 + 480 / sizes**0.35 + 2000 / tokens**0.37) * np.exp(error)
    return Runs(
        sources=(), domains=("web",), n_params=sizes, n_tokens=tokens, weights=np.zeros((112, 0)),
        losses=loss[:, None], run_id=np.repeat([f"run {i}" for i in range(14)], 8) if named else None,
    )  # fmt: skip


def test_resampling_whole_runs_gives_the_sampling_error() -> None:
    """The spread of the loss predicted at 10 times the size, over tables simulated anew, is that of the replicates."""

    def predicted(e: Estimate, z: np.ndarray) -> np.ndarray:
        x = e.inputs(np.zeros((1, 0)), 3e10, 1e12)
        return np.log(e.losses_at(z, x)[:, 0, 0])

    ends, clustered, by_row = [], [], []
    for seed in range(60):
        runs = checkpoints(seed, named=True)
        e, ready = fitted(runs, starts=3)
        ends.append(predicted(e, e.z[None])[0])
        if seed < 12:
            draws = bootstrap(runs, ready, e, 100)
            assert draws.diagnostics["training_runs"] == 14
            clustered.append(predicted(e, draws.z).std())
            rows = checkpoints(seed, named=False)
            draws = bootstrap(rows, ready, e, 100)
            assert draws.diagnostics["training_runs"] == 112
            by_row.append(predicted(e, draws.z).std())
    truth = np.std(ends)
    assert 0.7 < np.median(clustered) / truth < 1.3
    assert np.median(by_row) / truth < 0.65


def test_noise_keeps_the_level_of_the_fit_and_has_its_sampling_error() -> None:
    runs = scale_table(60)
    e, ready = fitted(runs)
    draws = bootstrap(runs, ready, e, 400)
    assert draws.noise.mean() == pytest.approx(e.noise[0], rel=0.02)
    assert draws.noise.std() / e.noise[0] == pytest.approx((2 * 60) ** -0.5, rel=0.35)
    assert np.isinf(draws.nu).all()
    # Checkpoints that share their error tell less of its size than as many rows by themselves.
    runs = checkpoints(0, named=True)
    e, ready = fitted(runs)
    shared = bootstrap(runs, ready, e, 200).noise.std()
    alone = bootstrap(checkpoints(0, named=False), ready, e, 200).noise.std()
    assert shared > 1.5 * alone


# ---- tables that are small, or have holes -------------------------------------------------------------------


def holes(seen: int) -> Runs:
    """Two domains, the second with `seen` losses only."""
    one = scale_table(30)
    losses = np.repeat(one.losses, 2, 1)
    losses[seen:, 1] = np.nan
    return replace(one, domains=("web", "code"), losses=losses)


def test_resamples_with_too_few_losses_are_drawn_anew() -> None:
    runs = holes(8)
    e, ready = fitted(runs)
    draws = bootstrap(runs, ready, e, 100)
    assert draws.diagnostics["redrawn"] > 20
    assert draws.diagnostics["failed"] == 0
    assert len(draws) == 100
    assert any("drawn anew" in w for w in draws.warnings)
    resampler = Resampler.of(runs, ready, 0)
    for s in range(100):
        counts, _ = resampler.draw(s)
        assert counts is not None
        assert (counts[:8] > 0).sum() >= 5


def test_replicates_that_fail_are_left_out_and_counted() -> None:
    runs = holes(5)  # a resample must hold all five of them
    e, ready = fitted(runs)
    found = [Resampler.of(runs, ready, 0).draw(s)[0] for s in range(60)]
    failing = sum(counts is None for counts in found)
    assert 0 < failing < 30
    draws = bootstrap(runs, ready, e, 60)
    assert draws.diagnostics["failed"] == failing
    assert len(draws) == len(draws.noise) == 60 - failing
    assert any(f"{failing} of 60 bootstrap replicates failed" in w for w in draws.warnings)
    assert np.isfinite(draws.z).all()
    assert np.isfinite(draws.noise).all()


def test_a_table_that_hardly_any_resample_can_stand_for() -> None:
    runs = scale_table(5)
    e, ready = fitted(runs)
    with pytest.raises(FitError, match=r"of 60 bootstrap replicates failed: resamples of 5 training runs"):
        bootstrap(runs, ready, e, 60)


def test_rows_without_losses_are_not_drawn() -> None:
    runs = scale_table(60, noise=0.002)
    losses = runs.losses.copy()
    losses[45:] = np.nan
    part = replace(runs, losses=losses)
    e, ready = fitted(part)
    draws = bootstrap(part, ready, e, 50)
    assert draws.diagnostics["training_runs"] == 45
    alone = bootstrap(runs.select(np.arange(45)), first_rows(ready, 45), e, 50)
    np.testing.assert_allclose(draws.z, alone.z, atol=1e-5)


def first_rows(ready: Prepared, n: int) -> Prepared:
    """The same problem with its first `n` rows alone."""
    x, target = ready.problem.inputs, ready.problem.target
    cut = replace(x, n_params=x.n_params[:n], n_tokens=x.n_tokens[:n], weights=x.weights[:n])
    losses = Target(target.losses[:, :n], target.cell_weights[:, :n])
    return replace(ready, problem=LeastSquares(ready.problem.function, cut, losses, ready.problem.objective))


def test_few_training_runs() -> None:
    runs = checkpoints(0, named=True)
    e, ready = fitted(runs)
    few = replace(runs, run_id=np.repeat(["a", "b", "c", "d", "e", "f", "g"], 16))
    assert any("7 training runs" in w for w in bootstrap(few, ready, e, 50).warnings)
    fewer = replace(runs, run_id=np.repeat(["a", "b"], 56))
    with pytest.raises(FitError, match=r"at least 4 of them, got 2 .*: add runs"):
        bootstrap(fewer, ready, e, 50)


def test_too_few_replicates() -> None:
    runs = scale_table()
    e, ready = fitted(runs)
    with pytest.raises(FitError, match="at least 50 replicates, got 49"):
        bootstrap(runs, ready, e, 49)


# ---- progress and Ctrl-C ------------------------------------------------------------------------------------


def test_progress_is_told() -> None:
    runs = scale_table()
    e, ready = fitted(runs)
    seen: list[tuple[int, int]] = []
    bootstrap(runs, ready, e, 1000, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == (1000, 1000)


def test_ctrl_c_half_way_keeps_what_is_finished() -> None:
    runs = scale_table()
    e, ready = fitted(runs)

    def stop(done: int, total: int) -> None:
        if done >= total // 2:
            signal.raise_signal(signal.SIGINT)

    whole, draws = bootstrap(runs, ready, e, 2000), bootstrap(runs, ready, e, 2000, progress=stop)
    assert 1000 <= len(draws) <= 2000
    assert any(f"{len(draws)} of 2000 replicates are finished" in w for w in draws.warnings)
    known = {row.tobytes() for row in whole.z}
    assert all(row.tobytes() in known for row in draws.z)
    assert np.array_equal(draws.z[:1000], whole.z[:1000])


def test_ctrl_c_at_once_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = scale_table()
    e, ready = fitted(runs)
    monkeypatch.setattr(module, "_CELLS", 10 * len(runs))
    monkeypatch.setattr(module, "cores", lambda: 1)

    def stop(done: int, total: int) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        bootstrap(runs, ready, e, 50_000, progress=stop)
