"""Backends answer with the run that was asked for, and say so when they cannot."""

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lawkit import _plugins, backends, laws
from lawkit.backends import Backend, Replay, RunSpec, Simulate
from lawkit.errors import LawkitError
from lawkit.runs import Runs

SOURCES = ("web", "hq")
TRUTH = {
    "wiki": {"E": 1.7, "A": 400.0, "B": 410.0, "alpha": 0.34, "beta": 0.28},
    "code": {"E": 1.1, "A": 300.0, "B": 510.0, "alpha": 0.31, "beta": 0.27},
}


def chinchilla_world(**options) -> Simulate:
    return Simulate(laws.get("chinchilla"), TRUTH, sources=SOURCES, **options)


def spec(hq: float = 0.25, n_params: float = 1e8, seed: int = 0) -> RunSpec:
    return RunSpec(n_params=n_params, n_tokens=2e9, weights={"web": 1 - hq, "hq": hq}, seed=seed)


def test_each_file_is_one_backend_in_the_list():
    folder = Path(backends.__file__).parent
    files = {p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")}
    files |= {p.parent.name for p in folder.glob("*/__init__.py")}
    assert files == {module for _, module, _ in backends.BUILTIN}


@pytest.mark.parametrize("name", ["replay", "simulate"])  # test_torchtitan.py has the one that trains
def test_builtin_backends_keep_the_protocol(name):
    world = chinchilla_world()
    made = {"replay": lambda: Replay(world.run([spec()])), "simulate": lambda: world}[name]()
    assert isinstance(made, backends.get(name))
    assert isinstance(made, Backend)
    assert len(made.run([spec(), spec()])) == 2


def test_unknown_backend_is_named():
    with pytest.raises(LawkitError, match="no backend 'slurm'; there are replay, simulate, torchtitan"):
        backends.get("slurm")


def test_a_third_partys_backend_is_found(monkeypatch):
    points = [
        EntryPoint(name=name, value=value, group="lawkit.backends")
        for name, value in (
            ("mine", "asyncio:Runner"),
            ("odd", "collections:OrderedDict"),
            ("gone", "no_such:Thing"),
        )
    ]
    monkeypatch.setattr(_plugins, "entry_points", lambda group: points if group == "lawkit.backends" else [])
    assert backends.names() == ["replay", "simulate", "torchtitan", "gone", "mine", "odd"]
    assert backends.get("mine").__name__ == "Runner"
    for name, said in (("odd", "no class with a method run"), ("gone", "cannot be loaded")):
        with pytest.raises(LawkitError, match=said):
            backends.get(name)


def test_simulate_is_the_law():
    runs = chinchilla_world().run([spec(), spec(n_params=1e9)])
    for column, p in enumerate(TRUTH.values()):
        expected = p["E"] + p["A"] / np.array([1e8, 1e9]) ** p["alpha"] + p["B"] / 2e9 ** p["beta"]
        np.testing.assert_allclose(runs.losses[:, column], expected, rtol=1e-12)
    assert runs.domains == ("wiki", "code")
    assert runs.flops is not None
    assert runs.flops.tolist() == [1.2e18, 1.2e19]


@given(order=st.permutations(range(6)), seed=st.integers(0, 3))
def test_noise_belongs_to_the_run_not_to_its_place(order, seed):
    world = chinchilla_world(noise=0.01, seed=seed)
    specs = [spec(hq=0.1 * i, seed=i % 2) for i in range(6)]
    alone = np.concatenate([world.run([s]).losses for s in specs])
    np.testing.assert_array_equal(world.run([specs[i] for i in order]).losses, alone[list(order)])


def test_noise_has_the_size_asked_for():
    world = chinchilla_world(noise=0.02, seed=1)
    specs = [spec(seed=s) for s in range(400)]
    shocks = np.log(world.run(specs).losses) - np.log(chinchilla_world().run(specs).losses)
    assert shocks.mean() == pytest.approx(0, abs=0.004)
    assert shocks.std() == pytest.approx(0.02, rel=0.1)
    assert abs(np.corrcoef(shocks.T)[0, 1]) < 0.2


def test_simulate_refuses_what_it_cannot_do():
    with pytest.raises(LawkitError, match="source 'books' is not simulated"):
        chinchilla_world().run([RunSpec(n_params=1e8, n_tokens=1e9, weights={"books": 1.0})])
    with pytest.raises(LawkitError, match="noise is a standard deviation"):
        chinchilla_world(noise=-1.0)


def recorded() -> Runs:
    return chinchilla_world(noise=0.01).run(
        [spec(hq, n, s) for hq in (0, 0.25, 1) for n in (1e8, 1e9) for s in (0, 1)]
    )


def test_replay_finds_each_recorded_run():
    table = recorded()
    asked = [spec(0.25, 1e9, 1), spec(0, 1e8, 0), spec(0.25, 1e9, 1)]
    found = Replay(table).run(asked)
    np.testing.assert_array_equal(found.losses, chinchilla_world(noise=0.01).run(asked).losses)
    assert found.rows.tolist() == [8, 1, 8]


def test_replay_takes_weights_written_with_four_digits():
    third = chinchilla_world().run([spec(1 / 3)])
    assert Replay(third).run([spec(0.3333)]).rows.tolist() == [1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (spec(0.5), r"no recorded run has .* mixture web 0.5, hq 0.5; the nearest is row 5 of"),
        (spec(0.25, 3e8), "no recorded run has n_params 3e[+]08"),
        (spec(0.25, 1e8, seed=7), "recorded with seed 0, 1, not 7"),
        (RunSpec(n_params=1e8, n_tokens=2e9, weights={"books": 1.0}), "source 'books' .* it has web, hq"),
    ],
)
def test_replay_says_what_was_never_recorded(asked, message):
    with pytest.raises(LawkitError, match=message):
        Replay(recorded()).run([asked])


def test_replay_of_no_runs():
    assert len(Replay(recorded()).run([])) == 0
    with pytest.raises(LawkitError, match="the table is empty"):
        Replay(recorded().select([])).run([spec()])
