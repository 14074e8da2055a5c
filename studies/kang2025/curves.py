"""The published curves of Kang et al. 2025 as runs tables.

The paper publishes, for ten mixtures, the coefficients of B/D**beta + E at one billion parameters (table 4)
and of A/N**alpha + E at fifty billion tokens (table 5), with N and D in billions. It does not publish the
losses themselves. The points here lie exactly on those curves.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from lawkit.errors import RunsError
from lawkit.runs import Runs

BILLION = 1e9
CITATION = "Kang et al. 2025, Demystifying Synthetic Data in LLM Pre-training, tables 4 and 5"

#: Natural web text, the two kinds of rephrased web text, generated textbooks.
SOURCES = ("CC", "HQ", "QA", "TXBK")
#: The loss averaged over the paper's evaluation sets.
DOMAIN = "evaluation"

#: Parameters of the models of table 4 and tokens of those of table 5.
TABLE4_PARAMS = 1 * BILLION
TABLE5_TOKENS = 50 * BILLION
#: The paper says from 1B to 200B tokens, five or more budgets; which ones in between is our choice.
TOKENS = tuple(d * BILLION for d in (1, 2, 5, 10, 20, 50, 100))
HELD_OUT_TOKENS = 200 * BILLION
#: The mixtures that the paper trained that far (it had 100B tokens each of HQ and QA).
HELD_OUT_MIXTURES = (
    "CC",
    "33% HQ + 67% CC",
    "33% QA + 67% CC",
    "TXBK",
    "67% TXBK + 33% CC",
    "33% TXBK + 67% CC",
)
#: Table 1 of the paper.
PARAMS = tuple(n * BILLION for n in (0.1, 0.2, 0.5, 1, 2))
HELD_OUT_PARAMS = 3 * BILLION


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One published curve: scale / x**exponent + floor, x in billions.

    Attributes
    ----------
    mixture
        Name, in the manner of '33% HQ + 67% CC'.
    weights
        Weights of `SOURCES`; the paper's 33% and 67% are read as 1/3 and 2/3.
    scale, exponent, floor
        B, beta, E of table 4, or A, alpha, E of table 5.
    """

    mixture: str
    weights: tuple[float, ...]
    scale: float
    exponent: float
    floor: float

    def loss(self, x: float) -> float:
        """Loss in nats per token at `x` tokens or parameters (a plain count, not billions)."""
        return self.scale / (x / BILLION) ** self.exponent + self.floor


@cache
def data_curves() -> tuple[Curve, ...]:
    """Read table 4: loss against tokens, one billion parameters."""
    return _read("table4_data_scaling.csv", "B", "beta")


@cache
def model_curves() -> tuple[Curve, ...]:
    """Read table 5: loss against parameters, fifty billion tokens."""
    return _read("table5_model_scaling.csv", "A", "alpha")


def data_runs(tokens: Sequence[float] = TOKENS, mixtures: Sequence[str] | None = None) -> Runs:
    """Return points of table 4 as a runs table, all at `TABLE4_PARAMS`.

    Parameters
    ----------
    tokens
        Where to take them on each curve.
    mixtures
        Whose curves; all ten by default.

    Examples
    --------
    >>> runs = data_runs([1e9], ["CC"])
    >>> round(float(runs.losses[0, 0]), 4)
    4.581
    """
    return _runs(data_curves(), tokens, mixtures, "n_tokens")


def model_runs(params: Sequence[float] = PARAMS, mixtures: Sequence[str] | None = None) -> Runs:
    """Return points of table 5 as a runs table, all at `TABLE5_TOKENS`; see `data_runs`."""
    return _runs(model_curves(), params, mixtures, "n_params")


def of_mixture(runs: Runs, mixture: str) -> Runs:
    """Select the rows of one mixture."""
    assert runs.run_id is not None
    return runs.select(np.array([name.startswith(mixture + ",") for name in runs.run_id]))


def _runs(curves: Sequence[Curve], at: Sequence[float], mixtures: Sequence[str] | None, varies: str) -> Runs:
    names = [c.mixture for c in curves]
    wanted = names if mixtures is None else list(mixtures)
    if unknown := sorted(set(wanted) - set(names)):
        raise RunsError(f"no such mixture in the paper: {unknown[0]!r}; there are {', '.join(names)}")
    points = [(c, x) for c in curves if c.mixture in wanted for x in at]
    sizes = np.array([x for _, x in points])
    by_tokens = varies == "n_tokens"
    return Runs(
        sources=SOURCES,
        domains=(DOMAIN,),
        n_params=np.full(len(points), TABLE4_PARAMS) if by_tokens else sizes,
        n_tokens=sizes if by_tokens else np.full(len(points), TABLE5_TOKENS),
        weights=np.array([c.weights for c, _ in points]),
        losses=np.array([[c.loss(x)] for c, x in points]),
        run_id=np.array([f"{c.mixture}, {x / BILLION:g}B" for c, x in points], dtype=object),
    )


def _read(name: str, scale: str, exponent: str) -> tuple[Curve, ...]:
    table = files("lawkit.studies.kang2025").joinpath(name).read_text(encoding="utf-8")
    rows = csv.DictReader(table.splitlines())
    return tuple(
        Curve(
            **_mixture(row["mixture"]),
            scale=float(row[scale]),
            exponent=float(row[exponent]),
            floor=float(row["E"]),
        )
        for row in rows
    )


def _mixture(label: str) -> dict:
    """Read '67% TXBK+ 33% CC', or a pure source as in 'HQ-rephrased (HQ)'."""
    if "%" not in label:
        source = label[label.index("(") + 1 : label.index(")")]
        return {"mixture": source, "weights": tuple(float(s == source) for s in SOURCES)}
    shares = {}
    for part in label.split("+"):
        percent, source = part.split("%")
        shares[source.strip()] = {"33": 1 / 3, "67": 2 / 3}[percent.strip()]
    name = " + ".join(" ".join(part.split()) for part in label.split("+"))
    return {"mixture": name, "weights": tuple(shares.get(s, 0.0) for s in SOURCES)}
