"""``lawkit fit``: a law fitted to a runs table, saved as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lawkit.cli import _output, _types


@click.command("fit")
@click.argument("runs", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to save the fit in."
)
@click.option(
    "--law", "law", metavar="NAME", help="Law to fit (see lawkit laws); by default the one the columns allow."
)
@click.option(
    "--formula", metavar="EXPR", help="Your own law, such as 'E + A/N**alpha + B/(D*(w_web + k*w_hq))**beta'."
)
@click.option(
    "--domain", "domains", metavar="D", multiple=True, help="Fit only this domain; may be repeated."
)
@click.option(
    "--holdout",
    type=_types.HOLDOUT,
    default="scale",
    show_default=True,
    metavar="scale|FRACTION|none",
    help="Judge the law on runs it has not seen: those of the largest scale, or a random fraction.",
)
@click.option(
    "--delta",
    type=click.FloatRange(min=0, min_open=True),
    help="Where the Huber loss turns linear [law's own: 1e-3].",
)
@click.option(
    "--min-weight",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Leave out a domain's cells where its own source has less than this weight.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the starts and of a random hold-out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    runs: Path,
    out: Path,
    law: str | None,
    formula: str | None,
    domains: tuple[str, ...],
    holdout: str | float | None,
    delta: float | None,
    min_weight: float,
    seed: int,
    as_json: bool,
) -> None:
    """Fit a scaling law to a runs table.

    RUNS is the table (see lawkit runs); the fit is saved as a folder.

    Before the fit on all runs, the same law is fitted without the largest scale and
    judged on it: the holdout error says how far to trust an extrapolation.

    \b
    Examples:
      lawkit fit runs.csv -o fit
      lawkit fit runs.csv -o fit --law chinchilla --domain wiki --json
      lawkit fit runs.csv -o fit --formula 'E + A/N**alpha + B/D**beta'
    """
    if law is not None and formula is not None:
        raise click.UsageError("--law and --formula exclude each other: give one of them")
    import lawkit

    table = lawkit.read_runs(runs)
    with _output.working("fitting", quiet=as_json):
        fit = lawkit.fit(
            table,
            law=law,
            formula=formula,
            domains=list(domains) or None,
            holdout=holdout,
            delta=delta,
            min_weight=min_weight,
            seed=seed,
        )
    fit.save(out)
    result = fit.to_dict()
    _output.show_warnings(result["warnings"])
    if as_json:
        _output.emit_json(result)
        return
    _show(result)
    _output.note(f"saved in {out}")


def _show(result: dict[str, Any]) -> None:
    name = result["formula"] or result["law"]
    _output.say(f"{name} fitted to {result['n_runs']} runs\n")
    rows = [
        [
            name,
            _output.percent(domain["train"]["mre"]),
            _output.percent((domain.get("holdout") or {}).get("mre")),
            _output.percent(domain["starts_at_optimum"], 0),
        ]
        for name, domain in result["domains"].items()
    ]
    train, holdout = result["train"], result["holdout"] or {}
    if len(rows) > 1:
        rows.append(["all", _output.percent(train["mre"]), _output.percent(holdout.get("mre")), None])
    _output.show_table(["domain", "error (train)", "error (held out)", "starts at the optimum"], rows)
    _output.say("\nErrors are means of |predicted - observed| / observed over the cells with a loss.")
    if holdout:
        _output.say(
            f"Held out: {holdout['what']} ({holdout['n_runs']} runs); of their losses "
            f"{_output.percent(holdout['coverage_90'], 0)} lay in the 90% bands."
        )
    _output.say()
    _show_parameters(result)


#: More numbers than this are left to the fit folder and to --json.
_MOST_NUMBERS = 200


def _show_parameters(result: dict[str, Any]) -> None:
    domains, sources = result["domains"], result["sources"]
    first = next(iter(domains.values()))["parameters"]
    scalars = [name for name, value in first.items() if not isinstance(value, list)]
    vectors = [name for name in first if name not in scalars]
    if scalars:
        _output.show_table(
            ["domain", *scalars], [[d, *(v["parameters"][p] for p in scalars)] for d, v in domains.items()]
        )
    if not vectors:
        return
    _output.say()
    if len(domains) * len(vectors) * len(sources) > _MOST_NUMBERS:
        _output.say(f"{', '.join(vectors)} have one value for each source and domain: see --json.")
        return
    _output.show_table(
        ["domain and parameter", *sources],
        [[f"{d} {p}", *v["parameters"][p]] for d, v in domains.items() for p in vectors],
    )
