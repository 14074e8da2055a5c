"""Studies of simulated runs, small enough to be decided in seconds; several tests read them."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lawkit.study import Store

SOURCES = ("web", "hq")
WORLD = """
[backend]
name = "simulate"
law = "exponential-scale"
sources = ["web", "hq"]
noise = 0.004
{more}

[backend.parameters.wiki]
E = 1.7
A = 300.0
alpha = 0.33
B = 600.0
beta = 0.3
t_E = [0.1, -0.35]
t_A = [0.0, -0.2]
t_B = [-0.1, 0.1]

[backend.parameters.code]
E = 1.1
A = 250.0
alpha = 0.33
B = 500.0
beta = 0.3
t_E = [-0.5, 0.2]
t_A = [0.0, 0.2]
t_B = [0.1, -0.1]
"""
QUESTION = """
[target]
n_params = "7B"
n_tokens = "1T"

[ladder]
sizes = ["50M", "100M", "200M"]
tokens = ["1B", "4B"]

[constraints]
bounds = {hq = {upper = 0.8}}

[loop]
budget = 6e19
rounds = 2
batch = 3
tolerance = 1e-7
start = 14
draws = 20
posterior = "none"
laws = ["exponential-scale"]
"""
SPEC = QUESTION + WORLD

#: Models of a study that is trained, small enough for seconds a run.
TOY = """
[recipe]
seq_len = 32
batch_rows = 8
eval_rows = 16
log_every = 1
checkpoint_every = 5
[limits]
workers = 2
"""


def study(folder: Path, text: str = SPEC, more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(text.replace("{more}", more), encoding="utf-8")
    return folder


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    """What a study has decided, without the times at which it did."""
    with Store(folder) as store:
        rounds = store.rounds()
    return [{k: v for k, v in round_.items() if k not in ("begun_at", "decided_at")} for round_ in rounds]


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "lawkit.cli", "study", "run", str(folder)]


def wait_for(condition: Callable[[], object], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def events(folder: Path) -> int:
    """Runs that are done and rounds that are decided, as the store has them now."""
    if not (folder / "study.sqlite").is_file():
        return 0
    with contextlib.closing(
        sqlite3.connect(f"file:{folder / 'study.sqlite'}?mode=ro", uri=True, timeout=30)
    ) as db:
        try:
            (done,) = db.execute("SELECT count(*) FROM runs WHERE state = 'done'").fetchone()
            (decided,) = db.execute("SELECT count(*) FROM rounds WHERE decision IS NOT NULL").fetchone()
        except sqlite3.OperationalError:  # no tables yet
            return 0
    return done + decided


def killed_at_random(folder: Path, rng: random.Random, times: int, total: int, delay: float) -> None:
    """Run a study and kill it (-9), several times, at random places of the `total` events of its whole course."""
    for place in sorted(rng.sample(range(total), times)):
        process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda place=place, process=process: process.poll() is not None or events(folder) >= place)
        time.sleep(rng.uniform(0, delay))
        assert process.poll() is None, "the study was over before it could be killed"
        process.kill()
        process.wait()
