"""Fits with draws: asked for, stored, read by plain ArviZ, used by predictions; rows that share their error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lawkit
from lawkit.bayes.posterior import posterior
from lawkit.cli import main
from lawkit.fitting import clusters
from lawkit.fitting.clusters import independent_share, shared_error, trained_settings, training_runs
from lawkit.fitting.draws import NoiseModel
from lawkit.fitting.sampling import summary
from lawkit.runs import Runs


def scale_runs(noise: float = 0.01, n: int = 60, seed: int = 0, domains: int = 1) -> Runs:
    rng = np.random.default_rng(seed)
    n_params, n_tokens = np.exp(rng.uniform(np.log([5e7, 1e9]), np.log([2e9, 6e10]), (n, 2))).T
    loss = 1.8 + 480 / n_params**0.35 + 2000 / n_tokens**0.37
    losses = loss[:, None] * np.exp(noise * rng.normal(size=(n, domains)))
    return Runs(
        sources=(), domains=tuple(f"d{i}" for i in range(domains)), n_params=n_params, n_tokens=n_tokens,
        weights=np.zeros((n, 0)), losses=losses,
    )  # fmt: skip


def mixture_runs(n: int = 40, noise: float = 0.005, seed: int = 0) -> Runs:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(3), n)
    n_params, n_tokens = rng.choice([1e8, 3e8, 1e9], n), rng.choice([2e9, 8e9, 3e10], n)
    pull = np.array([[0.9, 0.3, 0.1], [0.1, 0.8, 0.4]])
    base = 1.5 + 300 / n_params**0.33 + 600 / n_tokens**0.33
    losses = (base[:, None] + np.exp(-weights @ pull.T)) * np.exp(noise * rng.normal(size=(n, 2)))
    return Runs(
        sources=("a", "b", "c"), domains=("x", "y"), n_params=n_params, n_tokens=n_tokens, weights=weights,
        losses=losses,
    )  # fmt: skip


# ---- fits with draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"posterior": "laplace"}, {"bootstrap": 60}], ids=["laplace", "bootstrap"]
)
def test_a_fit_with_draws_comes_back_bit_for_bit(tmp_path: Path, options: dict) -> None:
    fit = lawkit.fit(scale_runs(domains=2), law="chinchilla", **options)
    fit.save(tmp_path / "fit")
    again = lawkit.load_fit(tmp_path / "fit")
    assert fit.draws is not None
    assert again.draws is not None
    for name in ("z", "noise", "nu", "eta"):
        np.testing.assert_array_equal(getattr(again.draws, name), getattr(fit.draws, name))
    assert again.draws.kind == fit.draws.kind
    bands = [f.predict(1e10, 1e11, interval=0.9) for f in (fit, again)]
    np.testing.assert_array_equal(bands[0].upper, bands[1].upper)  # type: ignore[arg-type]
    assert bands[0].kind is not None
    assert bands[0].kind.lower().startswith(fit.draws.kind)
    again.save(tmp_path / "copy")  # what was loaded can be saved elsewhere, its posterior too
    copied = {p.name for p in (tmp_path / "copy").iterdir()}
    assert copied == {p.name for p in (tmp_path / "fit").iterdir()}


def test_the_posterior_is_read_by_plain_arviz(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    fit = lawkit.fit(scale_runs(domains=2), law="chinchilla", posterior="laplace", holdout="none")
    fit.save(tmp_path / "fit")
    (path,) = (tmp_path / "fit").glob("posterior-*.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = arviz.from_netcdf(str(path))
    alpha = trace["posterior"]["alpha"]
    assert alpha.dims == ("chain", "draw", "domain")
    told = summary(fit)["d1"]["alpha"]
    assert float(alpha.sel(domain="d1").mean()) == pytest.approx(told["mean"], abs=0.1 * told["sd"])
    # A second save sweeps the file that the new head no longer names.
    replace(fit, netcdf=None).save(tmp_path / "fit")
    assert not list((tmp_path / "fit").glob("posterior-*.nc"))


def test_draws_of_an_average_err_together_as_its_members_do() -> None:
    runs = mixture_runs(60)
    fit = lawkit.fit(runs, law="transfer-average", holdout="none", posterior="laplace", starts=1)
    assert fit.draws is not None
    e = fit.estimate
    assert runs.n_params is not None
    x = e.inputs(runs.weights[runs.n_params > 9e8], 1e9, 3e10)
    average = np.log(e.losses_at(fit.draws.z, x)).mean(1)  # (S, E), near the dearest runs
    spread = []
    for law in ("transfer", "transfer-plain"):
        size = lawkit.fit(runs, law=law, holdout="none", starts=1).z.shape[1]
        z = fit.draws.z[:, :, :size] if law == "transfer" else fit.draws.z[:, :, -size:]
        member = lawkit.fit(runs, law=law, holdout="none", starts=1).estimate
        spread.append(np.log(member.losses_at(z, x)).mean(1).std(0))
    independent, together = np.hypot(*spread) / 2, np.sum(spread, 0) / 2
    assert (average.std(0) > 0.5 * (independent + together)).all()
    assert (average.std(0) <= together * 1.01).all()


def test_a_seed_decides_the_draws() -> None:
    runs = scale_runs()
    one, same, other = (
        lawkit.fit(runs, law="chinchilla", posterior="laplace", holdout="none", seed=s) for s in (0, 0, 1)
    )
    assert one.draws is not None
    assert same.draws is not None
    assert other.draws is not None
    np.testing.assert_array_equal(one.draws.z, same.draws.z)
    assert not np.array_equal(one.draws.z, other.draws.z)
    np.testing.assert_array_equal(one.draw(50, seed=3), same.draw(50, seed=3))
    assert len(one.draw(len(one.draws) + 7)) == len(one.draws) + 7


def test_draws_without_a_posterior_are_normal() -> None:
    fit = lawkit.fit(scale_runs(), law="chinchilla", holdout="none")
    z = fit.draw(20_000, seed=1)[:, 0]
    sd = np.sqrt(np.diag(fit.covariance[0]))
    np.testing.assert_allclose((z.mean(0) - fit.z[0]) / sd, 0, atol=0.05)
    np.testing.assert_allclose(z.std(0) / sd, 1, atol=0.05)


def test_noise_that_grows_with_one_over_size_is_found_and_used() -> None:
    rng = np.random.default_rng(5)
    runs = scale_runs(noise=0.0, n=200)
    assert runs.n_params is not None
    sd = 0.003 * (2e9 / runs.n_params) ** 0.7
    noisy = replace(runs, losses=runs.losses * np.exp(sd[:, None] * rng.normal(size=(200, 1))))
    fit = lawkit.fit(noisy, law="chinchilla", posterior="laplace", noise="size", holdout="none")
    assert fit.draws is not None
    slope = fit.draws.eta[:, 0, 0] / fit.draws.noise_model.sd[0]
    assert abs(slope.mean() - 0.7) < 3 * slope.std()
    small, large = (fit.predict(n, 1e10, interval=0.9) for n in (6e7, 1.9e9))
    assert small.upper is not None
    assert large.upper is not None
    assert np.log(small.upper / small.mean) > 3 * np.log(large.upper / large.mean)


# ---- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"posterior": "vi"}, "posterior must be one of none, laplace, nuts, got 'vi'"),
        ({"posterior": "laplace", "bootstrap": 100}, "ask for one of them"),
        ({"noise": "size"}, "is a part of a posterior"),
        ({"posterior": "laplace", "noise": "sizes"}, "noise must be one of constant, size, mixture"),
        ({"bootstrap": -1}, "bootstrap must be a whole number"),
        ({"posterior": "laplace", "noise": "mixture"}, "noise cannot depend on the mixture"),
    ],
)
def test_draws_that_make_no_sense_are_refused(options: dict, said: str) -> None:
    with pytest.raises(lawkit.LawkitError, match=said):
        lawkit.fit(scale_runs(n=20), law="chinchilla", holdout="none", **options)


def test_a_table_too_small_for_a_posterior() -> None:
    runs = replace(
        mixture_runs(20), losses=np.where(np.arange(20)[:, None] < [20, 3], mixture_runs(20).losses, np.nan)
    )
    with pytest.raises(lawkit.LawkitError, match="at least 4 losses of each domain, y has 3"):
        lawkit.fit(runs, law="transfer-plain", posterior="laplace", holdout="none")


def test_all_equal_scales_leave_the_noise_nothing_to_grow_with() -> None:
    runs = mixture_runs()
    same = replace(runs, n_params=np.full(len(runs), 1e8), n_tokens=np.full(len(runs), 1e9))
    with pytest.raises(lawkit.LawkitError, match="n_params does not vary"):
        lawkit.fit(same, law="transfer-plain", posterior="laplace", noise="size", holdout="none")


def test_ctrl_c_leaves_the_point_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    import lawkit.fitting.bootstrap as module

    def interrupted(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "bootstrap", interrupted)
    fit = lawkit.fit(scale_runs(), law="chinchilla", bootstrap=100, holdout="none")
    assert fit.draws is None
    assert any("interrupted: the point fit is kept" in w for w in fit.warnings)
    scale_runs().write(tmp_path / "runs.csv")
    status = main(["fit", str(tmp_path / "runs.csv"), "-o", str(tmp_path / "fit"), "--bootstrap", "100"])
    assert status == 130
    assert "the point fit is kept" in capsys.readouterr().err
    assert lawkit.load_fit(tmp_path / "fit").draws is None


def test_draws_that_would_contradict_the_runs_are_not_drawn(tmp_path: Path) -> None:
    """One mixture at 16 settings leaves most of the transfer law to its priors: its posterior is a bent valley."""
    n, d = (g.ravel() for g in np.meshgrid([1e7, 3e7, 1e8, 3e8], [1e9, 3e9, 1e10, 3e10]))
    losses = 1.9 + 90 / n**0.25 + 900 / d**0.32
    losses *= np.exp(0.004 * np.sin(7 * np.arange(16.0)))
    same = mixture_runs().select(np.zeros(16, int))
    runs = replace(same, n_params=n, n_tokens=d, losses=np.tile(losses[:, None], len(same.domains)))
    fit = lawkit.fit(runs, law="transfer", posterior="laplace", holdout="none", starts=2)
    assert fit.draws is None
    (said,) = [w for w in fit.warnings if "the point fit is kept, without draws" in w]
    assert "more than twice the noise; sample with --posterior nuts" in said
    fit.save(tmp_path / "fit")
    assert lawkit.load_fit(tmp_path / "fit").draws is None


# ---- rows that share their error --------------------------------------------------------------------------------


def test_runs_are_told_apart_by_their_names_or_their_settings() -> None:
    runs = mixture_runs(4)
    named = replace(runs, run_id=np.array(["a", "a", "", ""], object))
    assert training_runs(named).tolist() == [0, 0, 1, 2]
    weights = np.repeat(runs.weights[:2], 3, axis=0)
    passing = Runs(
        sources=runs.sources, domains=runs.domains, n_params=np.full(6, 1e8), n_tokens=np.tile([1e9, 2e9, 4e9], 2),
        weights=weights, losses=np.ones((6, 2)),
    )  # fmt: skip
    assert training_runs(passing).tolist() == [0, 0, 0, 1, 1, 1]
    assert training_runs(replace(passing, n_tokens=np.full(6, 1e9))).tolist() == list(range(6))
    assert training_runs(scale_runs(n=5)).tolist() == list(range(5))
    assert trained_settings(replace(passing, n_tokens=np.full(6, 1e9))).tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_shared_part_of_errors_is_found(rho: float) -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(400), 5)
    common = np.repeat(rng.normal(size=400), 5)
    r = np.sqrt(rho) * common + np.sqrt(1 - rho) * rng.normal(size=2000)
    r[::17] = np.nan
    assert shared_error(r, labels) == pytest.approx(rho, abs=0.06)


def test_rows_without_company_count_in_full() -> None:
    runs = scale_runs(n=30)
    share = independent_share(np.random.default_rng(0).normal(size=(30, 1)), runs)
    np.testing.assert_array_equal(share, 1.0)
    assert clusters.shared_error(np.ones(30), np.arange(30)) == 0.0


def test_checkpoints_that_share_their_error_do_not_make_the_posterior_surer() -> None:
    """Ten checkpoints with one error say little more than one."""
    rng = np.random.default_rng(4)
    single = scale_runs(noise=0.0, n=60)
    error = 0.01 * rng.normal(size=(60, 1))
    once = replace(single, losses=single.losses * np.exp(error))
    many = once.select(np.repeat(np.arange(60), 10))
    jitter = np.exp(1e-4 * rng.normal(size=(600, 1)))
    many = replace(
        many, losses=many.losses * jitter, run_id=np.repeat(np.arange(60).astype(str), 10).astype(object)
    )
    spread = []
    for runs in (once, many, replace(many, run_id=None, seed=np.arange(600))):
        fit = lawkit.fit(runs, law="chinchilla", posterior="laplace", holdout="none")
        spread.append(summary(fit)["d0"]["alpha"]["sd"])
    assert spread[1] > 0.75 * spread[0]
    assert spread[2] > 0.75 * spread[0]  # repeats of a setting that err alike are misfit, not evidence


def test_noise_models_are_standardised_on_the_runs() -> None:
    runs = mixture_runs()
    for kind in ("size", "mixture"):
        model = NoiseModel.of(runs, kind)
        columns = model.columns(runs.n_params, runs.weights)
        np.testing.assert_allclose(columns.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(columns.std(0), 1)
    assert NoiseModel().columns(runs.n_params, runs.weights).shape == (len(runs), 0)


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_says_what_was_drawn(tmp_path: Path, capsys) -> None:
    scale_runs(domains=2).write(tmp_path / "runs.csv")
    arguments = ["fit", str(tmp_path / "runs.csv"), "-o", str(tmp_path / "fit"), "--law", "chinchilla"]
    assert main([*arguments, "--posterior", "laplace", "--prior-predictive", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["draws"]["kind"] == "laplace"
    assert found["domains"]["d0"]["posterior"]["alpha"]["sd"] > 0
    assert 0 <= found["prior_predictive"]["d0"]["inside_90"] <= 1
    assert 0 <= found["holdout"]["coverage_90_plain"] <= found["holdout"]["coverage_90"] <= 1
    assert main([*arguments, "--bootstrap", "60"]) == 0
    printed = capsys.readouterr().out
    assert "Bootstrap, 60 draws" in printed
    assert "before widening" in printed


def test_posterior_can_be_had_without_the_rest() -> None:
    fit = lawkit.fit(mixture_runs(), law="transfer-plain", holdout="none", starts=1)
    draws, trace = posterior(fit.runs, fit.estimate, "laplace", seed=2)
    assert draws.z.shape[1:] == fit.z.shape
    assert trace is not None
