"""Simulation-based calibration of Laplace's approximation and of NUTS, under the laws' own priors.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_calibration.py [--law chinchilla] [--sampler nuts] [--tables 120]

Simulated tables: 6 model sizes x 6 token counts for Chinchilla's law; 8 mixtures of 3 sources x 2 sizes x 3 token
counts for the transfer law. For every quantity (parameters, noise, log loss at two far points) it prints the p-values
of the two tests of uniformity, the mean of the ranks (1/2 expected) and their spread (1 expected, above it where
intervals are too narrow), for all tables and, with Laplace, by whether it warned; and the CPU time a table.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings

import numpy as np

from lawkit import laws
from lawkit.bayes._ranks import Calibration
from lawkit.bayes.calibration import calibrate
from lawkit.bayes.laplace import laplace
from lawkit.bayes.spec import GroupDraws, Spec
from lawkit.runs import Runs


def runs_for(law: str) -> tuple[Runs, Runs]:
    """The template, and the far points."""
    rng = np.random.default_rng(1)
    if law == "chinchilla":
        sources: tuple[str, ...] = ()
        n, d = (v.ravel() for v in np.meshgrid(np.geomspace(5e7, 3e9, 6), np.geomspace(1e9, 1e11, 6)))
        weights, far = np.zeros((36, 0)), np.zeros((2, 0))
    else:
        sources = ("a", "b", "c")
        n, d = np.tile(np.repeat([1e8, 4e8], 3), 8), np.tile([2e9, 6e9, 2e10] * 2, 8)
        weights = np.repeat(rng.dirichlet(np.ones(3), 8), 6, 0)
        far = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    template = Runs(
        sources=sources,
        domains=("a",),
        n_params=n,
        n_tokens=d,
        weights=weights,
        losses=np.full((len(n), 1), 2.5),
    )
    beyond = Runs(
        sources=sources,
        domains=(),
        n_params=np.array([1e9, 7e9]),
        n_tokens=np.array([1e11, 1e12]),
        weights=far,
        losses=np.zeros((2, 0)),
    )
    return template, beyond


def by_nuts(spec: Spec, draws: int, seed: int) -> GroupDraws:
    """Two chains of 500 draws after 800 to adapt."""
    from lawkit.bayes.sample import nuts

    return nuts(spec, draws=draws // 2, tune=800, chains=2, seed=seed, progress=False)[0]


SAMPLERS = {"laplace": (laplace, 4000), "nuts": (by_nuts, 1000)}


def show(title: str, found: Calibration) -> None:
    """The table of one set of ranks."""
    name, p = found.worst()
    print(
        f"\n{title}: {len(found.ranks)} tables; least uniform {name}, p {p:.2g} after Bonferroni's correction"
    )
    print(f"  {'':34}{'chi-square':>11}{'ecdf':>9}{'mean':>7}{'spread':>8}")
    for u in found.uniformity():
        print(f"  {u.name:34}{u.chi_square:11.4f}{u.ecdf:9.4f}{u.mean:7.2f}{u.spread:8.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--law", choices=["chinchilla", "transfer"], action="append")
    parser.add_argument("--sampler", choices=list(SAMPLERS), action="append")
    parser.add_argument("--tables", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    for law in asked.law or ["chinchilla", "transfer"]:
        template, far = runs_for(law)
        for name in asked.sampler or list(SAMPLERS):
            sampler, sampled = SAMPLERS[name]
            cpu = sum(os.times()[:4])
            start = time.perf_counter()

            def progress(table: int, start: float = start) -> None:
                if table % 10 == 9:
                    print(
                        f"{table + 1} tables, {time.perf_counter() - start:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )

            found = calibrate(
                laws.get(law), template, sampler, tables=asked.tables, far=far, sampled=sampled, seed=asked.seed,
                progress=progress,
            )  # fmt: skip
            cpu = (sum(os.times()[:4]) - cpu) / asked.tables
            show(f"{law}, {name} ({cpu:.2f} s of CPU a table, {len(found.failures)} failed)", found)
            if name == "laplace":
                good = np.array([d["pareto_k"] <= 0.7 and d["weight_power"] == 1 for d in found.diagnostics])
                print(f"{good.mean():.0%} of the tables brought no warning")
                for which, chosen in (("without a warning", good), ("with one", ~good)):
                    if chosen.sum() >= 20:
                        show(f"{law}, {name}, {which}", found.where(chosen))
            else:
                rhat = np.array([d["max_rhat"] for d in found.diagnostics])
                print(
                    f"R-hat above 1.01 in {(rhat > 1.01).mean():.0%} of the tables, {np.median(rhat):.3f} in the middle"
                )


if __name__ == "__main__":
    main()
