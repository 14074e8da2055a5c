"""Published figures, recomputed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lawkit import laws
from lawkit.fitting import fit, load_fit
from lawkit.fitting.prepare import prepare
from lawkit.fitting.solver import minimise
from lawkit.laws._function import Inputs
from lawkit.laws._law import Law, Objective
from lawkit.runs import Runs

# ---- datablations: Muennighoff et al. 2023 -----------------------------------------------------------------

#: The coefficients that the authors publish; A, B and E as exponentials, alpha = beta.
C4 = {
    "A": np.exp(6.255414),
    "B": np.exp(7.3049974),
    "E": np.exp(0.6254804),
    "alpha": 0.3526596,
    "beta": 0.3526596,
}
WORTH = {"R_D": 15.387756, "R_N": 5.309743}

#: Runs that the authors leave out of their fit, because more parameters or passes made the loss worse, or for other
#: reasons of theirs: commented out in utils/parametric_fit.ipynb of huggingface/datablations (1370131), section
#: "Custom data loading with outliers removed". Of runs with seeds and other shapes they fit the plain one, which is the
#: last in the table.
LEFT_OUT = """
2b84b4b 2b88b4b 2b812b4b 2b816b4b 2b824b4b 2b855b1b25 4b212b12b 4b224b12b 4b284b12b2 4b284b1b9 4b284b6b
2b8100m100m 14m7b5100m 14m300b100m 1b12b7100m 1b13b9100m 1b15b9100m 1b17b5100m 619m3b9100m 619m5b9100m
619m7b5100m 2b84b8100m 1b58b8100m 1b112b100m 619m22b100m 421m300b1b5 221m91b400m 221m174b400m 221m600b400m
8b712b12b 8b712b1b5 8b712b400m 8b712b100m 3b926b1b5 2b836b1b5 2b836b400m 2b836b100m 2b246b400m 2b246b100m
1b566b1b5 1b566b100m 1b191b400m 1b191b1b5 1b1250b1b5 1b5174b1b5 2b291b1b5 2b2174b1b5 8b720b1b5 2b877b1b5
"""


@pytest.fixture
def datablations(datasets: Path) -> Runs:
    """The 182 runs that the authors fitted."""
    import pandas as pd

    table = pd.read_csv(datasets / "datablations" / "points.csv")
    assert len(table) == 296
    left_out = LEFT_OUT.split()
    assert set(left_out) <= set(table["name"])
    table = table.drop_duplicates("name", keep="last")
    table = table[~table["name"].isin(left_out)]
    assert len(table) == 182
    column = {c: table[c].to_numpy(float) for c in ("params", "tokens", "unique_tokens", "val_loss")}
    return Runs(
        sources=("c4",),
        domains=("c4_validation",),
        n_params=column["params"],
        n_tokens=column["tokens"],
        weights=np.ones((182, 1)),
        losses=column["val_loss"][:, None],
        unique=column["unique_tokens"][:, None],
    )


def test_datablations_published_law_explains_what_it_is_said_to(datablations: Runs) -> None:
    runs = datablations
    law = laws.get("data-constrained")
    assert runs.unique is not None
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    x = Inputs(
        n_params=runs.n_params,
        n_tokens=runs.n_tokens,
        weights=runs.weights,
        own=np.array([[-1]]),
        unique=runs.unique[:, 0],
    )
    predicted = law.function.value(law.unconstrained({**C4, **WORTH})[None], x)[0]
    share = 1 - ((predicted - runs.losses) ** 2).sum() / ((runs.losses - runs.losses.mean()) ** 2).sum()
    assert round(float(share), 4) == 0.7722
    residual = np.abs(np.log(predicted / runs.losses))
    huber = np.where(residual <= 1e-3, residual**2 / 2, 1e-3 * (residual - 5e-4)).sum()
    # As printed by the authors' notebook, in single precision.
    assert huber == pytest.approx(0.015825936570763588, rel=2e-7)


def _two_step_law() -> Law:
    """The authors' second step: A, B, E and alpha = beta, which they fitted to other runs, are held."""
    return laws.get("data-constrained").with_fixed(**C4)


def test_datablations(datablations: Runs) -> None:
    """From the published coefficients down to the minimum they belong to.

    The authors minimised in single precision, in which the objective is flat around the minimum: their own procedure
    (L-BFGS from their 16 starts, run again in PyTorch 2.13) ends anywhere in R_D 15.35 to 15.39 and R_N 5.309 to 5.324,
    and in double precision at the figures below.
    """
    ready = prepare(datablations, _two_step_law(), Objective(kind="huber", delta=1e-3))
    published = np.log([[WORTH["R_D"], WORTH["R_N"]]])
    group = np.zeros(1, int)
    start = ready.problem.cost(published, group)[0]
    z, cost = minimise(ready.problem, published, group)
    np.testing.assert_allclose(np.exp(z[0]), [15.3718, 5.3151], rtol=1e-5)
    np.testing.assert_allclose(np.exp(z[0]), list(WORTH.values()), rtol=1.1e-3)
    assert cost[0] == pytest.approx(0.01582593206911, abs=1e-13)
    # The published point is that minimum as far as single precision, with its 6e-8 of each unit, can tell.
    assert 0 <= start - cost[0] < 1e-8


def test_datablations_has_a_better_minimum(datablations: Runs) -> None:
    """The published minimum is one of five, and a fit from many starts finds the lowest: R_D is hardly known."""
    fitted = fit(datablations, law=_two_step_law(), delta=1e-3, holdout=None)
    assert {p.name for p in fitted.law.parameters} == set(WORTH)  # the others are held
    assert fitted.estimate.cost[0] <= 0.0158046625


def test_fit_with_parameters_held_is_kept(datablations: Runs, tmp_path: Path) -> None:
    fitted = fit(datablations, law=_two_step_law(), holdout=None, starts=4)
    fitted.save(tmp_path / "fit")
    again = load_fit(tmp_path / "fit")
    assert again.law.fixed == pytest.approx(C4, abs=0)
    assert again.parameters == fitted.parameters
    at = (datablations.n_params, datablations.n_tokens, datablations.weights, datablations.unique)
    np.testing.assert_array_equal(again.losses(*at), fitted.losses(*at))
