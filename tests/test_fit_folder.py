"""Fit folders: the same numbers come back, and nothing that happens to the folder is a traceback or a lost fit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lawkit
from lawkit import laws
from lawkit.errors import FitError
from lawkit.fitting import Fit, locking, storage
from lawkit.io._write import write_bytes
from lawkit.runs import Runs

SOURCES = ("web", "code", "wiki")


def table(n: int = 42, seed: int = 0) -> Runs:
    """Runs with every column that a law may need; each domain is a source."""
    rng = np.random.default_rng(seed)
    n_params = rng.choice([5e7, 1.2e8, 3e8, 8e8], n)
    n_tokens = rng.choice([1e9, 2.5e9, 6e9, 1.5e10], n)
    weights = rng.dirichlet(np.full(3, 2.0), n)
    own = 0.3 * (weights + 0.02) ** -0.3
    losses = 1.2 + own + (300 / n_params**0.33)[:, None] + (900 / n_tokens**0.35)[:, None]
    losses *= np.exp(rng.normal(0, 0.003, losses.shape))
    losses[3, 1] = np.nan
    return Runs(
        sources=SOURCES,
        domains=SOURCES,
        n_params=n_params,
        n_tokens=n_tokens,
        weights=weights,
        losses=losses,
        unique=np.full((n, 3), 2e9),
        run_id=np.array([f"run-{i}" for i in range(n)], object),
        path="/somewhere/runs.csv",
    )


def points(n: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    return {
        "n_params": np.geomspace(6e7, 3e9, n),
        "n_tokens": np.geomspace(2e9, 8e10, n),
        "weights": rng.dirichlet(np.ones(3), n),
        "unique": np.full((n, 3), 3e9),
    }


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return lawkit.fit(table(), law="additive", starts=2)


@pytest.mark.parametrize("name", laws.names())
def test_every_law_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    before = lawkit.fit(table(), law=name, holdout="none", starts=2)
    before.save(tmp_path / "fit")
    after = lawkit.load_fit(tmp_path / "fit")
    first, second = (f.predict(**points(), interval=0.8) for f in (before, after))
    for part in ("mean", "lower", "upper"):
        assert np.array_equal(getattr(first, part), getattr(second, part))
    assert after.to_dict() == before.to_dict()
    assert after.law is before.law


def test_formula_comes_back(tmp_path: Path) -> None:
    formula = "E + A/N**alpha + B/(D*(w_web + k*w_code + k*w_wiki))**beta"
    before = lawkit.fit(table(), formula=formula, starts=3)
    before.save(tmp_path / "fit")
    after = lawkit.load_fit(tmp_path / "fit")
    assert np.array_equal(after.predict(**points()).mean, before.predict(**points()).mean)


def test_runs_and_holdout_come_back(fitted: Fit, tmp_path: Path) -> None:
    fitted.save(tmp_path / "deep" / "fit")
    after = lawkit.load_fit(tmp_path / "deep" / "fit")
    assert after.holdout == fitted.holdout
    assert after.holdout is not None
    for name in ("n_params", "weights", "losses", "unique", "run_id", "rows"):
        np.testing.assert_array_equal(getattr(after.runs, name), getattr(fitted.runs, name))
    assert after.runs.path == "runs.csv"  # no folder of this machine in a file that travels


def test_fit_json_is_strict_json(fitted: Fit, tmp_path: Path) -> None:
    fitted.save(tmp_path / "fit")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    head = json.loads((tmp_path / "fit" / "fit.json").read_text(), parse_constant=refuse)
    assert {"law", "n_runs", "train", "holdout", "domains", "warnings", "lawkit"} <= set(head)


def test_saving_again_replaces_and_sweeps(fitted: Fit, tmp_path: Path) -> None:
    other = lawkit.fit(table(seed=1), law="additive", starts=2, holdout="none")
    other.save(tmp_path / "fit")
    (tmp_path / "fit" / "arrays-0000.npz").write_bytes(b"left over")
    (tmp_path / "fit" / "notes.txt").write_text("mine")
    fitted.save(tmp_path / "fit")
    assert np.array_equal(lawkit.load_fit(tmp_path / "fit").z, fitted.z)
    names = sorted(p.name for p in (tmp_path / "fit").iterdir())
    assert len(names) == 3
    assert names[0].startswith("arrays-")
    assert names[1:] == ["fit.json", "notes.txt"]


def damage_missing_head(folder: Path) -> None:
    (folder / "fit.json").unlink()


def damage_missing_arrays(folder: Path) -> None:
    next(folder.glob("arrays-*.npz")).unlink()


def damage_half_arrays(folder: Path) -> None:
    file = next(folder.glob("arrays-*.npz"))
    file.write_bytes(file.read_bytes()[:500])


def damage_half_head(folder: Path) -> None:
    file = folder / "fit.json"
    file.write_text(file.read_text()[:200])


def damage_not_an_object(folder: Path) -> None:
    (folder / "fit.json").write_text("[1, 2]")


def damage_binary_head(folder: Path) -> None:
    (folder / "fit.json").write_bytes(b"\xff\xfe\x00")


def damage_key(folder: Path) -> None:
    _edit(folder, lambda head: head.pop("objective"))


def damage_law(folder: Path) -> None:
    _edit(folder, lambda head: head.update(law="aditive"))


def damage_escaping_arrays(folder: Path) -> None:
    _edit(folder, lambda head: head.update(arrays="../../arrays-0000.npz"))


def damage_pickle(folder: Path) -> None:
    import hashlib

    file = next(folder.glob("arrays-*.npz"))
    np.savez(file, runs_weights=np.array([object()], object))
    name = f"arrays-{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}.npz"
    file.rename(folder / name)
    _edit(folder, lambda head: head.update(arrays=name))


def _edit(folder: Path, change) -> None:
    head = json.loads((folder / "fit.json").read_text())
    change(head)
    (folder / "fit.json").write_text(json.dumps(head))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_missing_head, "no fit.json"),
        (damage_missing_arrays, "incomplete"),
        (damage_half_arrays, "damaged"),
        (damage_half_head, "damaged"),
        (damage_not_an_object, "format None"),
        (damage_binary_head, "damaged"),
        (damage_key, "damaged"),
        (damage_law, "additive"),
        (damage_escaping_arrays, "incomplete"),
        (damage_pickle, "damaged"),
    ],
)
def test_damaged_folders_are_one_message(damage, said: str, fitted: Fit, tmp_path: Path) -> None:
    fitted.save(tmp_path / "fit")
    damage(tmp_path / "fit")
    with pytest.raises(lawkit.LawkitError, match=said) as caught:
        lawkit.load_fit(tmp_path / "fit")
    assert "\n" not in str(caught.value)
    fitted.save(tmp_path / "fit")  # and a new fit takes its place
    assert np.array_equal(lawkit.load_fit(tmp_path / "fit").z, fitted.z)


def test_other_format_and_other_law_text_are_refused(fitted: Fit, tmp_path: Path) -> None:
    fitted.save(tmp_path / "fit")
    _edit(tmp_path / "fit", lambda head: head.update(expression="L = E"))
    with pytest.raises(FitError, match="it now reads"):
        lawkit.load_fit(tmp_path / "fit")
    _edit(tmp_path / "fit", lambda head: head.update(format=storage.FORMAT + 1))
    with pytest.raises(FitError, match=f"format {storage.FORMAT + 1}.*reads format {storage.FORMAT}"):
        lawkit.load_fit(tmp_path / "fit")


def test_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FitError, match="does not exist; make one with `lawkit fit"):
        lawkit.load_fit(tmp_path / "nowhere")


def test_foreign_folders_files_and_links_are_left_alone(fitted: Fit, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(FitError, match=r"thesis\.tex"):
        fitted.save(home)
    assert [p.name for p in home.iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("text")
    with pytest.raises(FitError, match="not a folder"):
        fitted.save(tmp_path / "file")
    (tmp_path / "link").symlink_to(home)
    with pytest.raises(FitError, match="not a folder"):
        fitted.save(tmp_path / "link")
    assert (tmp_path / "file").read_text() == "text"


def test_folder_that_cannot_be_made(fitted: Fit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(FitError, match="cannot be written"):
        fitted.save(tmp_path / "file" / "fit")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(fitted: Fit, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(FitError, match="cannot be written"):
        fitted.save(tmp_path / "closed" / "fit")


def test_full_disk_leaves_the_old_fit(fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = lawkit.fit(table(seed=1), law="additive", starts=2, holdout="none")
    other.save(tmp_path / "fit")
    real = os.fsync

    def full(handle: int) -> None:
        real(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FitError, match="No space left"):
        fitted.save(tmp_path / "fit")
    with pytest.raises(FitError, match="No space left"):
        fitted.save(tmp_path / "new")
    monkeypatch.undo()
    assert np.array_equal(lawkit.load_fit(tmp_path / "fit").z, other.z)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit"]


def test_unregistered_law_is_not_saved(tmp_path: Path) -> None:
    class Mine(type(laws.get("linear"))):  # type: ignore[misc]
        name = "mine"

    mine = lawkit.fit(table(), law=Mine(), holdout="none", starts=2)
    with pytest.raises(FitError, match="entry-point"):
        mine.save(tmp_path / "fit")
    assert not (tmp_path / "fit").exists()


def test_edited_parameters_are_refused(fitted: Fit, tmp_path: Path) -> None:
    fitted.save(tmp_path / "fit")
    name = next(iter(fitted.parameters["code"]))

    def edit(head: dict[str, Any]) -> None:
        value = np.asarray(head["domains"]["code"]["parameters"][name])
        head["domains"]["code"]["parameters"][name] = (value * (1 + 1e-8)).tolist()

    _edit(tmp_path / "fit", edit)
    with pytest.raises(FitError, match=f"contradicts itself: {name} of code"):
        lawkit.load_fit(tmp_path / "fit")


def test_an_interrupt_leaves_no_part_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "table.csv").write_text("old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(b"new", tmp_path / "table.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "old"


def test_a_folder_that_another_process_writes_is_refused(
    fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted.save(tmp_path / "fit")
    (tmp_path / "fit" / ".arrays-0000.npz.abc.part").write_bytes(b"being written")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "fit" / ".fit.lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    monkeypatch.setattr(locking, "PATIENCE", 0.1)
    with pytest.raises(FitError, match=rf"being written by another process \({holder.pid} on "):
        fitted.save(tmp_path / "fit")
    assert (tmp_path / "fit" / ".arrays-0000.npz.abc.part").exists()
    holder.send_signal(signal.SIGKILL)  # what a dead process held is free
    holder.communicate()
    fitted.save(tmp_path / "fit")
    assert sorted(p.suffix for p in (tmp_path / "fit").iterdir()) == [".json", ".npz"]


HOLDER = """
import sys, pathlib
from lawkit.fitting.locking import exclusive
with exclusive(pathlib.Path(sys.argv[1]), "the folder"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_many_saves_into_one_folder_leave_one_whole_fit(fitted: Fit, tmp_path: Path) -> None:
    other = lawkit.fit(table(seed=1), law="additive", starts=2, holdout="none")
    failed: list[BaseException] = []

    def save(fit: Fit) -> None:
        try:
            for _ in range(15):
                fit.save(tmp_path / "fit")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=save, args=(f,)) for f in (fitted, other, fitted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    z = lawkit.load_fit(tmp_path / "fit").z
    assert any(np.array_equal(z, f.z) for f in (fitted, other))
    assert sorted(p.suffix for p in (tmp_path / "fit").iterdir()) == [".json", ".npz"]
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]


KILLED = """
import sys, lawkit
fits = [lawkit.load_fit(p) for p in sys.argv[1:3]]
print("ready", flush=True)
while True:
    for fit in fits:
        fit.save(sys.argv[3])
"""


@pytest.mark.slow
def test_killed_while_saving(fitted: Fit, tmp_path: Path) -> None:
    """Kill -9 at random instants of endless saves: the folder is one of the two fits, whole."""
    other = lawkit.fit(table(seed=1), law="additive", starts=2, holdout="none")
    fitted.save(tmp_path / "a")
    other.save(tmp_path / "b")
    target = tmp_path / "target"
    rng = random.Random(0)
    seen = set()
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, *(str(tmp_path / n) for n in ("a", "b", "target"))],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if target.exists():
            z = lawkit.load_fit(target).z
            which = [np.array_equal(z, f.z) for f in (fitted, other)]
            assert sum(which) == 1
            seen.add(which.index(True))
    fitted.save(target)  # what the killed ones left behind is in nobody's way
    assert sorted(p.suffix for p in target.iterdir()) == [".json", ".npz"]
    shutil.rmtree(target)
