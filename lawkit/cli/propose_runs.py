"""``lawkit propose-runs``: the proxy runs that are worth their flops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _output, _types
from lawkit.cli._options import target_arguments, target_options

if TYPE_CHECKING:
    from lawkit.design import Proposal


@click.command("propose-runs")
@click.argument("fit", type=click.Path(path_type=Path))
@target_options
@click.option(
    "--budget", type=_types.SIZE, required=True, metavar="FLOPS", help="What the new runs may cost together."
)
@click.option(
    "-n",
    "--number",
    "count",
    type=click.IntRange(min=1),
    metavar="K",
    help="At most this many runs; 32 if not given.",
)
@click.option(
    "--candidates",
    type=click.Path(path_type=Path),
    metavar="RUNS",
    help="Choose among the rows of this table, each once; its losses are not looked at.",
)
@click.option(
    "--method",
    type=click.Choice(["regret", "variance", "d-optimal", "a-optimal", "mspe", "random", "grid"]),
    default="regret",
    show_default=True,
    help="What a run is valued by; random and grid value nothing (docs/proposals.md).",
)
@click.option(
    "--choices",
    type=click.Path(path_type=Path),
    metavar="RUNS",
    help="The mixtures of this table are all there is to choose from at the target.",
)
@click.option(
    "--also",
    type=_types.TARGET,
    multiple=True,
    metavar="N,D[,SHARE]",
    help="Another target that the runs are to serve, and what it counts beside the first (1); may be repeated.",
)
@click.option(
    "--generation",
    type=_types.QUANTITY,
    multiple=True,
    metavar="hq=2e10",
    help="Flops per token of a source that has to be generated; a run pays for it. May be repeated.",
)
@click.option(
    "--stock",
    type=_types.QUANTITY,
    multiple=True,
    metavar="hq=2e9",
    help="Tokens of such a source that exist already; may be repeated.",
)
@click.option(
    "--points",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Average over the fit and this many less 1 draws of its posterior.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-6,
    show_default=True,
    help="Stop when this much is left of what is minimised: nats of expected regret, nats squared of variance "
    "and mspe.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the generated candidates."
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Write the runs as a table: .csv, .parquet or .jsonl.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    fit: Path,
    budget: float,
    count: int | None,
    candidates: Path | None,
    method: str,
    choices: Path | None,
    also: tuple[dict[str, float], ...],
    generation: tuple[tuple[str, float], ...],
    stock: tuple[tuple[str, float], ...],
    points: int,
    tolerance: float,
    seed: int,
    out: Path | None,
    as_json: bool,
    **target: Any,
) -> None:
    """Propose the next proxy runs, within a budget of flops.

    FIT is a folder saved by lawkit fit. The runs chosen are those that most reduce
    the expected regret: the loss given away at the target scale because the law's
    parameters, and with them the best mixture, are known only so well.

    \b
    Examples:
      lawkit propose-runs fit --n-params 7B --n-tokens 1T --budget 1e20
      lawkit propose-runs fit --n-params 7B --n-tokens 1T --budget 1e20 -n 8 -o next.csv
      lawkit propose-runs fit --n-params 7B --n-tokens 1T --also 70B,2T,.5 --budget 1e20
      lawkit propose-runs fit --n-params 7B --n-tokens 1T --budget 1e20 --generation hq=2e10
    """
    arguments = target_arguments(**target)
    if stock and not generation:
        raise click.UsageError(
            "--stock is of tokens that have to be generated: say what one costs (--generation)"
        )
    import lawkit
    from lawkit.io._write import check_output
    from lawkit.runs import read_runs

    if out is not None:
        check_output(out, measured=True)
    fitted = lawkit.load_fit(fit)
    table, among = (
        None if path is None else read_runs(path, require_losses=False) for path in (candidates, choices)
    )
    with _output.working("choosing runs", quiet=as_json):
        proposal = lawkit.propose_runs(
            fitted, budget=budget, n=count, candidates=table, method=method, seed=seed, choices=among,
            also=also, generation=_types.merge_unique(generation, "--generation") or None,
            stock=_types.merge_unique(stock, "--stock") or None, points=points, tolerance=tolerance,
            **arguments,
        )  # fmt: skip
    if out is not None and proposal.runs:
        proposal.write(out)
    _output.show_warnings(proposal.warnings)
    if as_json:
        _output.emit_json(proposal.to_dict())
        return
    _show(proposal)
    if out is not None:
        _output.note(f"written to {out}" if proposal.runs else f"nothing to write to {out}")


def _show(proposal: Proposal) -> None:
    if not proposal.runs:
        _output.say("No run is worth its flops.")
    _output.show_table(
        ["run", "parameters", "tokens", "seed", "flops", "regret after", "mixture"],
        [
            [
                str(i),
                _output.size(run.n_params),
                _output.size(run.n_tokens),
                run.seed,
                _output.number(run.flops, 3),
                _output.number(run.regret_after, 3),
                " ".join(f"{name}={weight:.3f}" for name, weight in run.weights.items() if weight >= 5e-4),
            ]
            for i, run in enumerate(proposal.runs, 1)
        ],
    )
    _output.say()
    told: list[tuple[str, Any]] = []
    if proposal.expected_regret_now is not None:
        errors = proposal.regret_errors or {}
        now = _regret(proposal.expected_regret_now, errors, "now")
        told.append(("expected regret now", f"{now} nats per token, if the law is right"))
        told += [("after these runs", _regret(r.regret_after, errors, "after")) for r in proposal.runs[-1:]]
    if proposal.regret_misfit is not None:
        more = _output.number(proposal.regret_misfit, 3)
        told.append(("the law's own error", f"may cost {more} nats per token more"))
    if proposal.method != "regret" and proposal.criterion_now is not None:
        then = f", then {_output.number(proposal.runs[-1].criterion_after)}" if proposal.runs else ""
        told.append((f"{proposal.method} now", _output.number(proposal.criterion_now) + then))
    told += [
        ("spent", f"{_output.number(proposal.spent, 3)} of {_output.number(proposal.budget, 3)} flops"),
        ("no more runs because", proposal.stopped),
    ]
    if proposal.runs:
        share = _output.percent(proposal.efficiency, 0)
        told.append(("efficiency", f"at least {share} of what any runs could save, to first order"))
    _output.show_pairs([*told, ("candidates", proposal.n_candidates)])


def _regret(value: float | None, errors: dict[str, float], when: str) -> str:
    error = f" +- {_output.number(errors[when], 1)}" if when in errors else ""
    return _output.number(value, 3) + error
