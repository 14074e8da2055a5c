"""Published tables as runs, for the tests that read them from LAWKIT_DATASETS."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from lawkit.runs import Runs


def scale_only(n: np.ndarray, d: np.ndarray, loss: np.ndarray) -> Runs:
    return Runs(
        sources=(),
        domains=("loss",),
        n_params=n,
        n_tokens=d,
        weights=np.zeros((len(n), 0)),
        losses=loss[:, None],
    )


def chinchilla(datasets: Path, drop: int) -> Runs:
    with (datasets / "chinchilla_epoch" / "svg_extracted_data.csv").open() as file:
        rows = [
            (float(r["Model Size"]), float(r["Training FLOP"]), float(r["loss"]))
            for r in csv.DictReader(file)
        ]
    rows.sort(key=lambda row: row[2])
    n, flops, loss = np.array(rows[: len(rows) - drop]).T
    return scale_only(n, flops / (6 * n), loss)


def gemstones(datasets: Path, which: str) -> Runs:
    lines = (datasets / "gemstones" / f"wandb_df_for_fitting_{which}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return scale_only(
        *(np.array([r[c] for r in rows], float) for c in ("params_active_precise", "tokens", "final_loss"))
    )


def mixtures(path: Path, losses: str) -> Runs:
    """A table of mixtures, its domains being the sources."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    sources = tuple(k.removeprefix("weight_") for k in rows[0] if k.startswith("weight_"))
    table = {
        k: np.array([[float(r[c.format(s)] or "nan") for s in sources] for r in rows])
        for k, c in {"w": "weight_{}", "l": losses}.items()
    }
    return Runs(
        sources=sources, domains=sources, n_params=np.array([float(r["model_size"]) for r in rows]),
        n_tokens=np.array([float(r["n_tokens"]) for r in rows]),
        weights=table["w"] / table["w"].sum(1, keepdims=True), losses=table["l"],
    )  # fmt: skip
