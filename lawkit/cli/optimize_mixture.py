"""``lawkit optimize-mixture``: the best mixture at a scale, with its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _constraints, _output, _types
from lawkit.cli._options import target_arguments, target_options

if TYPE_CHECKING:
    from lawkit.fitting import Fit
    from lawkit.mixture import MixturePath, MixtureResult
    from lawkit.mixture.result import Against


@click.command("optimize-mixture")
@click.argument("fit", type=click.Path(path_type=Path))
@target_options
@_constraints.constraint_options
@click.option(
    "--risk",
    metavar="mean|cvar:.9|quantile:.9",
    help="What is minimised over draws of the parameters, which share the mixture.  [default: the loss under the fit's "
    "own parameters]",
)
@click.option(
    "--path",
    type=_constraints.PATH,
    metavar="n-tokens=10B:20T",
    help="How the best mixture moves with a size (or n-params=1B:70B).",
)
@click.option(
    "--export",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the mixture to a file, JSON or YAML by its name.",
)
@click.option(
    "--format",
    "export_format",
    type=click.Choice(["json", "yaml", "torchtitan", "olmo-core"]),
    help="Of the exported file, where its name does not say it.",
)
@click.option(
    "--baseline",
    type=_types.MIXTURE,
    metavar="web=.7,hq=.3",
    help="A mixture to compare with; with draws, how probable it is that it is worse.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    metavar="N",
    help="Draws of the parameters that the intervals rest on; 0 for none.  [default: 200 of the fit's posterior or "
    "bootstrap; without one, none]",
)
@click.option(
    "--interval",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="Nominal coverage of the intervals.",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Save figures of the weights by scale and of the penalty around the optimum, as PNG and SVG.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    fit: Path,
    groups: tuple[tuple[str, dict[str, Any]], ...],
    constraints: Path | None,
    risk: str | None,
    path: tuple[str, float, float] | None,
    export: Path | None,
    export_format: str | None,
    baseline: dict[str, float] | None,
    draws: int | None,
    interval: float,
    figures: Path | None,
    as_json: bool,
    **target: Any,
) -> None:
    """Find the best mixture at a target scale.

    FIT is a folder saved by lawkit fit. The best mixture is the one with the lowest
    predicted loss, averaged over the domains by --target. The optimality gap is an upper bound on how
    much a better mixture could still gain under the law; the optimum without your
    constraints is printed beside.

    With draws of a posterior or a bootstrap (lawkit fit --posterior or --bootstrap; --draws 200 makes do without),
    each weight has an interval. All of them at once hold the best mixture that a fit to runs like these
    would have led to, in 90% of cases.

    \b
    Examples:
      lawkit optimize-mixture fit --n-params 7B --n-tokens 1T
      lawkit optimize-mixture fit --n-params 7B --n-tokens 1T --bound 'hq<=.5' --available hq=20B
      lawkit optimize-mixture fit --n-params 7B --n-tokens 1T --draws 500 --baseline web=.7,hq=.3
      lawkit optimize-mixture fit --n-params 7B --n-tokens 1T --group 'hq+qa<=.5' --constraints limits.yaml
      lawkit optimize-mixture fit --n-params 7B --n-tokens 1T --risk cvar:.9 --export mixture.yaml
      lawkit optimize-mixture fit --n-params 7B --n-tokens 1T --path n-tokens=10B:20T
    """
    arguments = _constraints.drop_default_epochs(target_arguments(**target))
    arguments |= _constraints.constraint_arguments(groups, constraints) | {"risk": risk}
    if export_format is not None and export is None:
        raise click.UsageError("--format is that of the file of --export: name one")
    import lawkit
    from lawkit.mixture import export_mixture, mixture_path
    from lawkit.mixture.export import export_format as check_format

    if export is not None:
        check_format(export, export_format)
    fitted = lawkit.load_fit(fit)
    with _output.working("optimising", quiet=as_json):
        found = lawkit.optimize_mixture(
            fitted, **arguments, baseline=baseline, draws=draws, interval=interval
        )
    result = found.to_dict()
    _output.show_warnings(result.get("warnings", ()))
    if export is not None:
        export_mixture(found.weights, export, export_format, epochs=found.epochs)
        _output.note(f"mixture in {export}")
    along = None
    if path is not None:
        others = {k: v for k, v in arguments.items() if k != path[0]}
        with _output.working("following the path", quiet=as_json):
            along = mixture_path(fitted, *path, **others, draws=draws, interval=interval)
        result["path"] = along.to_dict()
    if figures is not None:
        _draw(fitted, found, along, interval, arguments, figures)
    if as_json:
        _output.emit_json(result)
        return
    where = (_output.size(arguments[name]) for name in ("n_params", "n_tokens"))
    _output.say("The best mixture at {} parameters and {} tokens\n".format(*where))
    _show(found)
    if along is not None:
        _show_path(along)


def _show_path(along: MixturePath) -> None:
    """One row a size: the weights, the objective and what binds."""
    sources = list(along.results[0].weights)
    _output.say(f"\nThe best mixture against {along.vary}\n")
    _output.show_table(
        [along.vary, *sources, "objective", "binding limits"],
        [
            [_output.size(size), *[f"{w:.4f}" for w in r.weights.values()], f"{r.objective:.5f}", _bound(r)]
            for size, r in zip(along.sizes.tolist(), along.results, strict=True)
        ],
    )


def _bound(result: MixtureResult) -> str | None:
    return ", ".join(dict.fromkeys(a.name for a in result.active)) or None


def _draw(
    fit: Fit,
    found: MixtureResult,
    along: MixturePath | None,
    interval: float,
    arguments: dict[str, Any],
    folder: Path,
) -> None:
    """Save the figures; that of the weights by scale where the runs have more than one scale."""
    from lawkit.fitting.bands import compute
    from lawkit.report import mixture_path_figure, penalty_figure, save, weights_by_scale_figure

    with _output.working("drawing"):
        made = {"penalty": penalty_figure(fit, found, **arguments)}
        if compute(fit.runs) is not None:
            limits = {k: v for k, v in arguments.items() if k not in ("n_params", "n_tokens")}
            made["weights_by_scale"] = weights_by_scale_figure(fit, **limits)
        if along is not None:
            made["path"] = mixture_path_figure(fit, along, interval=interval)
        for name, figure in made.items():
            save(figure, folder, name)
    _output.note(f"figures in {folder}")


def _show(found: MixtureResult) -> None:
    free, unsure = found.unconstrained_weights, found.uncertainty
    within = "" if unsure is None else f"{100 * unsure.interval:g}% interval"
    # Without a limit that binds the columns of weights would be the same. Columns without entries are left out.
    _output.show_table(
        ["source", "weight", within, "unconstrained"],
        [
            [
                name,
                f"{w:.4f}",
                None if unsure is None else _between(unsure.weights[name], 4),
                f"{free[name]:.4f}" if found.active and free else None,
            ]
            for name, w in found.weights.items()
        ],
    )
    _output.say()
    _output.show_table(["domain", "predicted loss"], [[d, f"{v:.4f}"] for d, v in found.predicted.items()])
    _output.say()
    measured = "" if found.risk == "point" else f" ({found.risk} over draws)"
    pairs = [("objective", f"{found.objective:.5f} nats per token{measured}")]
    if unsure is not None:
        pairs += [
            (f"  {within}", _between(unsure.objective, 5)),
            (
                "  given up to each draw's own best",
                f"{unsure.regret_mean:.5f} on average, {unsure.regret_upper:.5f} or less in "
                f"{100 * unsure.interval:g}% of draws",
            ),
        ]
    if found.unconstrained_objective is not None:
        pairs.append(("  unconstrained", f"{found.unconstrained_objective:.5f}"))
    named = {
        "uniform": "at equal weights",
        "best_recorded": "at the best recorded mixture",
        "baseline": "at the baseline",
    }
    for name, value in found.baselines.items():
        told = "" if unsure is None else _against(unsure.against[name])
        pairs.append((f"  {named.get(name, name)}", f"{value:.5f}{told}"))
    pairs.append(("optimality gap", f"{found.optimality_gap:.1e} nats ({_CERTIFIED[found.certificate]})"))
    _output.show_pairs(pairs)
    if found.active:
        _output.say()
        _output.show_table(
            ["binding limit", "nats per .01 more", "nats per unit more", "unit"],
            [[str(a), a.price / 100, a.price_per_unit, a.unit] for a in found.active],
        )
    if unsure is not None:
        _output.say()
        _output.say(
            f"Intervals: {len(unsure.optima)} {_DRAWN[unsure.kind]}, each with its own best mixture; those of the "
            "weights hold all at once, for other runs like these too."
        )


def _between(pair: tuple[float, float], digits: int) -> str:
    return f"{pair[0]:.{digits}f} .. {pair[1]:.{digits}f}"


def _against(other: Against) -> str:
    low, _, high = other.difference
    return f" (worse with probability {other.probability_worse:.3g}, by {low:.5f} .. {high:.5f})"


_DRAWN = {
    "laplace": "draws of the posterior (Laplace)",
    "nuts": "draws of the posterior (NUTS)",
    "bootstrap": "bootstrap replicates",
    "normal": "draws of a normal around the fit (fit with --posterior for better ones)",
}

_CERTIFIED = {
    "global": "proven under the fitted law: no allowed mixture is better by more",
    "local": "a local optimum: nothing is proven of mixtures elsewhere",
}
