"""What `--law auto` picks on published tables, how long it takes, and how laws do on runs that were held back.

    LAWKIT_DATASETS=... OMP_NUM_THREADS=1 python tests/benchmarks/bench_selection.py [--table NAME]... [--every-law]

slimpajama7 and pile4 fit the smaller model size and judge on the larger; regmix fits its 512 mixtures and judges on 256
others of the same size; the other tables fit the 70% of the runs of least compute and judge on the rest. Prints the
score that laws were chosen by, the error of their forecasts within the fitted runs, what was guessed, the error on the
fitted and on the held-back runs (mean relative, in percent), and CPU seconds. Laws that were given up are
fitted too with --every-law.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import lawkit
from lawkit.errors import LawkitError
from lawkit.fitting.selection import LawScore, select_law
from lawkit.runs import Runs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench_laws_slimpajama import read

from published import chinchilla, gemstones, mixtures, scale_only

TABLES = (
    "slimpajama7", "slimpajama7+openhermes", "pile4", "regmix", "chinchilla_epoch", "chinchilla_epoch 245",
    "gemstones hot", "gemstones cool_end", "farseer",
)  # fmt: skip


def tables(name: str, folder: Path) -> tuple[Runs, Runs]:
    """The runs to choose a law by, and those to judge it on."""
    if name == "regmix":
        pairs = [
            [folder / "regmix" / f"{s}_{t}_1m.csv" for t in ("mixture", "pile_loss")]
            for s in ("train", "test")
        ]
        train, test = (lawkit.import_runs(pair, format="regmix") for pair in pairs)
        return train, test
    if name.startswith("slimpajama7"):
        runs = read(folder, openhermes=name.endswith("openhermes"))
    elif name == "pile4":
        runs = mixtures(folder / "pile4" / "runs_90M_200M.csv", "{}_loss")
    elif name.startswith("chinchilla"):
        runs = chinchilla(folder, 0 if name.endswith("245") else 5)
    elif name.startswith("gemstones"):
        runs = gemstones(folder, name.split()[1])
    else:
        import pandas as pd

        table = pd.read_parquet(
            folder / "scalebench" / "farseer_scaling_law" / "train-00000-of-00001.parquet"
        )
        runs = scale_only(*(table[c].to_numpy(float) for c in ("N", "D", "loss")))
    assert runs.n_params is not None
    assert runs.n_tokens is not None
    if runs.sources:
        small = runs.n_params < 1.3e8
    else:
        compute = runs.n_params * runs.n_tokens
        small = compute <= np.quantile(compute, 0.7) * 1.0001
    return runs.select(small), runs.select(~small)


def held_back(name: str, train: Runs, test: Runs) -> tuple[float, float]:
    """Mean relative errors in percent on the fitted runs and on the others."""
    fit = lawkit.fit(train, law=name, holdout="none")
    error = []
    for runs in (train, test):
        said = fit.predict(runs.n_params, runs.n_tokens, runs.weights if runs.sources else None).mean
        error.append(100 * float(np.nanmean(np.abs(said / runs.with_domains(list(fit.domains)).losses - 1))))
    return error[0], error[1]


def report(name: str, folder: Path, every: bool) -> None:
    train, test = tables(name, folder)
    start = time.process_time()
    law, scores = select_law(train)
    seconds = time.process_time() - start
    print(f"\n{name}: {len(train)} runs fitted, {len(test)} held back; {law.name} in {seconds:.1f} s CPU")
    print(
        f"{'law':20s}{'score':>9s}{'rolling':>9s}{'guess':>9s}{'fitted':>9s}{'held back':>11s}{'params':>8s}"
    )
    for s in scores:
        if s.reason and not (every and s.score is not None):
            continue
        try:
            fitted, others = held_back(s.name, train, test)
        except LawkitError as error:
            print(f"{s.name:20s}{error}")
            continue
        score = f"{'> ' if s.reason else ''}{_percent(s.score)}"
        print(
            f"{s.name:20s}{score:>9s}{_percent(s.holdout_mre):>9s}{_percent(s.guess):>9s}{fitted:9.3f}{others:11.3f}"
            f"{s.n_parameters:8d}",
            flush=True,
        )
    if not every:
        print(
            "given up:", ", ".join(_given_up(s) for s in scores if s.reason and s.score is not None) or "none"
        )


def _given_up(s: LawScore) -> str:
    return f"{s.name} (> {_percent(s.score)})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3f}" if value < 1 else "100+"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", action="append", choices=TABLES, help="only this one; may be repeated")
    parser.add_argument("--every-law", action="store_true", help="fit the laws that were given up, too")
    options = parser.parse_args()
    named = os.environ.get("LAWKIT_DATASETS")
    if not named:
        sys.exit("LAWKIT_DATASETS must name the folder of the public tables")
    warnings.simplefilter("ignore")
    for name in options.table or TABLES:
        report(name, Path(named), options.every_law)


if __name__ == "__main__":
    main()
