"""Laws beside each other on slimpajama7, judged on runs they were not fitted to.

    LAWKIT_DATASETS=... OMP_NUM_THREADS=1 python tests/benchmarks/bench_laws_slimpajama.py [--split NAME] [--law NAME]

Splits: 'size' fits all runs of 122M parameters and judges those of 310M; 'long' fits 122M and the 310M runs of at most
4B tokens and judges 310M from 10B tokens on; 'unseen' does so on a quarter of the mixtures, left out of the fit.

Prints the mean relative error in percent by domain, the rank correlation of the mixtures' mean loss at the last
checkpoint, and the CPU seconds of the fit. In the split 'size' one model size says nothing about how the loss falls
with n_params: what the laws do about that (priors, or a starting value that nothing moves) is part of what is compared.
'chinchilla per mixture' fits Chinchilla's law to each mixture's own training curve, as is done without a mixture law.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

import lawkit
from lawkit.runs import Runs

SMALL = 122e6
LAWS = (
    "exponential", "exponential-scale", "additive", "joint", "bimix", "dcpt",
    "capacity", "capacity-plain", "chinchilla", "transfer", "transfer-plain", "transfer-average",
)  # fmt: skip
PER_MIXTURE = "chinchilla per mixture"


def read(folder: Path, openhermes: bool) -> Runs:
    """All runs; cells that are missing stay so."""
    with (folder / "slimpajama7" / "runs_122M_310M.csv").open() as file:
        table = list(csv.DictReader(file))
    sources = tuple(k.removeprefix("weight_") for k in table[0] if k.startswith("weight_"))
    domains = (*sources, "openhermes") if openhermes else sources
    losses = np.array([[float(r[f"{d}_loss"] or "nan") for d in domains] for r in table])
    weights = np.array([[float(r[f"weight_{s}"]) for s in sources] for r in table])
    runs = Runs(
        sources=sources,
        domains=domains,
        n_params=np.array([float(r["model_size"]) for r in table]),
        n_tokens=np.array([float(r["n_tokens"]) for r in table]),
        weights=weights / weights.sum(1, keepdims=True),
        losses=losses,
    )
    return runs.select(np.asarray(~np.isnan(losses).all(1)))


def split(runs: Runs, name: str) -> tuple[Runs, Runs]:
    """The runs to fit and the runs to judge."""
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    large = runs.n_params > SMALL * 1.02
    if name == "size":
        return runs.select(~large), runs.select(large)
    short, long = ~large | (runs.n_tokens < 5e9), large & (runs.n_tokens > 9e9)
    if name == "long":
        return runs.select(short), runs.select(long)
    group = np.unique(mixtures(runs), return_inverse=True)[1]
    left_out = np.isin(group, np.random.default_rng(0).permutation(group.max() + 1)[: (group.max() + 1) // 4])
    return runs.select(short & ~left_out), runs.select(long & left_out)


def mixtures(runs: Runs) -> np.ndarray:
    """(n,) number of each run's mixture, the same for the same weights in any table of these sources."""
    return np.array([hash(tuple(np.round(h, 6))) for h in runs.weights])


def with_one_law(name: str, train: Runs, test: Runs) -> tuple[np.ndarray, tuple[str, ...]]:
    """Predicted losses (n, E) of the test runs and the domains they belong to."""
    fit = lawkit.fit(train, law=name, holdout="none")
    return fit.losses(test.n_params, test.n_tokens, test.weights), fit.domains


def per_mixture(train: Runs, test: Runs) -> tuple[np.ndarray, tuple[str, ...]]:
    """Chinchilla's law for each mixture by itself; NaN where a mixture was not run at the small size."""
    of_train, of_test = mixtures(train), mixtures(test)
    out = np.full(test.losses.shape, np.nan)
    for mixture in np.unique(of_test):
        mine = of_train == mixture
        if mine.sum() < 6:
            continue
        at = of_test == mixture
        out[at] = with_one_law("chinchilla", train.select(mine), test.select(at))[0]
    return out, train.domains


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, without ties."""
    first, second = (np.argsort(np.argsort(v)) for v in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def report(name: str, way: Callable[[], tuple[np.ndarray, tuple[str, ...]]], test: Runs) -> None:
    """One line of the table."""
    start = time.process_time()
    predicted, domains = way()
    seconds = time.process_time() - start
    observed = test.with_domains(list(domains)).losses
    error = 100 * np.abs(predicted - observed) / observed
    assert test.n_tokens is not None
    last = test.n_tokens >= test.n_tokens.max() / 1.02
    sound = last & ~np.isnan(predicted + observed).any(1)
    ranks = rank_correlation(predicted[sound].mean(1), observed[sound].mean(1))
    cells = {d: f"{v:8.2f}" for d, v in zip(domains, np.nanmean(error, 0), strict=True)}
    by_domain = "".join(cells.get(d, f"{'-':>8s}") for d in test.domains)
    print(f"{name:24s}{np.nanmean(error):8.3f}{by_domain}{ranks:8.3f}{seconds:8.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--law", action="append", choices=(*LAWS, PER_MIXTURE), help="only this one; may be repeated"
    )
    parser.add_argument("--openhermes", action="store_true", help="the domain that is no source, too")
    parser.add_argument("--split", default="size", choices=("size", "long", "unseen"))
    options = parser.parse_args()
    named = os.environ.get("LAWKIT_DATASETS")
    if not named:
        sys.exit("LAWKIT_DATASETS must name the folder of the public tables")
    train, test = split(read(Path(named), options.openhermes), options.split)
    warnings.simplefilter("ignore")
    print(f"fitted to {len(train)} runs, judged on {len(test)}; mean relative error in percent")
    print(f"{'law':24s}{'all':>8s}{''.join(f'{d[:7]:>8s}' for d in test.domains)}{'ranks':>8s}{'CPU s':>8s}")
    for name in options.law or (*LAWS, PER_MIXTURE):
        if name == PER_MIXTURE:
            report(name, lambda: per_mixture(train, test), test)
        else:
            report(name, lambda name=name: with_one_law(name, train, test), test)


if __name__ == "__main__":
    main()
