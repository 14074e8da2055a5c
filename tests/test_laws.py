"""Every law of the zoo: exact derivatives, transforms, print, convexity; and laws of other packages."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

import lawkit.laws
from lawkit.errors import LawError
from lawkit.laws._function import Inputs
from lawkit.laws._law import D_ref, Law, N_ref, Parameter, scalars

NAMES = [name for name, _, _ in lawkit.laws.BUILTIN]
K = 4
N_REF, D_REF = 1e9, 3e10
# Central differences of sixth order.
OFFSETS = np.array([-3, -2, -1, 1, 2, 3])
STENCIL = np.array([-1 / 60, 3 / 20, -3 / 4, 3 / 4, -3 / 20, 1 / 60])


def _scales(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    n_tokens = 10 ** rng.uniform(9.5, 11.5, n)
    return {
        "n_params": 10 ** rng.uniform(8, 10, n),
        "n_tokens": n_tokens,
        "unique": n_tokens * 10 ** rng.uniform(-1.5, 0.5, n),
    }


def _own(law: Law, rng: np.random.Generator, groups: int) -> np.ndarray:
    return np.arange(K)[None] if law.coupled else rng.integers(0, K, (groups, 1))


def _random_z(law: Law, rng: np.random.Generator, groups: int) -> np.ndarray:
    """Parameter vectors: from the priors, or uniform over the ranges of starting values."""
    z = np.empty((groups, law.n_parameters(K)))
    where = law.layout(K)
    for p in law.parameters:
        part = where[p.name]
        shape = (groups, part.stop - part.start)
        if p.prior is not None:
            z[:, part] = p.prior.mean + p.prior.sd * rng.uniform(-2, 2, shape)
        else:
            low, high = law.unconstrained_range(p)
            z[:, part] = rng.uniform(low, high, shape)
    return z


def _differences(f, at: np.ndarray, step: float) -> np.ndarray:
    """Derivatives of f by each of the last axis of `at` (..., Y), appended as a last axis."""
    columns = []
    for k in range(at.shape[-1]):
        total = 0
        for offset, weight in zip(OFFSETS, STENCIL, strict=True):
            moved = at.copy()
            moved[..., k] += offset * step
            total = total + weight * f(moved)
        columns.append(total / step)
    return np.stack(columns, -1)


def _assert_derivatives(exact: np.ndarray, f, at: np.ndarray, precision: float) -> None:
    """`exact` agrees with differences to 1e-6 relative, or to what rounding leaves of the difference.

    A kink within a step of the point shows as a disagreement, which smaller steps settle.
    """
    good = np.zeros(exact.shape, bool)
    for step in (1e-2, 1e-4, 1e-6):
        approximate = _differences(f, at, step)
        size = np.abs(f(at))[..., None]
        good |= np.abs(exact - approximate) <= 1e-6 * np.abs(approximate) + 100 * precision / step * size
    assert good.all(), f"{(~good).sum()} of {good.size} derivatives differ, first at {np.argwhere(~good)[0]}"


@pytest.fixture(params=NAMES)
def law(request: pytest.FixtureRequest) -> Law:
    return lawkit.laws.get(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20250601)


def _problem(law: Law, rng: np.random.Generator) -> tuple[np.ndarray, Inputs]:
    """100 random points: 25 parameter vectors times 4 rows."""
    weights = rng.dirichlet(np.ones(K), 4) * 0.8 + 0.05
    z = _random_z(law, rng, 25)
    return z, Inputs(weights=weights, own=_own(law, rng, 25), n_ref=N_REF, d_ref=D_REF, **_scales(rng, 4))


def test_gradients_agree_with_differences(law: Law, rng: np.random.Generator) -> None:
    z, x = _problem(law, rng)
    value, slope = law.function.jacobian(z, x, ("params", "weights"))
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(value, law.function.value(z, x), rtol=1e-13)
    # Extended precision, so that small derivatives are checked too, next to large values.
    wide = np.longdouble
    precision = float(np.finfo(wide).eps)

    def by_params(moved: np.ndarray) -> np.ndarray:
        return law.function.value(moved, x)

    size = law.n_parameters(K)
    by_group = z[:, None, None, :].astype(wide)
    _assert_derivatives(
        slope[..., :size],
        lambda m: by_params(m[:, 0, 0]),
        np.broadcast_to(by_group, (25, 1, 1, size)).copy(),
        precision,
    )
    assert law.function.value(z.astype(wide), x).dtype == wide

    def by_weights(moved: np.ndarray) -> np.ndarray:
        return law.function.value(z, Inputs(**{**x.__dict__, "weights": moved[0, :, 0]}))

    if "weights" in law.columns:
        at = x.weights[None, :, None, :].astype(wide)
        _assert_derivatives(slope[..., size:], by_weights, at, precision)
    else:
        assert (slope[..., size:] == 0).all()


def test_hessians_agree_with_differences_of_gradients(law: Law, rng: np.random.Generator) -> None:
    z, x = _problem(law, rng)
    wrt = ("params", "weights")
    value, slope, curve = law.function.hessian(z, x, wrt)
    np.testing.assert_allclose(slope, law.function.jacobian(z, x, wrt)[1], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        curve, np.swapaxes(curve, -1, -2), rtol=1e-12, atol=1e-12 * np.abs(curve).max()
    )
    size = law.n_parameters(K)

    def slopes(moved_z: np.ndarray, moved_weights: np.ndarray) -> np.ndarray:
        return law.function.jacobian(moved_z, Inputs(**{**x.__dict__, "weights": moved_weights}), wrt)[1]

    scale = np.abs(slope).max(-1)[..., None, None] + np.abs(value)[..., None, None]
    for exact, at, f in (
        (curve[..., :size], z, lambda m: slopes(m, x.weights)),
        (curve[..., size:], x.weights, lambda m: slopes(z, m)),
    ):
        good = np.zeros(exact.shape, bool)
        for step in (1e-2, 1e-3, 1e-5):
            approximate = _differences(f, at, step)
            good |= np.abs(exact - approximate) <= 1e-6 * np.abs(approximate) + 1e-13 / step * scale
        assert good.all(), f"{(~good).sum()} of {good.size} differ, first at {np.argwhere(~good)[0]}"


def test_transforms_round_trip(law: Law, rng: np.random.Generator) -> None:
    for z in _random_z(law, rng, 20):
        values = law.natural(z, N_REF, D_REF)
        assert set(values) == {p.name for p in law.parameters}
        np.testing.assert_allclose(law.unconstrained(values, N_REF, D_REF), z, rtol=1e-9, atol=1e-9)


def test_fitted_numbers_do_not_depend_on_the_reference_scale(law: Law, rng: np.random.Generator) -> None:
    """The natural values say it all: the same values at other reference scales predict the same losses."""
    if law.loss.has(N_ref) or law.loss.has(D_ref):
        pytest.skip("this law measures scale in units of the runs' own")
    z, x = _problem(law, rng)
    z = z[:3]
    x = x.take(np.arange(3))
    moved = np.stack([law.unconstrained(law.natural(each, N_REF, D_REF), 3e8, 7e9) for each in z])
    there = Inputs(**{**x.__dict__, "n_ref": 3e8, "d_ref": 7e9})
    np.testing.assert_allclose(law.function.value(moved, there), law.function.value(z, x), rtol=1e-9)


def test_print_mentions_every_parameter(law: Law) -> None:
    text, latex = law.text(), law.latex()
    for p in law.parameters:
        assert p.name in text
        assert sp.latex(sp.Symbol(p.name)) in latex


def test_law_says_what_it_is(law: Law) -> None:
    assert law.title
    assert law.citation
    assert "References" in (type(law).__doc__ or "")
    assert law.columns <= {"n_params", "n_tokens", "unique", "weights"}
    for p in law.parameters:
        assert p.start[0] < p.start[1]


def test_convex_laws_are_convex(law: Law) -> None:
    """10,000 random segments of the simplex: the loss half way is at most the mean of the losses at the ends."""
    if not law.convex_in_weights:
        pytest.skip("declares no convexity")
    rng = np.random.default_rng(7)
    vectors, segments = 100, 100
    z = _random_z(law, rng, vectors)
    concentration = 10 ** rng.uniform(-1.5, 1, (2, segments, 1))  # from near the corners to near the centre
    ends = rng.gamma(concentration, size=(2, segments, K)) + 1e-12
    ends /= ends.sum(-1, keepdims=True)
    scales = _scales(rng, segments)
    own = _own(law, rng, vectors)
    losses = [
        law.function.value(z, Inputs(weights=w, own=own, n_ref=N_REF, d_ref=D_REF, **scales))
        for w in (ends[0], ends[1], ends.mean(0))
    ]
    # Domains of a coupled law are losses of their own, each to be convex.
    mean = 0.5 * (losses[0] + losses[1])
    assert np.isfinite(losses[2]).all()
    assert (losses[2] <= mean + 1e-12 * np.abs(mean)).all(), np.max((losses[2] - mean) / np.abs(mean))


def test_every_law_on_disk_is_listed() -> None:
    folder = Path(lawkit.laws.__file__).parent
    not_laws = {"formula"}
    on_disk = {p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")} - not_laws
    assert {module for _, module, _ in lawkit.laws.BUILTIN} == on_disk
    for module in on_disk:
        exported = {
            attribute: value
            for attribute, value in vars(importlib.import_module(f"lawkit.laws.{module}")).items()
            if isinstance(value, Law) and not attribute.startswith("_")
        }
        listed = {attribute: name for name, where, attribute in lawkit.laws.BUILTIN if where == module}
        assert {attribute: value.name for attribute, value in exported.items()} == listed


def test_unknown_law_suggests_the_nearest() -> None:
    with pytest.raises(LawError, match="did you mean 'chinchilla'"):
        lawkit.laws.get("chinchila")


# ---- known values and limits ----------------------------------------------------------------------------


def _losses(name: str, values: dict[str, float], n_params, n_tokens, unique=None) -> np.ndarray:
    law = lawkit.laws.get(name)
    n_params, n_tokens = np.broadcast_arrays(
        np.atleast_1d(np.asarray(n_params, float)), np.asarray(n_tokens, float)
    )
    x = Inputs(
        n_params=n_params,
        n_tokens=n_tokens,
        unique=None if unique is None else np.broadcast_to(np.asarray(unique, float), n_params.shape),
        weights=np.zeros((len(n_params), 0)),
        own=np.array([[-1]]),
        n_ref=N_REF,
        d_ref=D_REF,
    )
    return law.function.value(law.unconstrained(values, N_REF, D_REF)[None], x)[0, :, 0]


CHINCHILLA = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}


def test_chinchilla_at_published_values() -> None:
    # Chinchilla itself: 70B parameters, 1.4T tokens.
    expected = 1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28
    np.testing.assert_allclose(_losses("chinchilla", CHINCHILLA, 70e9, 1.4e12), expected, rtol=1e-12)


def test_kaplan_has_its_one_sided_limits() -> None:
    values = {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
    np.testing.assert_allclose(_losses("kaplan", values, 1e9, 1e40), (6.4e13 / 1e9) ** 0.076, rtol=1e-6)
    np.testing.assert_allclose(_losses("kaplan", values, 1e50, 1e10), (1.8e13 / 1e10) ** 0.103, rtol=1e-6)


def test_coupled_nests_chinchilla_and_kaplan() -> None:
    n_params, n_tokens = np.array([1e8, 3e9, 1e10]), np.array([1e12, 1e10, 3e11])
    np.testing.assert_allclose(
        _losses("chinchilla-coupled", {**CHINCHILLA, "gamma": 1.0}, n_params, n_tokens),
        _losses("chinchilla", CHINCHILLA, n_params, n_tokens),
        rtol=1e-12,
    )
    kaplan = {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
    ratio = kaplan["alpha_N"] / kaplan["alpha_D"]
    coupled = {
        "E": 0.0, "A": kaplan["N_c"] ** ratio, "alpha": ratio, "B": kaplan["D_c"], "beta": 1.0, "gamma": 0.103,
    }  # fmt: skip
    np.testing.assert_allclose(
        _losses("chinchilla-coupled", coupled, n_params, n_tokens),
        _losses("kaplan", kaplan, n_params, n_tokens),
        rtol=1e-12,
    )


def test_over_training_is_chinchilla_with_equal_exponents() -> None:
    n_params, n_tokens = np.array([1e8, 3e9, 1e10]), np.array([1e12, 1e10, 3e11])
    eta = 0.13
    np.testing.assert_allclose(
        _losses("over-training", {"E": 1.5, "a": 140.0, "b": 190.0, "eta": eta}, n_params, n_tokens),
        _losses(
            "chinchilla",
            {"E": 1.5, "A": 140.0 * 6**-eta, "B": 190.0 * 6**-eta, "alpha": 2 * eta, "beta": 2 * eta},
            n_params,
            n_tokens,
        ),
        rtol=1e-12,
    )


DATABLATIONS = {
    "E": np.exp(0.6254804), "A": np.exp(6.255414), "B": np.exp(7.3049974), "alpha": 0.3526596, "beta": 0.3526596,
    "R_D": 15.387756, "R_N": 5.309743,
}  # fmt: skip


def test_data_constrained_without_repeats_is_chinchilla() -> None:
    # 100M parameters are fewer than is optimal for 10B tokens; a larger pool than is used changes nothing.
    chinchilla = {k: v for k, v in DATABLATIONS.items() if not k.startswith("R_")}
    expected = _losses("chinchilla", chinchilla, 1e8, 1e10)
    for unique in (1e10, 5e10):
        np.testing.assert_allclose(
            _losses("data-constrained", DATABLATIONS, 1e8, 1e10, unique), expected, rtol=1e-12
        )


def test_data_constrained_as_its_authors_write_it() -> None:
    """The formula with U_N, R_N and R_D spelled out."""
    e, a, b, power = (DATABLATIONS[k] for k in ("E", "A", "B", "alpha"))
    worth_d, worth_n = DATABLATIONS["R_D"], DATABLATIONS["R_N"]
    n_params, n_tokens = np.array([1e7, 1e9, 8.7e9]), np.array([2e10, 1e11, 1.78e11])
    unique = np.array([1e8, 1.2e10, 1.3e10])
    g = (a / b) ** (1 / (2 * power))
    optimal = g**2 * unique
    used_n = np.minimum(n_params, optimal)
    repeats_n, repeats_d = n_params / used_n - 1, n_tokens / unique - 1
    effective_n = used_n + used_n * worth_n * (1 - np.exp(-repeats_n / worth_n))
    effective_d = unique + unique * worth_d * (1 - np.exp(-repeats_d / worth_d))
    expected = e + a / effective_n**power + b / effective_d**power
    np.testing.assert_allclose(
        _losses("data-constrained", DATABLATIONS, n_params, n_tokens, unique), expected, rtol=1e-12
    )


def test_farseer_as_its_authors_write_it() -> None:
    n_params, n_tokens = np.array([2e8, 1e9, 6e9]), np.array([1e9, 1e11, 5e11])
    a1, alpha, b1, a2, beta, b2, a3, gamma, b3 = (
        -0.124,
        0.123,
        0.424,
        88.01,
        -0.1,
        -6.287,
        -0.021,
        0.169,
        0.091,
    )
    expected = np.exp(a3 * n_params**gamma + b3) + np.exp(a2 * n_params**beta + b2) * n_tokens ** -np.exp(
        a1 * n_params**alpha + b1
    )
    values = {
        "E": np.exp(b3), "c": -a3, "gamma": gamma, "B": np.exp(b2), "b": a2, "beta": -beta,
        "k": np.exp(b1), "a": -a1, "alpha": alpha,
    }  # fmt: skip
    np.testing.assert_allclose(_losses("farseer", values, n_params, n_tokens), expected, rtol=1e-10)


def test_m4_solves_its_defining_equation() -> None:
    values = {"E": 1.7, "S": 9.0, "B": 300.0, "beta": 0.3, "alpha": 0.6}
    n_tokens = 10.0 ** np.arange(0, 14)
    loss = _losses("m4", values, 1.0, n_tokens)
    left = (loss - 1.7) / (1.7 + 9.0 - loss) ** 0.6
    np.testing.assert_allclose(left, 300.0 * n_tokens**-0.3, rtol=1e-9)
    assert (np.diff(loss) < 0).all()


def test_broken_power_law_has_its_two_exponents() -> None:
    values = {"E": 1e-9, "A": 20.0, "c0": 0.1, "c1": 0.25, "X": 1e10, "f": 0.2}
    loss = _losses("bnsl-data", values, 1.0, np.array([1e4, 1e5, 1e15, 1e16]))
    slopes = -np.diff(np.log10(loss - 1e-9))[[0, 2]]
    np.testing.assert_allclose(slopes, [0.1, 0.35], rtol=1e-4)
    compute = _losses("bnsl", values, 50.0, np.array([1e8, 1e9]))
    np.testing.assert_allclose(compute, _losses("bnsl-data", values, 1.0, np.array([3e10, 3e11])), rtol=1e-12)


# ---- references ------------------------------------------------------------------------------------------


def test_references_may_contain_each_other_only_one_way() -> None:
    a, b = scalars("a b")

    class Chain(Law):
        name = "chain"
        loss = a * b
        parameters = (
            Parameter(name="a", reference=b * N_ref),
            Parameter(name="b", reference=N_ref**2),
        )

    z = np.log([2.0, 3.0])
    assert Chain().natural(z, n_ref=10.0) == pytest.approx({"b": 300.0, "a": 6000.0})
    np.testing.assert_allclose(Chain().unconstrained({"a": 6000.0, "b": 300.0}, n_ref=10.0), z)

    class Circle(Chain):
        parameters = (Parameter(name="a", reference=b), Parameter(name="b", reference=a))

    with pytest.raises(LawError, match="contain each other"):
        Circle().natural(z)


def test_held_parameters_predict_as_the_whole_law(rng: np.random.Generator) -> None:
    whole = lawkit.laws.get("m4")
    held = {"E": 1.7, "alpha": 0.6}
    part = whole.with_fixed(**held)
    assert [p.name for p in part.parameters] == ["S", "B", "beta"]
    free = {"S": 9.0, "B": 300.0, "beta": 0.3}
    x = Inputs(weights=np.zeros((5, 0)), own=np.array([[-1]]), n_ref=N_REF, d_ref=D_REF, **_scales(rng, 5))
    np.testing.assert_allclose(
        part.function.value(part.unconstrained(free, N_REF, D_REF)[None], x),
        whole.function.value(whole.unconstrained({**free, **held}, N_REF, D_REF)[None], x),
        rtol=1e-12,
    )
    assert part.natural(part.unconstrained(free, 3e8, 1e10), 3e8, 1e10) == pytest.approx({**free, **held})
    np.testing.assert_array_equal(part.unconstrained({**free, **held}), part.unconstrained(free))
    with pytest.raises(LawError, match="is held at"):
        part.unconstrained({**free, **held, next(iter(held)): 0.123})
    assert part.with_fixed(S=9.0).fixed == {**held, "S": 9.0}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("chinchilla", {"gamma": 1.0}, "no scalar parameter 'gamma'"),
        ("chinchilla", {"A": -1.0}, "must be positive, got -1.0"),
        ("chinchilla", {"A": float("nan")}, "must be positive, got nan"),
        ("chinchilla-data", {"E": 1.0, "B": 1.0, "beta": 0.3}, "leave at least one"),
        ("transfer", {"alpha": 0.3}, "fitted with priors"),
    ],
)
def test_parameters_that_cannot_be_held(name: str, values: dict[str, float], message: str) -> None:
    with pytest.raises(LawError, match=message):
        lawkit.laws.get(name).with_fixed(**values)


def test_parameters_of_a_formula_are_held_in_its_text() -> None:
    from lawkit.laws.formula import FormulaLaw

    with pytest.raises(LawError, match="into the formula"):
        FormulaLaw("E + B/D**beta", ()).with_fixed(E=1.0)


# ---- laws of other packages ------------------------------------------------------------------------------

THIRD_PARTY = '''
"""A law of somebody else."""
from lawkit.laws import D, Law, Parameter, scalars

E, B, beta = scalars("E B beta")


class Power(Law):
    """E + B/(1 + D^beta)."""

    name = "third-party-power"
    title = "A third party's law"
    citation = "nobody 2025"
    parameters = (
        Parameter(name="E", unit="nats/token"),
        Parameter(name="B", unit="nats/token"),
        Parameter(name="beta", start=(0.05, 1.0)),
    )
    loss = E + B / (1 + D**beta)


law = Power()
'''


@pytest.fixture
def third_party(tmp_path: Path) -> dict[str, str]:
    """An environment in which a package with an entry point in `lawkit.laws` is installed; written as pip writes it."""
    site = tmp_path / "site"
    info = site / "lawkit_third_party-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "lawkit_third_party.py").write_text(THIRD_PARTY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lawkit-third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lawkit.laws]\nthird-party-power = lawkit_third_party:law\n")
    (info / "RECORD").write_text("lawkit_third_party.py,,\n")
    path = [str(site), *([os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def test_third_party_law_is_listed_and_described(third_party: dict[str, str]) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lawkit.cli", *arguments], env=third_party, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "third-party-power" in run("laws", "--json")
    described = run("laws", "third-party-power", "--json")
    assert "A third party's law" in described
    assert "D**beta" in described


FIT_THIRD_PARTY = """
import numpy as np, lawkit
n_tokens = np.geomspace(1e9, 1e12, 12)
runs = lawkit.Runs(sources=(), domains=("web",), n_params=None, n_tokens=n_tokens, weights=np.zeros((12, 0)),
                   losses=(1.5 + 80 / (1 + n_tokens**0.2))[:, None])
fit = lawkit.fit(runs, law="third-party-power", holdout=None)
found = fit.parameters["web"]
assert abs(found["E"] - 1.5) < 1e-4 and abs(found["beta"] - 0.2) < 1e-4, found
fit.save("fit")
assert lawkit.load_fit("fit").parameters == fit.parameters
"""


def test_third_party_law_fits(third_party: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIT_THIRD_PARTY], env=third_party, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
