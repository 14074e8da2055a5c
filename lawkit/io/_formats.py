"""The tables of other tools: which files they come in and what their columns mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from lawkit.errors import RunsError
from lawkit.io._patterns import match_columns
from lawkit.io._tables import Table

__all__ = ["FORMATS", "Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to read the joined table: a format's own settings, with the user's on top."""

    on: str | None = None
    run_id: str | None = None
    weights: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    n_params: float | None = None
    n_tokens: float | None = None
    rounding: float = 0.0  # sums of weights this far from 1 are known rounding, and are divided out
    assumed: Mapping[str, str] = field(default_factory=dict)  # size -> what to say if not given
    warnings: tuple[str, ...] = ()


def _regmix(tables: list[Table], _losses: tuple[str, ...]) -> tuple[list[Table], Plan]:
    """RegMix's pair, joined on index: train_the_pile_{} and metric/the_pile_{}_val_loss."""
    if len(tables) != 2:
        raise RunsError(
            f"--format regmix takes two files, the mixtures and the losses, not {len(tables)}: "
            "lawkit runs import train_mixture_1m.csv train_pile_loss_1m.csv --format regmix -o runs.csv"
        )
    size = None
    assumed = {
        "n_tokens": "n_tokens is set to 1e9, as for RegMix's 1M and 60M models; --n-tokens changes it."
    }
    named = re.search(r"_(\d+)([mb])\.csv", PurePath(tables[0].where).name.lower())
    if named:
        size = float(named.group(1)) * (1e6 if named.group(2) == "m" else 1e9)
        name = PurePath(tables[0].where).name
        assumed["n_params"] = f"n_params is set to {size:g}, from the name {name}; --n-params changes it."
    plan = Plan(
        on="index",
        run_id="index",
        weights=("train_the_pile_{}",),
        losses=("metric/the_pile_{}_val_loss",),
        n_params=size,
        n_tokens=1e9,
        rounding=0.01,
        assumed=assumed,
    )
    return tables, plan


_OLMIX_IDS = ("run", "run_id")
_OLMIX_LABELS = (*_OLMIX_IDS, "name", "index", "Unnamed: 0")


def _olmix(tables: list[Table], losses: tuple[str, ...]) -> tuple[list[Table], Plan]:
    """Olmix's pair: ratios.csv and metrics.csv, bare names as columns, joined on run or run_id."""
    if len(tables) != 2:
        raise RunsError(
            f"--format olmix takes two files, the ratios and the metrics, not {len(tables)}: "
            "lawkit runs import ratios.csv metrics.csv --format olmix -o runs.csv"
        )
    names = [PurePath(table.where).name.lower() for table in tables]
    if "metric" in names[0] and "ratio" in names[1]:
        tables = tables[::-1]
    ratios, metrics = tables
    ids = [name for name in _OLMIX_IDS if all(name in table.names for table in tables)]
    if not ids:
        found = [next((name for name in _OLMIX_IDS if name in table.names), None) for table in tables]
        raise RunsError(
            f"{ratios.where} and {metrics.where}: olmix tables are joined on a column run or run_id that "
            f"both have; they have {found[0] or 'neither'} and {found[1] or 'neither'}. "
            "Rename it in one of them."
        )
    on = ids[0]
    bare = [name for name in metrics.names if name not in _OLMIX_LABELS]
    chosen = match_columns(losses or ("{}",), bare, metrics.where, "--losses", strip="loss")
    sources = {name: name for name in ratios.names if name not in _OLMIX_LABELS}
    renamed = [_rename(ratios, on, "weight_", sources), _rename(metrics, on, "loss_", chosen)]
    warning = "olmix metrics are kept as they are, usually bits per byte rather than nats per token."
    plan = Plan(on=on, run_id=on, losses=("loss_{}",), rounding=0.011, warnings=(warning,))
    return renamed, plan


def _rename(table: Table, on: str, prefix: str, columns: dict[str, str]) -> Table:
    back = {on: on} | {prefix + name: column for name, column in columns.items()}
    return Table(tuple(back), table.n_rows, table.where, lambda name: table.cells(back[name]))


FORMATS: dict[str, Callable[[list[Table], tuple[str, ...]], tuple[list[Table], Plan]]] = {
    "regmix": _regmix,
    "olmix": _olmix,
}
