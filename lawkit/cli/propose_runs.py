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
    type=click.Choice(["regret", "variance", "d-optimal", "mspe", "random"]),
    default="regret",
    show_default=True,
    help="What a run is valued by.",
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
    """
    arguments = target_arguments(**target)
    import lawkit
    from lawkit.io._write import check_output
    from lawkit.runs import read_runs

    if out is not None:
        check_output(out, measured=True)
    fitted = lawkit.load_fit(fit)
    table = None if candidates is None else read_runs(candidates, require_losses=False)
    with _output.working("choosing runs", quiet=as_json):
        proposal = lawkit.propose_runs(
            fitted, budget=budget, n=count, candidates=table, method=method, seed=seed, **arguments
        )
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
    _output.show_pairs(
        [
            (
                "expected regret now",
                f"{_output.number(proposal.expected_regret_now)} nats per token, if the law is right",
            ),
            ("spent", f"{_output.number(proposal.spent, 3)} of {_output.number(proposal.budget, 3)} flops"),
            ("no more runs because", proposal.stopped),
            (
                "efficiency",
                f"at least {_output.percent(proposal.efficiency, 0)} of what any choice could save",
            ),
            ("candidates", proposal.n_candidates),
        ]
    )
