"""``lawkit propose-runs``: the proxy runs that are worth their flops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lawkit.cli import _output, _types


@click.command("propose-runs")
@click.argument("fit", type=click.Path(path_type=Path))
@click.option(
    "--n-params", type=_types.SIZE, required=True, help="Non-embedding parameters of the target run."
)
@click.option("--n-tokens", type=_types.SIZE, required=True, help="Tokens of the target run.")
@click.option(
    "--budget", type=_types.SIZE, required=True, metavar="FLOPS", help="What the new runs may cost together."
)
@click.option(
    "-n", "--number", "count", type=click.IntRange(min=1), metavar="K", help="At most this many runs."
)
@click.option(
    "--candidates",
    type=click.Path(path_type=Path),
    metavar="RUNS",
    help="Choose among the rows of this table (losses are not needed).",
)
@click.option("--method", default="regret", show_default=True, help="What a run is valued by: regret.")
@click.option(
    "--bound",
    "bounds",
    type=_types.BOUND,
    multiple=True,
    metavar="'hq<=.5'",
    help="Bound on a weight; may be repeated.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the generated candidates."
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Write the runs as a table, losses left to fill in.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    fit: Path,
    n_params: float,
    n_tokens: float,
    budget: float,
    count: int | None,
    candidates: Path | None,
    method: str,
    bounds: tuple[tuple[str, float, float], ...],
    seed: int,
    out: Path | None,
    as_json: bool,
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
    merged = _types.merge_bounds(bounds) or None
    import lawkit

    fitted = lawkit.load_fit(fit)
    table = None if candidates is None else lawkit.read_runs(candidates)
    with _output.working("choosing runs", quiet=as_json):
        proposal = lawkit.propose_runs(
            fitted,
            n_params=n_params,
            n_tokens=n_tokens,
            budget=budget,
            n=count,
            candidates=table,
            method=method,
            bounds=merged,
            seed=seed,
        )
    result = proposal.to_dict()
    if out is not None:
        proposal.write(out)
    _output.show_warnings(result.get("warnings", ()))
    if as_json:
        _output.emit_json(result)
        return
    _show(result)
    if out is not None:
        _output.note(f"written to {out}")


def _show(result: dict[str, Any]) -> None:
    _output.say(f"expected regret now: {_output.number(result['expected_regret_now'])} nats per token\n")
    _output.show_table(
        ["run", "parameters", "tokens", "flops", "regret after", "mixture"],
        [
            [
                str(i),
                _output.size(run["n_params"]),
                _output.size(run["n_tokens"]),
                _output.number(run["flops"], 3),
                _output.number(run["regret_after"], 3),
                " ".join(f"{name}={weight:.3f}" for name, weight in run["weights"].items() if weight > 0),
            ]
            for i, run in enumerate(result["runs"], 1)
        ],
    )
    total = sum(run["flops"] for run in result["runs"])
    _output.say()
    _output.show_pairs(
        [
            ("cost together", f"{_output.number(total, 3)} flops"),
            ("efficiency", f"{_output.percent(result['efficiency'], 0)} of what any design could save"),
        ]
    )
