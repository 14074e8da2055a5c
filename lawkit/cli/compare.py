"""``lawkit compare``: laws beside each other on one runs table, best first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lawkit.cli import _output

if TYPE_CHECKING:
    from lawkit.fitting.selection import LawScore


_BEYOND = (
    "the relative error to expect one e-fold beyond the runs, made of that of forecasts of runs not fitted, and "
    "a guess for sizes that never varied"
)
_OF_ONE_SCALE = (
    "the relative error to expect at other mixtures of the runs' one scale; of other scales they say nothing"
)


@click.command("compare")
@click.argument("runs", type=click.Path(path_type=Path))
@click.option(
    "--law",
    "laws",
    metavar="A,B,C",
    multiple=True,
    help="Laws to compare (see lawkit laws); may be repeated.  [default: all that the columns allow]",
)
@click.option(
    "--domain", "domains", metavar="D", multiple=True, help="Compare on this domain only; may be repeated."
)
@click.option("--stacking", is_flag=True, help="Show the weights of the laws' best mixture.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the fits' starts, random parts of the runs, and draws.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    runs: Path,
    laws: tuple[str, ...],
    domains: tuple[str, ...],
    stacking: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Compare laws on a runs table.

    RUNS is the table (see lawkit runs). The laws come best first: the first is the
    one that lawkit fit --law auto would take of them.

    Each law is fitted to the runs of least compute, at several cuts, and forecasts the
    others. What its priors leave open about a size that never varied comes on top.
    Where all runs have one scale, random parts of them are left out instead.

    \b
    Examples:
      lawkit compare runs.csv --law chinchilla,over-training,farseer
      lawkit compare runs.csv --domain wiki --stacking --json
    """
    names = [name for option in laws for name in (part.strip() for part in option.split(",")) if name]
    if laws and not names:
        raise click.UsageError(f"--law {laws[0]!r} names no law: write --law chinchilla,farseer")
    import lawkit
    from lawkit.fitting.selection import compare_laws

    table = lawkit.read_runs(runs)
    with _output.working("fitting", quiet=as_json):
        scores = compare_laws(table, names or None, domains=list(domains) or None, seed=seed)
    warnings = [*table.warnings, *_told(scores)]
    _output.show_warnings(warnings)
    if as_json:
        result = {
            "n_runs": len(table),
            "laws": [s.to_dict() for s in scores],
            "warnings": list(table.warnings),
        }
        _output.emit_json(result)
        return
    from lawkit.fitting.bands import compute

    _show(scores, stacking, compute(table) is None)


def _told(scores: Sequence[LawScore]) -> list[str]:
    """The warnings of all laws, each once, with the laws that it is of unless it is of all."""
    judged = [s for s in scores if not s.reason]
    of: dict[str, list[str]] = {}
    for s in judged:
        for warning in s.warnings:
            of.setdefault(warning, []).append(s.name)
    return [
        warning if len(names) == len(judged) else f"{', '.join(names)}: {warning}"
        for warning, names in of.items()
    ]


def _show(scores: Sequence[LawScore], stacking: bool, one_scale: bool) -> None:
    judged, others = [s for s in scores if not s.reason], [s for s in scores if s.reason]
    _output.show_table(
        ["law", "error", "of forecasts", "guess", "parameters", "elpd", "se", "p_loo", "weight"],
        [
            [
                s.name,
                _output.percent(s.score),
                _output.percent(s.holdout_mre),
                _output.percent(s.guess) if s.guess else None,
                s.n_parameters,
                None if s.elpd is None else f"{s.elpd:.1f}",
                None if s.elpd_se is None else f"{s.elpd_se:.1f}",
                None if s.p_loo is None else f"{s.p_loo:.1f}",
                _output.percent(s.weight, 0) if stacking else None,
            ]
            for s in judged
        ],
    )
    best = min(judged, key=lambda s: s.score or 0.0)
    if best is not judged[0]:
        _output.say(f"\n{judged[0].name} comes first: it ties with {best.name}, and has fewer parameters.")
    _output.say(f"\nError: {_OF_ONE_SCALE if one_scale else _BEYOND}.")
    if others:
        _output.say("\nNot judged, or not to the end:")
        _output.show_pairs([(s.name, s.reason) for s in others])
