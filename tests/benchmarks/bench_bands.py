"""Coverage of 90% bands on published tables: the runs of least compute are fitted, the dearer ones predicted.

    LAWKIT_DATASETS=... OMP_NUM_THREADS=1 python tests/benchmarks/bench_bands.py [--table NAME] [--posterior KIND]

Prints the table of docs/bands.md: by table and split, the share of the held-out losses inside the interval of the
parameters alone, inside the plain posterior predictive, and inside the bands that `predict` gives; the median half
width of these in percent of the loss; the half width that nine tenths of the errors needed; and the mean relative
error of the forecast. The law is the default one, as `lawkit fit` takes it.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import lawkit
from lawkit.fitting.bands import compute
from lawkit.fitting.prediction import parameter_sd, plain_half_width
from lawkit.runs import Runs
from published import chinchilla, gemstones, mixtures, scale_only

Z = 1.6449


def with_openhermes(folder: Path) -> Runs:
    """slimpajama7 with the domain that is no source."""
    runs = mixtures(folder / "slimpajama7" / "runs_122M_310M.csv", "{}_loss")
    with (folder / "slimpajama7" / "runs_122M_310M.csv").open() as file:
        extra = np.array([float(r["openhermes_loss"] or "nan") for r in csv.DictReader(file)])
    return Runs(
        sources=runs.sources, domains=(*runs.domains, "openhermes"), n_params=runs.n_params,
        n_tokens=runs.n_tokens, weights=runs.weights, losses=np.column_stack([runs.losses, extra]),
    )  # fmt: skip


def farseer(folder: Path) -> Runs:
    """404 runs of one recipe on a grid of sizes."""
    import pandas as pd

    table = pd.read_parquet(folder / "scalebench" / "farseer_scaling_law" / "train-00000-of-00001.parquet")
    return scale_only(*(table[c].to_numpy(float) for c in ("N", "D", "loss")))


def tables(folder: Path) -> Iterator[tuple[str, Runs]]:
    """The published tables by name."""
    yield "chinchilla_epoch, 240 runs", chinchilla(folder, 5)
    yield "chinchilla_epoch, all 245", chinchilla(folder, 0)
    yield "gemstones, hot", gemstones(folder, "hot")
    yield "gemstones, cool_end", gemstones(folder, "cool_end")
    yield "farseer", farseer(folder)
    yield "pile4", mixtures(folder / "pile4" / "runs_90M_200M.csv", "{}_loss")
    yield "slimpajama7", with_openhermes(folder)


def splits(runs: Runs) -> Iterator[tuple[str, np.ndarray]]:
    """Which rows are fitted, by split."""
    order = compute(runs)
    assert order is not None
    for share in (0.5, 0.7):
        yield f"lowest {share:.0%} of compute", order <= np.quantile(order, share) * 1.0001
    assert runs.n_params is not None
    if len(runs.sources):
        smallest = runs.n_params.min()
        yield f"{smallest / 1e6:.0f}M alone", runs.n_params <= smallest * 1.02


def judge(runs: Runs, below: np.ndarray, posterior: str) -> list[str]:
    """Cells of one row."""
    train, test = runs.select(below), runs.select(~below)
    start = time.process_time()
    fit = lawkit.fit(train, holdout="none", posterior=posterior)
    weights = test.weights if test.sources else None
    band = fit.predict(test.n_params, test.n_tokens, weights, interval=0.9)
    seconds = time.process_time() - start
    assert band.lower is not None
    assert band.upper is not None
    observed = test.losses[:, [test.domains.index(d) for d in fit.domains]]
    seen = ~np.isnan(observed)
    x = fit.estimate.inputs(test.weights, test.n_params, test.n_tokens)
    said = fit.estimate.losses(x)
    with np.errstate(invalid="ignore"):
        miss = np.abs(np.log(observed / band.mean))[seen]
        inside = ((observed >= band.lower) & (observed <= band.upper))[seen].mean()
    half = np.log(band.upper / band.mean)[seen]
    return [
        f"{(miss <= Z * parameter_sd(fit, x, said)[seen]).mean():.2f}",
        f"{(miss <= plain_half_width(fit, x, said, 0.9)[seen]).mean():.2f}",
        f"{inside:.2f}",
        f"{100 * np.median(half):.1f}",
        f"{100 * np.quantile(miss, 0.9):.1f}",
        f"{100 * np.mean(np.expm1(miss)):.1f}",
        f"{seconds:.1f}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", help="only tables whose name starts so")
    parser.add_argument("--posterior", default="none", choices=("none", "laplace"))
    options = parser.parse_args()
    named = os.environ.get("LAWKIT_DATASETS")
    if not named:
        sys.exit("LAWKIT_DATASETS must name the folder of the public tables")
    warnings.simplefilter("ignore")
    columns = (
        "table",
        "fitted",
        "parameters",
        "predictive",
        "bands",
        "half width",
        "needed",
        "error",
        "CPU s",
    )
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for name, runs in tables(Path(named)):
        if options.table and not name.startswith(options.table):
            continue
        for what, below in splits(runs):
            print(
                f"| {name} | {what} | " + " | ".join(judge(runs, below, options.posterior)) + " |", flush=True
            )


if __name__ == "__main__":
    main()
