"""``lawkit runs``: bring tables into the runs table, and look one over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _output
from lawkit.cli._types import SIZE

if TYPE_CHECKING:
    from lawkit.io.checks import Finding

_MOST_SIZES = 15
_MOST_TOKENS = 12


@click.group("runs")
def command() -> None:
    """Import runs tables and check them.

    A runs table has one row a trained model, as CSV, Parquet or JSON lines: n_params
    (non-embedding) and n_tokens as plain counts, weight_<source> summing to 1, and
    loss_<domain> in nats per token. It may also have run_id, seed, flops,
    unique_<source>, loss_<domain>_se and is_final.
    """


@command.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE [FILE2]...")
@click.option("-o", "--out", "out", required=True, help="The runs table to write: .csv, .parquet or .jsonl.")
@click.option("--on", metavar="COLUMN", help="Join several files on this column.")
@click.option(
    "--format", "format_", type=click.Choice(["regmix", "olmix"]), help="The two tables of these tools."
)
@click.option("--params-column", metavar="COLUMN", help="Non-embedding parameters. [default: n_params]")
@click.option("--tokens-column", metavar="COLUMN", help="Training tokens. [default: n_tokens]")
@click.option(
    "--flops-column", metavar="COLUMN", help="Compute; gives tokens as C/(6N) where there are none."
)
@click.option("--run-id-column", metavar="COLUMN", help="Names of the runs. [default: run_id]")
@click.option("--seed-column", metavar="COLUMN", help="Training seeds. [default: seed]")
@click.option(
    "--weights",
    multiple=True,
    metavar="PATTERN",
    help="Columns of weights: {} stands for the source; or SOURCE=COLUMN. [default: weight_{}]",
)
@click.option(
    "--losses",
    multiple=True,
    metavar="PATTERN",
    help="Columns of losses: {} stands for the domain; or DOMAIN=COLUMN. [default: {}_loss, else loss_{}]",
)
@click.option("--unique", multiple=True, metavar="PATTERN", help="Columns of unique tokens a source.")
@click.option("--source", metavar="NAME", help="All runs trained on this one source.")
@click.option("--n-params", type=SIZE, help="One number of parameters for all runs, as 1e6 or 1M.")
@click.option("--n-tokens", type=SIZE, help="One number of tokens for all runs, as 1e9 or 1B.")
@click.option("--params-scale", type=SIZE, help="Multiply the parameters: 1e9 if they are in billions.")
@click.option("--tokens-scale", type=SIZE, help="Multiply the tokens: 1e9 if they are in billions.")
@click.option("--normalize", is_flag=True, help="Divide each row's weights by their sum.")
@click.option("--mark-final", is_flag=True, help="Add is_final: true on the last checkpoint of each run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def import_(files: tuple[str, ...], out: str, format_: str | None, as_json: bool, **options: Any) -> None:
    """Bring other people's tables into the runs table.

    Sources and domains are found by column patterns; several files are joined row by
    row. What had to be assumed is said on stderr.

    \b
    Examples:
      lawkit runs import table.csv --params-column model_size \\
          --weights 'weight_{}' --losses '{}_loss' -o runs.csv
      lawkit runs import train_mixture_1m.csv train_pile_loss_1m.csv \\
          --format regmix -o runs.csv
      lawkit runs import points.csv --params-column params --tokens-column tokens \\
          --source c4 --unique unique_tokens --losses c4=val_loss -o runs.csv
    """
    from lawkit.io._write import check_output
    from lawkit.io.importing import import_runs

    for name in ("params_scale", "tokens_scale"):
        options[name] = options[name] or 1.0
    check_output(out, inputs=files)
    runs = import_runs(list(files), format=format_, **options)
    runs.write(out)
    if as_json:
        _output.emit_json(
            {
                "out": out,
                "n_runs": len(runs),
                "sources": runs.sources,
                "domains": runs.domains,
                "warnings": runs.warnings,
            }
        )
        return
    _output.show_warnings(runs.warnings)
    if out != "-":
        _output.note(f"{len(runs)} runs, {len(runs.sources)} sources, {len(runs.domains)} domains: {out}")


@command.command("check")
@click.argument("runs_file", metavar="RUNS")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(runs_file: str, as_json: bool) -> None:
    """Say what a runs table holds and what is odd about it.

    \b
    Examples:
      lawkit runs check runs.csv
      lawkit runs check runs.csv --json
    """
    from lawkit.io.summary import summarize_runs
    from lawkit.runs import check_runs, read_runs

    runs = read_runs(runs_file)
    summary, findings = summarize_runs(runs), check_runs(runs)
    known = {finding.message for finding in findings}
    reading = [message for message in runs.warnings if message not in known]
    if as_json:
        notes = [_as_dict(finding) for finding in findings]
        _output.emit_json({**summary, "findings": notes, "warnings": runs.warnings})
        return
    _show(summary)
    for message in reading:
        _output.say(f"warning: {message}")
    for finding in findings:
        _output.say(f"{finding.level}: {finding.message}")
    odd = len(reading) + sum(finding.level == "warning" for finding in findings)
    _output.say(f"{odd} warning{'' if odd == 1 else 's'}." if odd else "Nothing is odd about this table.")


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "level": finding.level,
        "code": finding.code,
        "message": finding.message,
        "rows": finding.rows,
        "columns": finding.columns,
    }


def _show(summary: dict[str, Any]) -> None:
    """Print the summary: counts, scales, sources, domains."""
    scales, sources, domains = summary["scales"], summary["sources"], summary["domains"]
    correlation = summary["scale_correlation"]
    _output.show_pairs(
        [
            ("runs", summary["n_runs"]),
            ("sources", f"{len(sources)}, in {summary['mixtures']} different mixtures" if sources else 0),
            ("domains", len(domains)),
            ("missing losses", summary["missing_cells"]),
            ("also has", ", ".join(summary["columns"]) or None),
            ("correlation of log N and log D", None if correlation is None else f"{correlation:+.3f}"),
        ]
    )
    _output.say()
    _show_scales(scales)
    if sources:
        _output.say()
        _output.show_table(
            ["source", "lowest", "mean", "highest", "runs without"],
            [[name, s["min"], s["mean"], s["max"], s["zeros"]] for name, s in sources.items()],
        )
    _output.say()
    _output.show_table(
        ["domain", "losses", "missing", "lowest", "highest"],
        [[name, d["observed"], d["missing"], d["min"], d["max"]] for name, d in domains.items()],
    )
    _output.say()


def _show_scales(scales: list[dict[str, Any]]) -> None:
    """Print how many runs there are of every model size (rows) and number of tokens (columns)."""
    counts = {(s["n_params"], s["n_tokens"]): s["runs"] for s in scales}
    params = list(dict.fromkeys(s["n_params"] for s in scales))
    tokens = sorted({s["n_tokens"] for s in scales}, key=lambda value: value or 0.0)
    if len(params) <= _MOST_SIZES and len(tokens) <= _MOST_TOKENS:
        header = ["n_params \\ n_tokens", *_named(tokens)]
        rows = [[counts.get((N, D)) for D in tokens] for N in params]
        _output.show_table(header, [[name, *row] for name, row in zip(_named(params), rows, strict=True)])
        return
    # Too many to list: neighbouring sizes share a row.
    group = -(-len(params) // _MOST_SIZES)
    rows = []
    for start in range(0, len(params), group):
        some = set(params[start : start + group])
        seen = sorted({D for N, D in counts if N in some}, key=lambda value: value or 0.0)
        runs = sum(count for (N, _), count in counts.items() if N in some)
        rows.append([_span(params[start : start + group]), _span(seen), runs])
    _output.show_table(["n_params", "n_tokens", "runs"], rows)


def _named(sizes: list[float | None]) -> list[str]:
    """Write sizes shortly, or in full where two would read the same."""
    short = ["one size" if size is None else _output.size(size) for size in sizes]
    if len(set(short)) == len(short):
        return short
    return ["one size" if size is None else f"{size:.10g}" for size in sizes]


def _span(sizes: list[float | None]) -> str:
    first, last = (_named([size])[0] for size in (sizes[0], sizes[-1]))
    return first if first == last else f"{first} to {last}"
