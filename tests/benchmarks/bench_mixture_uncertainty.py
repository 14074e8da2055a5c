"""Coverage of the intervals of the optimal weights over worlds simulated from a fit, and what they cost.

    LAWKIT_DATASETS=... OMP_NUM_THREADS=1 python tests/benchmarks/bench_mixture_uncertainty.py
        [--table slimpajama7|regmix] [--law NAME] [--posterior none|laplace|nuts] [--bootstrap N]
        [--worlds 100] [--draws 200] [--errors clustered|independent|wild] [--reverse]

A world is the table with other losses: those of the fitted law at the table's runs, times exp(noise). The noise has
the spread of `Fit.noise_at`. Where it is 'clustered', checkpoints of a run have the share of it in common that
`shared_error` finds in the residuals; 'wild' takes the residuals themselves, with a random sign for each run, so that
checkpoints and domains err together, and some mixtures more than others, as in the table. Each world is fitted again by
the same law, from the parameters of the first fit, and its best mixture is looked for in the intervals that the first
fit reported. --reverse looks instead for the best mixture that the world was made with in the intervals that the
world's own fit reports.

Prints the share of worlds in which the intervals of all sources cover at once, and the mean over sources of that of the
intervals for one source at a time. By source: bias, the mean of the refits' optima less the first, and ratio, their
standard deviation, both in standard deviations of the draws' optima; and the bias of the draws' optima.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench_laws_slimpajama import read

import lawkit
from lawkit.fitting import Fit
from lawkit.fitting.clusters import shared_error, training_runs
from lawkit.fitting.estimate import estimate
from lawkit.mixture import Uncertainty
from lawkit.runs import Runs

PLANS = {"slimpajama7": (7e9, 1e12), "regmix": (60e6, 1e9)}


def table(name: str, folder: Path) -> Runs:
    """The runs of a public table."""
    if name == "slimpajama7":
        return read(folder, openhermes=True)
    files = [folder / name / f"train_{part}_1m.csv" for part in ("mixture", "pile_loss")]
    return lawkit.import_runs(files, format="regmix")


def residuals(fit: Fit) -> np.ndarray:
    """(n, E) log residuals in units of their noise; NaN where a loss is missing."""
    predicted = fit.losses(fit.runs.n_params, fit.runs.n_tokens, fit.runs.weights, fit.runs.unique)
    return np.log(fit.observed / predicted) / spread(fit)


def spread(fit: Fit) -> np.ndarray:
    """(n, E) noise of the table's rows."""
    tokens = np.ones(len(fit.runs)) if fit.runs.n_tokens is None else fit.runs.n_tokens
    return fit.noise_at(tokens)


def shares(fit: Fit) -> np.ndarray:
    """(E,) share of the noise that the checkpoints of one run have in common."""
    labels = training_runs(fit.runs)
    return np.array([shared_error(r, labels) for r in residuals(fit).T])


