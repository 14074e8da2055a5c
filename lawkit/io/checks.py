"""What is odd about a readable runs table: findings for `lawkit runs check`, warnings for a read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from lawkit.io._cells import describe_rows
from lawkit.io._findings import Finding
from lawkit.io._repeats import checkpoints, repeats

if TYPE_CHECKING:
    from lawkit.runs import Runs

__all__ = ["Finding", "check_runs", "scale_correlation"]

# The smallest ladders trained on a CPU start at about 25 thousand parameters and half a million tokens; sizes
# below these bounds are therefore counts in thousands, millions or billions.
FEWEST_PARAMS = 1e4
FEWEST_TOKENS = 1e5
# Published ladders run from .04 to a few thousand tokens a parameter.
TOKENS_PER_PARAM = (0.005, 1e6)
# A model that knows nothing scores ln(vocabulary), 12.4 for 250,000 words.
HIGHEST_LOSS = 15.0
COLLINEAR = 0.97


def check_runs(runs: Runs) -> list[Finding]:
    """Look a runs table over.

    Returns
    -------
    list of Finding
        Warnings first, then notes.
    """
    found: list[Finding] = []
    with np.errstate(all="ignore"):  # absurd sizes may overflow a ratio, which then is as odd as infinity
        for check in (_count, _sizes, _units, _flops, _domains, _sources, repeats, checkpoints, _collinear):
            found += check(runs)
    return sorted(found, key=lambda finding: finding.level == "note")


def _count(runs: Runs) -> Iterator[Finding]:
    if len(runs) == 1:
        yield Finding(
            "warning", "one-run", "there is one run only; no law can be fitted to it.", (int(runs.rows[0]),)
        )


def _sizes(runs: Runs) -> Iterator[Finding]:
    absent = [name for name in ("n_params", "n_tokens") if getattr(runs, name) is None]
    if len(absent) == 2:
        message = (
            "no n_params and no n_tokens column: all runs are taken to share one scale, and only laws of the "
        )
        yield Finding(
            "note", "one-scale", message + "mixture can be fitted.", columns=("n_params", "n_tokens")
        )
    elif absent:
        message = f"no {absent[0]} column: all runs are taken to share one value of it, and only laws "
        message += "without it can be fitted. Add the column if the runs differ or the law needs it."
        yield Finding("warning", "missing-size", message, columns=(absent[0],))


def _units(runs: Runs) -> Iterator[Finding]:
    suspicious = False
    for name, fewest, option in (
        ("n_params", FEWEST_PARAMS, "--params-scale"),
        ("n_tokens", FEWEST_TOKENS, "--tokens-scale"),
    ):
        values = getattr(runs, name)
        if values is None:
            continue
        low = values < fewest
        if low.all():
            suspicious = True
            span = (
                f"{values.min():g}"
                if values.min() == values.max()
                else f"{values.min():g} to {values.max():g}"
            )
            yield Finding(
                "warning",
                "units",
                f"{name} is {span}: it must be a plain count and looks like billions (or millions). "
                f"Multiply the column by 1e9 (or 1e6): `lawkit runs import FILE {option} 1e9`.",
                columns=(name,),
            )
        elif low.any() and values.max() / values[low].max() > 1e4:
            suspicious = True
            rows = runs.rows[low]
            yield Finding(
                "warning",
                "mixed-units",
                f"{name} is below {fewest:g} in {describe_rows(rows)} and up to {values.max():g} elsewhere: "
                "the column mixes units. Write plain counts in every row.",
                tuple(rows.tolist()),
                (name,),
            )
    if runs.n_params is not None and runs.n_tokens is not None and not suspicious:
        ratio = float(np.median(runs.n_tokens / runs.n_params))
        if not TOKENS_PER_PARAM[0] <= ratio <= TOKENS_PER_PARAM[1]:
            yield Finding(
                "warning",
                "units",
                f"the runs saw {ratio:.3g} tokens a parameter (median): n_params and n_tokens may be in "
                "different units. Both must be plain counts.",
                columns=("n_params", "n_tokens"),
            )


def _flops(runs: Runs) -> Iterator[Finding]:
    if runs.flops is None or runs.n_params is None or runs.n_tokens is None:
        return
    ratio = float(np.median(runs.flops / (6.0 * runs.n_params * runs.n_tokens)))
    if not 0.2 <= ratio <= 20.0:
        yield Finding(
            "warning",
            "flops",
            f"flops is {ratio:.3g} times 6 n_params n_tokens (median): check the units of the three columns.",
            columns=("flops", "n_params", "n_tokens"),
        )


def _domains(runs: Runs) -> Iterator[Finding]:
    for e, domain in enumerate(runs.domains):
        column = f"loss_{domain}"
        losses = runs.losses[:, e]
        seen = ~np.isnan(losses)
        values = losses[seen]
        if len(values) == 0:
            yield Finding(
                "warning", "no-losses", f"{column} has no losses; leave the domain out.", columns=(column,)
            )
        elif len(values) > 1 and values.min() == values.max():
            message = (
                f"{column} is {values[0]:g} in all {len(values)} runs that have it: nothing can be learned "
            )
            yield Finding(
                "warning", "constant", message + "from it. Check the evaluation.", columns=(column,)
            )
        if len(values) and not seen.all():
            rows = runs.rows[~seen]
            message = f"{column} is missing in {len(rows)} of {len(runs)} runs ({describe_rows(rows)}), "
            yield Finding(
                "note", "missing", message + "which its fit leaves out.", tuple(rows.tolist()), (column,)
            )
        high = seen & (np.nan_to_num(losses) > HIGHEST_LOSS)
        if high.any():
            rows = runs.rows[high]
            message = (
                f"{column} is above {HIGHEST_LOSS:g} in {describe_rows(rows)} (up to {losses[high].max():g}):"
            )
            message += " losses must be nats per token, not perplexities; or the run diverged."
            yield Finding("warning", "high-loss", message, tuple(rows.tolist()), (column,))


def _sources(runs: Runs) -> Iterator[Finding]:
    K = len(runs.sources)
    if K < 2:
        return
    low, high = runs.weights.min(axis=0), runs.weights.max(axis=0)
    for j, source in enumerate(runs.sources):
        column = f"weight_{source}"
        if high[j] == 0:
            message = (
                f"{column} is 0 in every run: nothing can be learned about the source. Leave it out or train "
            )
            yield Finding("warning", "unused-source", message + "runs with it.", columns=(column,))
        elif low[j] == high[j] and len(runs) > 1:
            message = f"{column} is {low[j]:g} in every run: its effect cannot be told apart."
            yield Finding("warning", "constant-weight", message, columns=(column,))
    mixtures = len(np.unique(runs.weights, axis=0))
    if mixtures < K and len(runs) > 1:
        message = (
            f"{mixtures} different mixtures of {K} sources: fewer mixtures than sources cannot tell the "
        )
        yield Finding("warning", "few-mixtures", message + "sources apart, except through a law's prior.")


def _collinear(runs: Runs) -> Iterator[Finding]:
    r = scale_correlation(runs)
    if r is not None and abs(r) > COLLINEAR:
        message = (
            f"n_params and n_tokens move together (correlation {r:.3f} of their logarithms): a law cannot "
        )
        message += "tell their effects apart. Add runs off that line, such as a small model trained for long."
        yield Finding("warning", "collinear", message, columns=("n_params", "n_tokens"))


def scale_correlation(runs: Runs) -> float | None:
    """Correlation of log n_params and log n_tokens over the distinct scales; None where one does not vary."""
    if runs.scale is None:
        return None
    scales = np.unique(runs.scale, axis=0)
    if min(len(np.unique(scales[:, 0])), len(np.unique(scales[:, 1]))) < 2:
        return None
    r = float(np.corrcoef(np.log(scales).T)[0, 1])
    return r if np.isfinite(r) else None
