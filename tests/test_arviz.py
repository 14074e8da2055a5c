"""What needs ArviZ, the same before and after its 1.0: traces and their files, convergence, PSIS-LOO, stacking."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import lawkit
from lawkit.bayes import _arviz
from lawkit.bayes.density import log_likelihood
from lawkit.bayes.laplace import laplace
from lawkit.bayes.spec import Spec, specs
from lawkit.fitting.draws import NoiseModel
from lawkit.fitting.estimate import estimate
from lawkit.runs import Runs


@pytest.fixture(scope="module")
def both() -> list[Spec]:
    """Two domains of one table."""
    rng = np.random.default_rng(0)
    n, d = np.exp(rng.uniform(np.log([5e7, 1e9]), np.log([2e9, 6e10]), (40, 2))).T
    loss = (1.8 + 480 / n**0.35 + 2000 / d**0.37)[:, None] * np.exp(0.01 * rng.normal(size=(40, 2)))
    runs = Runs(
        sources=(), domains=("web", "code"), n_params=n, n_tokens=d, weights=np.zeros((40, 0)), losses=loss
    )
    law = lawkit.laws.get("chinchilla")
    e, ready = estimate(runs, law, law.objective)
    return specs(runs, ready, e.z, e.noise, NoiseModel())


def test_a_trace_goes_to_a_file_and_back(both: list[Spec], tmp_path: Path) -> None:
    drawn = [laplace(spec, 400, 1) for spec in both]
    trace = _arviz.combine([_arviz.from_draws(s, d, chains=4) for s, d in zip(both, drawn, strict=True)])
    _arviz.save(trace, tmp_path / "p.nc")
    for again in (trace, _arviz.load(tmp_path / "p.nc")):
        alpha = again["posterior"]["alpha"]
        assert dict(zip(alpha.dims, alpha.shape, strict=True)) == {"chain": 4, "draw": 100, "domain": 2}
        assert [str(d) for d in alpha["domain"].values] == ["web", "code"]
        stored = np.exp(drawn[1].z[:, 3])  # alpha is the fourth parameter, fitted as its logarithm
        np.testing.assert_allclose(alpha.sel(domain="code").values.ravel(), stored)
    assert [p.name for p in tmp_path.iterdir()] == ["p.nc"]


def test_a_file_that_cannot_be_written_or_read(both: list[Spec], tmp_path: Path) -> None:
    trace = _arviz.from_draws(both[0], laplace(both[0], 100, 1))
    with pytest.raises(lawkit.LawkitError, match="cannot be written"):
        _arviz.save(trace, tmp_path / "no" / "p.nc")
    (tmp_path / "bad.nc").write_bytes(b"not netcdf")
    with pytest.raises(lawkit.LawkitError, match="cannot be read"):
        _arviz.load(tmp_path / "bad.nc")


def test_convergence_tells_chains_that_agree_from_those_that_do_not() -> None:
    draws = np.random.default_rng(0).normal(size=(4, 500, 2))
    draws[0, :, 1] += 3.0
    found = _arviz.convergence(draws)
    assert found.rhat[0] < 1.01 < 1.1 < found.rhat[1]
    assert found.ess_bulk[0] > 1500 > 100 > found.ess_bulk[1]


def test_loo_is_what_leaving_out_gives() -> None:
    """Normal observations with a known variance and a flat prior: the predictive without y_i is known."""
    rng = np.random.default_rng(1)
    n = 30
    y = rng.normal(size=n)
    mean = rng.normal(y.mean(), 1 / np.sqrt(n), 4000)
    pointwise = -0.5 * (y - mean[:, None]) ** 2 - 0.5 * np.log(2 * np.pi)
    found = _arviz.loo(pointwise)
    others = (y.sum() - y) / (n - 1)
    variance = 1 + 1 / (n - 1)
    expected = -0.5 * (y - others) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    np.testing.assert_allclose(found.pointwise, expected, atol=0.02)
    assert found.elpd == pytest.approx(expected.sum(), abs=0.1)
    assert found.p_loo == pytest.approx(1.0, abs=0.4)
    assert found.unreliable_share == 0.0


def test_loo_of_a_law_counts_its_parameters(both: list[Spec]) -> None:
    drawn = laplace(both[0], 2000, 1)
    found = _arviz.loo(log_likelihood(both[0], drawn).reshape(len(drawn.z), -1))
    assert 3 < found.p_loo < 9  # five parameters and the noise
    assert found.max_pareto_k < 0.7


def test_stacking_finds_the_mixture_that_predicts_best() -> None:
    from scipy.optimize import minimize_scalar

    rng = np.random.default_rng(2)
    a, b = rng.normal(-1.0, 1.0, 200), rng.normal(-1.2, 1.0, 200)
    found = _arviz.stacking_weights([a, b])
    best = minimize_scalar(
        lambda w: -np.logaddexp(np.log(w) + a, np.log1p(-w) + b).mean(), bounds=(1e-6, 1 - 1e-6)
    )
    assert found.sum() == pytest.approx(1.0)
    assert found[0] == pytest.approx(best.x, abs=1e-3)
    assert _arviz.stacking_weights([a, a - 5.0])[0] > 0.999


def test_arviz_is_imported_in_one_module_only() -> None:
    home = Path(lawkit.__file__).parent
    users = [p.name for p in home.rglob("*.py") if "import arviz" in p.read_text(encoding="utf-8")]
    assert users == ["_arviz.py"]


def test_without_arviz_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.setitem(sys.modules, "arviz", None)
        with pytest.raises(lawkit.LawkitError, match=r"pip install 'lawkit\[bayes\]'"):
            _arviz.arviz()
