"""Chinchilla's law on its published points: lawkit's fit beside the grid of 4,500 BFGS starts of the published scripts.

    LAWKIT_DATASETS=... OMP_NUM_THREADS=1 python tests/benchmarks/bench_chinchilla.py [--draws 200] [--differences]

Both ways run in this one process and minimise the same objective: the sum of Huber's function (threshold 1e-3) of
the log residuals. The published way is scipy's BFGS from every point of a 5 x 5 x 5 x 6 x 6 grid; it is given the exact
gradient by hand, which is cheaper than the automatic one of the scripts. With --differences it also runs without a
gradient, as copies of the scripts do. Times are CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import sys
import time
from pathlib import Path

import numpy as np

DELTA = 1e-3
#: Minimum of the objective over the 240 points (the five highest losses left out).
MINIMUM = 1.01827402e-3


def points(folder: Path, drop: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, D and loss of the published points, the `drop` highest losses left out."""
    with (folder / "chinchilla_epoch" / "svg_extracted_data.csv").open() as file:
        rows = [
            (float(r["Model Size"]), float(r["Training FLOP"]), float(r["loss"]))
            for r in csv.DictReader(file)
        ]
    n, flops, loss = np.array(sorted(rows, key=lambda row: row[2])[: len(rows) - drop]).T
    return n, flops / (6 * n), loss


def objective(p: np.ndarray, n: np.ndarray, d: np.ndarray, y: np.ndarray) -> float:
    """The published objective in p = (log A, log B, log E, alpha, beta); n, d, y are logarithms."""
    a, b, e, alpha, beta = p
    r = y - np.log(np.exp(a - alpha * n) + np.exp(b - beta * d) + np.exp(e))
    size = np.abs(r)
    return float(np.where(size <= DELTA, 0.5 * r * r, DELTA * (size - 0.5 * DELTA)).sum())


def gradient(p: np.ndarray, n: np.ndarray, d: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Its exact gradient (5,)."""
    a, b, e, alpha, beta = p
    first, second, third = np.exp(a - alpha * n), np.exp(b - beta * d), np.exp(e)
    total = first + second + third
    psi = -np.clip(y - np.log(total), -DELTA, DELTA) / total
    parts = (psi * first, psi * second, psi * third, -psi * first * n, -psi * second * d)
    return np.array([part.sum() for part in parts])


def grid() -> list[tuple[float, ...]]:
    """The 4,500 starts of the published scripts."""
    exponents = np.arange(0, 2.5, 0.5)
    logs = np.arange(0, 30, 5.0)
    order = itertools.product(exponents, exponents, np.arange(-1, 1.5, 0.5), logs, logs)
    return [(a, b, e, alpha, beta) for alpha, beta, e, a, b in order]


def published(n: np.ndarray, d: np.ndarray, y: np.ndarray, jac: object) -> tuple[float, np.ndarray]:
    """CPU seconds of the 4,500 searches, and the objective each ended at."""
    from scipy.optimize import minimize

    start = time.process_time()
    with np.errstate(all="ignore"):
        ends = [minimize(objective, p, args=(n, d, y), jac=jac, method="BFGS").fun for p in grid()]
    return time.process_time() - start, np.array(ends)


def main() -> None:
    """Run both ways and print times, ratio, and how many starts arrived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--draws", type=int, default=200, help="bootstrap draws from whose starts lawkit searches"
    )
    parser.add_argument("--differences", action="store_true", help="also run BFGS with finite differences")
    parser.add_argument("--skip-published", action="store_true", help="lawkit only")
    options = parser.parse_args()
    folder = os.environ.get("LAWKIT_DATASETS")
    if not folder:
        sys.exit("set LAWKIT_DATASETS to the folder of the published tables")
    n, d, loss = points(Path(folder))

    import lawkit
    from lawkit.runs import Runs

    fit = lawkit.fit  # imports what it needs
    runs = Runs(
        sources=(),
        domains=("loss",),
        n_params=n,
        n_tokens=d,
        weights=np.zeros((len(n), 0)),
        losses=loss[:, None],
    )

    def timed() -> float:
        start = time.process_time()
        fit(runs, law="chinchilla", holdout="none")
        return time.process_time() - start

    first = timed()
    seconds = np.array([timed() for _ in range(50)])
    fitted = fit(runs, law="chinchilla", holdout="none")
    ours = float(np.median(seconds))
    natural = fitted.parameters["loss"]
    print(
        f"{len(n)} points; lawkit's objective {fitted.estimate.cost[0]:.9e} (published minimum {MINIMUM:.8e})"
    )
    print("  " + ", ".join(f"{k} {v:.6g}" for k, v in natural.items()))
    print(
        f"lawkit's fit: {1e3 * first:.0f} ms the first time (the law is compiled), then {1e3 * ours:.1f} ms"
    )
    print(
        f"  ({1e3 * seconds.min():.1f} to {1e3 * seconds.max():.1f} over {len(seconds)}); "
        f"{fitted.estimate.starts_at_optimum[0]:.0%} of its starts arrived"
    )
    draws(runs, options.draws)
    if options.skip_published:
        return
    ways = {"BFGS, exact gradient": gradient}
    if options.differences:
        ways["BFGS, finite differences"] = None  # type: ignore[assignment]
    for name, jac in ways.items():
        total, ends = published(np.log(n), np.log(d), np.log(loss), jac)
        arrived = (ends <= MINIMUM * (1 + 1e-6)).mean()
        near = (ends <= MINIMUM * (1 + 1e-3)).mean()
        print(f"{name} from 4,500 starts: {total:.1f} s, best {np.nanmin(ends):.9e}")
        print(
            f"  {arrived:.1%} of its starts arrived (within 1e-6; {near:.1%} within 1e-3); "
            f"lawkit is {total / ours:,.0f} times faster"
        )


def draws(runs, count: int) -> None:
    """Search the published problem from the starts that lawkit draws on `count` bootstrap samples of it."""
    from dataclasses import replace

    import lawkit
    from lawkit import laws
    from lawkit.fitting.prepare import prepare
    from lawkit.fitting.solver import minimise
    from lawkit.fitting.starts import starting_points

    law = laws.get("chinchilla")
    full = prepare(runs, law, law.objective)
    rng = np.random.default_rng(0)
    reached = beaten = 0
    for draw in range(count):
        sample = runs.select(rng.integers(len(runs), size=len(runs)))
        sample = replace(sample, rows=np.arange(1, len(sample) + 1))
        own = prepare(sample, law, law.objective)
        starts = starting_points(own.problem, law, own.context, law.starts, draw)[0]
        # Starts are in units of the sample's own mean scale: the same natural parameters on all points.
        moved = np.array(
            [law.unconstrained(law.natural(z, own.n_ref, own.d_ref), full.n_ref, full.d_ref) for z in starts]
        )
        _, cost = minimise(full.problem, moved, np.zeros(len(moved), int))
        reached += abs(cost.min() / MINIMUM - 1) < 1e-6
        wide = lawkit.fit(sample, law="chinchilla", holdout="none", starts=60, seed=draw + 1).estimate.cost[0]
        plain = lawkit.fit(sample, law="chinchilla", holdout="none", seed=draw).estimate.cost[0]
        beaten += wide < plain * (1 - 1e-6)
    print(f"minimum reached from the starts of {reached} of {count} bootstrap draws")
    print(f"of {count} fits to such draws, {beaten} were beaten by a search from 60 starts")


if __name__ == "__main__":
    main()
