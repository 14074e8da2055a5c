"""``lawkit predict``: losses at new sizes and mixtures, with bands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _output, _types

if TYPE_CHECKING:
    from lawkit.fitting import Fit


@click.command("predict")
@click.argument("fit", type=click.Path(path_type=Path))
@click.option(
    "--at", "runs", type=click.Path(path_type=Path), metavar="RUNS", help="Predict the rows of this table."
)
@click.option("--n-params", type=_types.SIZE, help="Non-embedding parameters of one point.")
@click.option("--n-tokens", type=_types.SIZE, help="Training tokens of one point.")
@click.option("--mixture", type=_types.MIXTURE, metavar="a=.7,b=.3", help="Mixture of one point.")
@click.option(
    "--interval",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="Nominal coverage of the bands.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Write the rows of RUNS with pred_, lower_ and upper_<domain> (.csv, .parquet, .jsonl).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    fit: Path,
    runs: Path | None,
    n_params: float | None,
    n_tokens: float | None,
    mixture: dict[str, float] | None,
    interval: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Predict losses at new sizes and mixtures.

    FIT is a folder saved by lawkit fit. Name either a table with --at, or one point
    with --n-params, --n-tokens and --mixture. Where the table has losses, the errors
    of the predictions are printed.

    \b
    Examples:
      lawkit predict fit --n-params 7B --n-tokens 1T --mixture web=.7,hq=.3
      lawkit predict fit --at larger_runs.csv -o predictions.csv
    """
    point = {"--n-params": n_params, "--n-tokens": n_tokens, "--mixture": mixture}
    given = [option for option, value in point.items() if value is not None]
    if runs is not None and given:
        raise click.UsageError(f"--at and {given[0]} exclude each other: name a table or one point")
    if runs is None and not given:
        raise click.UsageError(
            "name a table with --at, or one point with --n-params, --n-tokens and --mixture"
        )
    if out is not None and runs is None:
        raise click.UsageError("-o writes the rows of a table: name it with --at")
    import lawkit

    fitted = lawkit.load_fit(fit)
    if runs is None:
        _at_point(fitted, n_params, n_tokens, mixture, interval, as_json)
    else:
        _at_table(fitted, runs, interval, out, as_json)


def _at_point(
    fit: Fit,
    n_params: float | None,
    n_tokens: float | None,
    mixture: dict[str, float] | None,
    interval: float,
    as_json: bool,
) -> None:
    import numpy as np

    from lawkit.fitting.scoring import predict_runs
    from lawkit.runs import Runs

    needed = fit.law.columns
    for option, column, value in (("--n-params", "n_params", n_params), ("--n-tokens", "n_tokens", n_tokens)):
        if value is None and column in needed and getattr(fit.runs, column) is not None:
            raise click.UsageError(f"{option} is missing: law {fit.law.name!r} needs it")
    if mixture is None and "weights" in needed:
        raise click.UsageError(f"--mixture is missing: law {fit.law.name!r} needs it")
    names = tuple(mixture or ())
    one = Runs(
        sources=names,
        domains=(),
        n_params=None if n_params is None else np.array([n_params]),
        n_tokens=None if n_tokens is None else np.array([n_tokens]),
        weights=np.array([[(mixture or {})[name] for name in names]]),
        losses=np.zeros((1, 0)),
        path="the point asked for",
    )
    prediction, warnings = predict_runs(fit, one, interval)
    assert prediction.lower is not None
    assert prediction.upper is not None
    result = {
        "law": fit.law.name,
        "n_params": n_params,
        "n_tokens": n_tokens,
        "weights": mixture,
        "losses": {
            d: {"mean": m, "lower": low, "upper": high}
            for d, m, low, high in zip(
                fit.domains,
                prediction.mean[0].tolist(),
                prediction.lower[0].tolist(),
                prediction.upper[0].tolist(),
                strict=True,
            )
        },
        "interval": interval,
        "interval_kind": prediction.kind,
        "warnings": warnings,
    }
    _output.show_warnings(warnings)
    if as_json:
        _output.emit_json(result)
        return
    _output.show_table(
        ["domain", "loss", "lower", "upper"],
        [[d, *(f"{v[key]:.4f}" for key in ("mean", "lower", "upper"))] for d, v in result["losses"].items()],
    )
    _output.say(f"\n{_output.percent(interval, 0)} band: {prediction.kind}.")


def _at_table(fit: Fit, path: Path, interval: float, out: Path | None, as_json: bool) -> None:
    from lawkit.fitting.scoring import predict_runs, score
    from lawkit.runs import read_runs

    runs = read_runs(path, require_losses=False)
    prediction, warnings = predict_runs(fit, runs, interval)
    warnings = [*runs.warnings, *warnings]
    columns = runs.columns()
    for prefix, table in (
        ("pred", prediction.mean),
        ("lower", prediction.lower),
        ("upper", prediction.upper),
    ):
        assert table is not None
        columns |= {f"{prefix}_{d}": table[:, i].tolist() for i, d in enumerate(fit.domains)}
    if out is not None:
        from lawkit.io._write import write_table

        write_table(columns, out)
    found = score(fit, runs, prediction)
    result: dict[str, Any] = {
        "law": fit.law.name,
        "n_runs": len(runs),
        **(found or {"mre": None, "mae": None, "rmse": None, "coverage": None, "domains": {}}),
        "interval": interval,
        "interval_kind": prediction.kind,
        "predictions": {d: prediction.mean[:, i] for i, d in enumerate(fit.domains)},
        "warnings": warnings,
    }
    _output.show_warnings(warnings)
    if as_json:
        _output.emit_json(result)
        return
    if found is not None:
        rows = [_errors(name, values) for name, values in found["domains"].items()]
        if len(rows) > 1:
            rows.append(_errors("all", found))
        _output.show_table(["domain", "relative error", "absolute", "rmse", "spearman"], rows)
        _output.say(
            f"\n{_output.percent(found['coverage'], 0)} of the losses lie in the {100 * interval:g}% band."
        )
        _output.say(f"Band: {prediction.kind}.")
    elif out is None:
        shown = [f"pred_{d}" for d in fit.domains]
        _output.show_table(
            ["row", *fit.domains],
            [[str(r), *(f"{columns[s][i]:.4f}" for s in shown)] for i, r in enumerate(runs.rows)],
        )
    if out is not None:
        _output.note(f"{len(runs)} rows written to {out}")


def _errors(name: str, values: dict[str, Any]) -> list[Any]:
    rank = values.get("spearman")
    return [
        name,
        _output.percent(values["mre"]),
        _output.number(values["mae"], 3),
        _output.number(values["rmse"], 3),
        None if rank is None else f"{rank:.3f}",
    ]
