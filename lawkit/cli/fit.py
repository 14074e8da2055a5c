"""``lawkit fit``: a law fitted to a runs table, saved as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _output, _types

if TYPE_CHECKING:
    from lawkit.fitting.draws import Noise


@click.command("fit")
@click.argument("runs", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder to save the fit in."
)
@click.option(
    "--law",
    "law",
    metavar="NAME|auto",
    help="Law to fit (see lawkit laws), by default the one the columns allow; auto compares all that they allow.",
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
@click.option(
    "--posterior",
    type=click.Choice(["none", "laplace", "nuts"]),
    default="none",
    show_default=True,
    help="Draw from the posterior: by Laplace's approximation (fast), or by NUTS (needs lawkit[bayes]).",
)
@click.option(
    "--noise",
    type=click.Choice(["constant", "size", "mixture"]),
    default="constant",
    show_default=True,
    help="What the posterior's noise depends on: nothing but the domain, 1/n_params, or the weights.",
)
@click.option(
    "--pool",
    is_flag=True,
    help="Let the domains of a posterior share what their parameters have in common (see the printed check).",
)
@click.option(
    "--prior-predictive",
    "prior_check",
    is_flag=True,
    help="Say what the priors, which are relative to the lowest loss, expect of these runs.",
)
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Draw by N refits to resampled runs instead of a posterior.",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Save figures of the fit as PNG and SVG.",
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
    posterior: str,
    noise: Noise,
    pool: bool,
    prior_check: bool,
    bootstrap: int,
    figures: Path | None,
    as_json: bool,
) -> None:
    """Fit a scaling law to a runs table.

    RUNS is the table (see lawkit runs); the fit is saved as a folder.

    Before the fit on all runs, the same law is fitted without the largest scale and
    judged on it: the holdout error says how far to trust an extrapolation. Bands are
    widened to the errors of earlier forecasts; the share of the held-out losses that
    they covered is printed. With --posterior or --bootstrap the parameters have
    intervals, and so has the best mixture.

    \b
    Examples:
      lawkit fit runs.csv -o fit
      lawkit fit runs.csv -o fit --law auto
      lawkit fit runs.csv -o fit --posterior laplace --figures figures
      lawkit fit runs.csv -o fit --law chinchilla --domain wiki --json
      lawkit fit runs.csv -o fit --formula 'E + A/N**alpha + B/D**beta'
    """
    if law is not None and formula is not None:
        raise click.UsageError("--law and --formula exclude each other: give one of them")
    import lawkit
    from lawkit.errors import FitError
    from lawkit.fitting.sampling import check_draws
    from lawkit.fitting.storage import check_target

    try:
        check_draws(posterior, bootstrap, noise, pool)
    except FitError as error:
        raise click.UsageError(str(error)) from None
    check_target(out)
    table = lawkit.read_runs(runs)
    # The bar of a sampler and a spinner would write over each other.
    with _output.working("fitting", quiet=as_json or posterior == "nuts"):
        fit = lawkit.fit(
            table,
            law=law,
            formula=formula,
            domains=list(domains) or None,
            holdout=holdout,
            delta=delta,
            min_weight=min_weight,
            seed=seed,
            posterior=posterior,
            bootstrap=bootstrap,
            noise=noise,
            pool=pool,
            progress=not as_json,
        )
        fit.save(out)
        result = fit.to_dict()
        if prior_check:
            from lawkit.bayes.prior_check import prior_check as check

            result["prior_predictive"] = check(fit, seed=seed)
    _output.show_warnings(result["warnings"])
    if figures is not None:
        from lawkit.report import fit_figure, residual_figure, save

        for name, figure in (("fit", fit_figure(fit)), ("residuals", residual_figure(fit))):
            save(figure, figures, name)
    if as_json:
        _output.emit_json(result)
    else:
        _show(result)
        _output.note(f"saved in {out}" + (f", figures in {figures}" if figures else ""))
    if fit.diagnostics.get("interrupted"):
        click.get_current_context().exit(130)


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
            f"{_output.percent(holdout['coverage_90'], 0)} lay in the 90% bands "
            f"({_output.percent(holdout['coverage_90_plain'], 0)} before widening)"
            + (", both of a fit without draws." if result["draws"] is not None else ".")
        )
    _output.say()
    _show_parameters(result)
    if result["draws"] is not None:
        _show_draws(result)
    if (found := result.get("prior_predictive")) is not None:
        _show_prior(found)
    if (scores := result["diagnostics"].get("selection")) is not None:
        _show_selection(scores)


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


_DRAWN = {"laplace": "Laplace's approximation", "nuts": "NUTS", "bootstrap": "Bootstrap"}
_SAID = {
    "max_rhat": "largest R-hat",
    "min_ess_bulk": "least effective draws (bulk)",
    "min_ess_tail": "least effective draws (tail)",
    "divergences": "divergences",
    "pareto_k": "Pareto k of the importance weights",
    "training_runs": "training runs resampled",
    "failed": "refits that failed",
}


def _show_draws(result: dict[str, Any]) -> None:
    """Scalar parameters with their spread over the draws, and how the draws came about."""
    draws = result["draws"]
    _output.say(f"\n{_DRAWN[draws['kind']]}, {draws['count']:,} draws: mean and, in brackets, 90% interval\n")
    rows = []
    for domain, found in result["domains"].items():
        cells = {
            name: f"{_output.number(v['mean'])} [{_output.number(v['lower'], 3)}, {_output.number(v['upper'], 3)}]"
            for name, v in found["posterior"].items()
            if not isinstance(v["mean"], list)
        }
        rows.append([domain, *cells.values()])
    if rows and len(rows[0]) > 1:
        _output.show_table(["domain", *cells], rows)
        _output.say()
    diagnostics = draws["diagnostics"]
    _output.show_pairs([(said, diagnostics[name]) for name, said in _SAID.items() if name in diagnostics])
    if (pooling := diagnostics.get("pooling")) is not None:
        _show_pooling(pooling)


def _show_pooling(pooling: dict[str, Any]) -> None:
    covered = pooling["coverage"]
    _output.say(
        f"\nParameters are pooled over the domains. Of the true losses of {covered['worlds']} tables simulated from "
        "this fit, its 90% bands held\n"
    )
    _output.show_table(
        ["", "inside the scales", "beyond them"],
        [
            [
                what,
                *(
                    None
                    if (found := covered[what][where]) is None
                    else _output.percent(found["parameter"], 0)
                    for where in ("inside", "beyond")
                ),
            ]
            for what in ("pooled", "unpooled")
        ],
    )


def _show_prior(found: dict[str, Any]) -> None:
    _output.say("\nWhat the priors expect of these runs, given the lowest loss of each domain\n")
    _output.show_table(
        ["domain", "observed", "expected (90%)", "inside"],
        [
            [
                domain,
                f"{v['observed'][0]:.3f} to {v['observed'][1]:.3f}",
                f"{v['expected'][0]:.3f} to {v['expected'][1]:.3f}",
                _output.percent(v["inside_90"], 0),
            ]
            for domain, v in found.items()
        ],
    )


def _show_selection(scores: list[dict[str, Any]]) -> None:
    _output.say("\nLaws by the error expected one e-fold beyond the runs\n")
    _output.show_table(
        ["law", "expected error", "forecasts", "parameters", "not judged because"],
        [
            [
                s["name"],
                _output.percent(s.get("score")),
                _output.percent(s.get("holdout_mre")),
                None if s["n_parameters"] is None else str(s["n_parameters"]),
                s["reason"],
            ]
            for s in scores
        ],
    )
