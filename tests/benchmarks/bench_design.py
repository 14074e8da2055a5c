"""Replay of recorded runs: flops until the mixture chosen by the fit is good at the largest recorded scale.

Each recorded run of slimpajama7 is a candidate with its true cost. A study starts from the same few cheap runs,
then turns the circle: fit the transfer law on what has been "trained", choose the mixture among the 60 recorded
ones by the fit's prediction at the larger size, propose the next runs. Regret is the recorded mean loss of the
chosen mixture above that of the best one; a study is done when it stays under .5% of the loss. Also prints how
long proposals take.

    LAWKIT_DATASETS=... python tests/benchmarks/bench_design.py [seeds]
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import lawkit
from lawkit.design import candidates as generated
from lawkit.runs import Runs

METHODS = ("regret", "variance", "mspe", "d-optimal", "random")
START, BATCH, ROUNDS = 3, 2, 8
#: Regret as a fraction of the loss: half a percent is had from the start, and finer ones tell the methods apart.
TOLERANCES = (0.005, 0.002, 0.0015)


def table() -> Runs:
    """One row a run and size: the checkpoints at 6, 10 and 20 billion tokens, rows without a copy."""
    runs = lawkit.import_runs(
        Path(os.environ["LAWKIT_DATASETS"]) / "slimpajama7" / "runs_122M_310M.csv",
        params_column="model_size",
        tokens_column="n_tokens",
        weights="weight_{}",
        losses="{}_loss",
    )
    assert runs.n_tokens is not None
    near = np.abs(np.log(runs.n_tokens[:, None] / np.array([6e9, 1e10, 2e10]))).min(1) < 0.02
    return runs.select(near & np.isfinite(runs.losses).all(1))


def replay(runs: Runs, method: str, seed: int) -> tuple[list[float], list[float]]:
    """Flops spent and regret (a fraction of the loss) by round."""
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    rng = np.random.default_rng(seed)
    cost = 6 * runs.n_params * runs.n_tokens
    goal = (runs.n_params.max(), runs.n_tokens.max())
    final = np.flatnonzero((runs.n_params == goal[0]) & (runs.n_tokens > 0.98 * goal[1]))
    truth = runs.losses[final].mean(1)
    cheap = np.flatnonzero((runs.n_params < goal[0]) & (runs.n_tokens < 7e9))
    have = rng.choice(cheap, START, replace=False).tolist()
    spent, regrets = [], []
    for i in range(ROUNDS):
        fit = lawkit.fit(runs.select(have), law="transfer", holdout="none", starts=1)
        predicted = fit.losses(*goal, runs.weights[final]).mean(1)
        spent.append(float(cost[have].sum()))
        regrets.append(float(truth[predicted.argmin()] / truth.min() - 1))
        left = np.setdiff1d(np.flatnonzero(runs.n_params < goal[0]), have)
        if len(left) < BATCH:
            break
        budget = BATCH * float(np.median(cost[left]))
        found = lawkit.propose_runs(
            fit, n_params=goal[0], n_tokens=goal[1], budget=budget, n=2 * BATCH, candidates=runs.select(left),
            method=method, seed=100 * seed + i,
        )  # fmt: skip
        by_row = {int(r): k for k, r in enumerate(runs.rows)}
        have += [by_row[r.row] for r in found.runs if r.row is not None]
    return spent, regrets


def needed(spent: list[float], regrets: list[float], tolerance: float) -> float:
    """Flops after which regret stays under the tolerance."""
    bad = [i for i, r in enumerate(regrets) if r > tolerance]
    first = bad[-1] + 1 if bad else 0
    return spent[first] if first < len(spent) else np.inf


def speed(runs: Runs) -> None:
    """Time to propose 16 runs from about 20,000 and from 100,000 generated candidates."""
    assert runs.n_params is not None
    fit = lawkit.fit(runs.select(runs.n_params < 2e8), law="transfer", holdout="none")
    lawkit.propose_runs(fit, n_params=7e9, n_tokens=1e12, budget=1e20, n=1)  # compiles
    for most in (20_000, 100_000):
        generated.MOST = most
        start, wall = time.process_time(), time.perf_counter()
        found = lawkit.propose_runs(fit, n_params=7e9, n_tokens=1e12, budget=1e20, n=16)
        print(
            f"16 runs from {found.n_candidates} candidates: {time.process_time() - start:.1f} s of CPU, "
            f"{time.perf_counter() - wall:.1f} s; regret {found.expected_regret_now:.2e} -> "
            f"{found.runs[-1].regret_after:.2e} nats, efficiency at least {found.efficiency:.3f}"
        )
    generated.MOST = 20_000


def main() -> None:
    """Print the figures."""
    warnings.simplefilter("ignore")
    runs = table()
    speed(runs)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    medians = {}
    for method in METHODS:
        results = [replay(runs, method, seed) for seed in range(seeds)]
        rounds = min(len(r[1]) for r in results)
        mean = np.mean([r[1][:rounds] for r in results], 0)
        print(f"{method}: mean regret by round", " ".join(f"{100 * v:.3f}%" for v in mean))
        for tolerance in TOLERANCES:
            need = [needed(*r, tolerance) for r in results]
            medians[method, tolerance] = float(np.median(need))
            print(
                f"  flops until it stays under {tolerance:.2%}:",
                ", ".join(f"{v:.3g}" for v in need),
                flush=True,
            )
    for tolerance in TOLERANCES:
        base = medians["random", tolerance]
        ratios = (f"{m} {medians[m, tolerance]:.3g} (x{medians[m, tolerance] / base:.2f})" for m in METHODS)
        print(f"median flops under {tolerance:.2%}, and the ratio to random:", ", ".join(ratios))


if __name__ == "__main__":
    main()