def noises(fit: Fit, errors: str, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """(n, E) standard noise of one world after the other."""
    labels = training_runs(fit.runs)
    share = shares(fit) if errors == "clustered" else np.zeros(len(fit.domains))
    r = residuals(fit)
    while True:
        if errors == "wild":
            # Residuals that are missing belong to losses that are.
            yield rng.choice([-1.0, 1.0], labels.max() + 1)[labels, None] * r
        else:
            common = rng.normal(size=(labels.max() + 1, len(fit.domains)))[labels]
            yield np.sqrt(share) * common + np.sqrt(1 - share) * rng.normal(size=r.shape)


def refit(fit: Fit, losses: np.ndarray) -> Fit:
    """The fit of other losses (n, E), from the parameters of `fit`."""
    e, runs = fit.estimate, replace(fit.runs.with_domains(list(fit.domains)), losses=losses)
    again, _ = estimate(runs, e.law, e.objective, e.min_weight, warm=e.z)
    return replace(fit, runs=runs, estimate=again, draws=None, warnings=())


def covered(h: np.ndarray, intervals: dict[str, tuple[float, float]]) -> np.ndarray:
    """(K,) whether each weight is within its interval; to a millionth."""
    low, high = np.array(list(intervals.values())).T
    return (h >= low - 1e-6) & (h <= high + 1e-6)


def vector(result: Any) -> np.ndarray:
    """(K,) weights of a result."""
    return np.array(list(result.weights.values()))


def intervals(result: Any) -> Uncertainty:
    """Of a result with draws."""
    assert result.uncertainty is not None
    return result.uncertainty


def options_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", choices=PLANS, default="slimpajama7")
    parser.add_argument("--law", default="transfer-average")
    parser.add_argument("--posterior", default="none", choices=("none", "laplace", "nuts"))
    parser.add_argument("--bootstrap", type=int, default=0)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--errors", default="clustered", choices=("clustered", "independent", "wild"))
    parser.add_argument("--reverse", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = options_of()
    named = os.environ.get("LAWKIT_DATASETS")
    if not named:
        sys.exit("LAWKIT_DATASETS must name the folder of the public tables")
    warnings.simplefilter("ignore")
    asked: dict[str, Any] = {} if options.posterior == "none" else {"posterior": options.posterior}
    asked |= {"bootstrap": options.bootstrap} if options.bootstrap else {}
    plan = dict(zip(("n_params", "n_tokens"), PLANS[options.table], strict=True))

    start = time.process_time()
    fit = lawkit.fit(table(options.table, Path(named)), law=options.law, holdout="none", **asked)
    print(
        f"{options.table}, {options.law}, {asked or 'Gauss-Newton'}: fitted in {time.process_time() - start:.1f} s"
    )
    start = time.process_time()
    first = lawkit.optimize_mixture(fit, **plan, draws=options.draws)
    seconds = time.process_time() - start
    u, h = intervals(first), vector(first)
    print(f"{len(u.optima)} draws in {seconds:.1f} s, {u.left_out} left out")
    print(f"loss given up: {u.regret_mean:.2g} on average, {u.regret_upper:.2g} at 90%")
    print(f"objective {first.objective:.4f} in {u.objective[0]:.4f} .. {u.objective[1]:.4f}")
    print("error that checkpoints share, by domain:", np.round(shares(fit), 2))

    predicted = fit.losses(fit.runs.n_params, fit.runs.n_tokens, fit.runs.weights, fit.runs.unique)
    dealt = noises(fit, options.errors, np.random.default_rng(1))
    optima, joint, single = [], [], []
    start = time.process_time()
    for world in range(options.worlds):
        losses = np.where(np.isnan(fit.observed), np.nan, predicted * np.exp(spread(fit) * next(dealt)))
        again = refit(fit, losses)
        if options.reverse and asked:
            again = lawkit.fit(again.runs, law=options.law, holdout="none", starts=1, **asked)
        best = lawkit.optimize_mixture(again, **plan, draws=options.draws if options.reverse else 0)
        optima.append(vector(best))
        told, sought = (intervals(best), h) if options.reverse else (u, optima[-1])
        joint.append(covered(sought, told.weights).all())
        single.append(covered(sought, told.weights_marginal))
        if (world + 1) % 20 == 0:
            print(
                f"  {world + 1} worlds: at once {np.mean(joint):.2f}, one at a time {np.mean(single):.2f}",
                flush=True,
            )
    each = (time.process_time() - start) / options.worlds
    print(f"{options.worlds} worlds with {options.errors} errors, {each:.1f} s each")
    print(f"covered: all at once {np.mean(joint):.2f}, one source at a time {np.mean(single):.3f}")
    sd, middle, optima = u.optima.std(0), u.optima.mean(0), np.array(optima)
    print(
        f"{'source':20s}{'weight':>8s}{'interval':>20s}{'covered':>9s}{'bias':>7s}{'ratio':>7s}{'draws':>7s}"
    )
    for j, source in enumerate(fit.sources):
        low, high = u.weights[source]
        bias, ratio = (optima[:, j].mean() - h[j]) / sd[j], optima[:, j].std() / sd[j]
        within, share = f"{low:.4f} .. {high:.4f}", np.mean(single, 0)[j]
        offset = (middle[j] - h[j]) / sd[j]
        print(f"{source:20s}{h[j]:8.4f}{within:>20s}{share:9.2f}{bias:7.2f}{ratio:7.2f}{offset:7.2f}")


if __name__ == "__main__":
    main()
