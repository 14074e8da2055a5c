"""Replay of recorded runs: flops until the mixture chosen by the fit is good at the largest recorded scale.

Each recorded run is a candidate at its own cost. A study fits, chooses a mixture among those recorded at the largest
size, proposes, and stops by its own rule: expected regret, the law's own error included, below half of the tolerance
in two turns on end. Printed for each method: the flops from which on regret is at most .5% of the loss up to where the
study stops (with --whole, up to the whole budget too, which takes several times as long), in units of the cheapest
recorded run; the median and quartiles over seeds; what is given away in the end, and expected then; and ratios of
medians. 'random rationed' is chance under the same start and the same rations of
flops as the criteria have, which tells what thrift alone is worth. 'mspe' is the rival as its authors run it, with a
start of its own and no rule to stop by (so the whole budget is shown too, always); 'mspe rationed' has our start,
rations and stop.

    LAWKIT_DATASETS=... python tests/benchmarks/bench_replay.py TABLE [seeds] [budget] [domain] [--whole]

TABLE is slimpajama7, pile4, regmix or a runs table in lawkit's own format; the budget is in units of the cheapest run.
"""

from __future__ import annotations

import csv
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import lawkit
from lawkit.design import Trace, replay_study
from lawkit.runs import Runs

#: Name printed, method, rationed.
ARMS: tuple[tuple[str, str, bool | None], ...] = (
    ("regret", "regret", None),
    ("variance", "variance", None),
    ("mspe rationed", "mspe", None),
    ("random rationed", "random", True),
    ("random", "random", None),
    ("grid", "grid", None),
    ("mspe", "mspe", False),
)
TOLERANCE = 0.005
STOP = TOLERANCE / 2
#: Studies that know no cost spend this many times the budget before they end: their runs are that much dearer.
UNRATIONED = 4.0


def table(name: str) -> Runs:
    """The runs of a published table, or of a file."""
    if Path(name).is_file():
        return lawkit.read_runs(name)
    root = Path(os.environ["LAWKIT_DATASETS"]) / name
    if name == "regmix":
        return _regmix(root)
    runs = lawkit.import_runs(
        next(root.glob("*.csv")),
        params_column="model_size",
        tokens_column="n_tokens",
        weights="weight_{}",
        losses="{}_loss",
    )
    # Some checkpoints are there twice, a few million tokens apart: one is one run.
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    key = np.column_stack([runs.weights.round(4), np.log(runs.n_params), np.log(runs.n_tokens).round(2)])
    return runs.select(np.sort(np.unique(key, axis=0, return_index=True)[1]))


def _regmix(root: Path) -> Runs:
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    sources: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    for split, size, n_params in (("train", "1m", 1e6), ("test", "1m", 1e6), ("test", "60m", 6e7)):
        columns = []
        for kind in ("mixture", "pile_loss"):
            with (root / f"{split}_{kind}_{size}.csv").open() as file:
                rows = list(csv.DictReader(file))
            names = [k for k in rows[0] if k != "index"]
            columns.append(np.array([[float(r[k]) for k in names] for r in rows]))
            short = tuple(k.split("the_pile_")[1].removesuffix("_val_loss") for k in names)
            sources, domains = (short, domains) if kind == "mixture" else (sources, short)
        h, losses = columns
        parts.append((np.full(len(h), n_params), h / h.sum(1, keepdims=True), losses))
    n_params, weights, losses = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Runs(
        sources=sources, domains=domains, n_params=n_params, n_tokens=np.full(len(n_params), 1e9),
        weights=weights, losses=losses,
    )  # fmt: skip


def main() -> None:
    """Print the figures."""
    warnings.simplefilter("ignore")
    given = [a for a in sys.argv[1:] if a != "--whole"]
    name, seeds, most, domain = (*given, *(None,) * 4)[:4]
    seeds, most = int(seeds or 20), float(most or 150.0)
    assert name is not None
    stop = 0.0 if "--whole" in sys.argv else STOP
    runs = table(name)
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    unit = float((6 * runs.n_params * runs.n_tokens).min())
    target = None if domain is None else {domain: 1.0}
    print(
        f"{name}, {domain or 'all domains alike'}: {len(runs)} runs, cheapest {unit:.3g} flops; {seeds} seeds"
    )
    # The start, and each turn, is by seed; a row a method.
    needed: dict[tuple[str, str], np.ndarray] = {}
    for arm, method, rationed in ARMS:
        begun = time.process_time()
        thrifty = method not in ("random", "grid") if rationed is None else rationed
        published = method == "mspe" and not thrifty
        budget = most * unit * (1.0 if thrifty else UNRATIONED)
        traces = [
            replay_study(
                runs, method=method, rationed=rationed, target=target, budget=budget, seed=s,
                tolerance=0.0 if published else stop,
            )
            for s in range(seeds)
        ]  # fmt: skip
        said = []
        for what, those in views(traces, 0.0 if published else stop).items():
            needed[arm, what] = np.array([t.needed(TOLERANCE) / unit for t in those])
            said.append(f"{what} {_quartiles(needed[arm, what])}")
        ends = [t.stopped(STOP) for t in traces]
        last = {
            name: 100 * np.mean([getattr(t, name)[-1] for t in ends])
            for name in ("regret", "expected", "misfit")
        }
        print(
            f"{arm:16s} {' | '.join(said)} | stops at {np.median([t.flops[-1] / unit for t in ends]):.0f}, gives away "
            f"{last['regret']:.2f}% in the mean where {last['expected']:.2f}% is expected, {last['misfit']:.2f}% of it "
            f"by the law's error | {time.process_time() - begun:.0f} s of CPU",
            flush=True,
        )
    print("regret's median over that of")
    for (arm, what), theirs in needed.items():
        own = needed.get(("regret", what), needed["regret", "with the stop"])
        ratio, less, more = np.median(own) / np.median(theirs), (own < theirs).sum(), (own > theirs).sum()
        print(f"    {arm:16s} {what:13s} {ratio:.2f}; it needs less on {less} and more on {more} seeds")


def views(traces: list[Trace], stop: float) -> dict[str, list[Trace]]:
    """Traces up to where the studies stop, and whole where they went on."""
    ended = {"with the stop": [t.stopped(STOP) for t in traces]}
    return ended if stop else {**ended, "whole": traces}


def _quartiles(needed: np.ndarray) -> str:
    need, quarter = np.sort(needed), len(needed) // 4
    return (
        f"{np.median(need):.0f} ({need[quarter]:.0f} to {need[-1 - quarter]:.0f}), never {np.isinf(need).sum()} "
        f"of {len(need)}"
    )


if __name__ == "__main__":
    main()
