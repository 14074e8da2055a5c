"""``lawkit optimize-mixture``: the best mixture at a scale, with its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _output, _types

if TYPE_CHECKING:
    from lawkit.mixture import MixtureResult


@click.command("optimize-mixture")
@click.argument("fit", type=click.Path(path_type=Path))
@click.option(
    "--n-params", type=_types.SIZE, required=True, help="Non-embedding parameters of the target run."
)
@click.option("--n-tokens", type=_types.SIZE, required=True, help="Tokens of the target run.")
@click.option(
    "--bound",
    "bounds",
    type=_types.BOUND,
    multiple=True,
    metavar="'hq<=.5'",
    help="Bound on a weight; may be repeated.",
)
@click.option(
    "--available",
    type=_types.AMOUNT,
    multiple=True,
    metavar="hq=2e10",
    help="Unique tokens that exist of a source; may be repeated.",
)
@click.option(
    "--max-epochs",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help="How often the tokens of --available may be repeated.",
)
@click.option(
    "--target",
    type=_types.IMPORTANCE,
    multiple=True,
    metavar="D=weight",
    help="Weight of a domain in the objective; may be repeated.  [default: all alike]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    fit: Path,
    n_params: float,
    n_tokens: float,
    bounds: tuple[tuple[str, float, float], ...],
    available: tuple[tuple[str, float], ...],
    max_epochs: float,
    target: tuple[tuple[str, float], ...],
    as_json: bool,
) -> None:
    """Find the best mixture at a target scale.

    FIT is a folder saved by lawkit fit. The best mixture is the one with the lowest
    predicted loss, averaged over the domains by --target. The optimality gap is an upper bound on how
    much a better mixture could still gain under the law; the optimum without your
    constraints is printed beside.

    \b
    Examples:
      lawkit optimize-mixture fit --n-params 7B --n-tokens 1T
      lawkit optimize-mixture fit --n-params 7B --n-tokens 1T --bound 'hq<=.5' --available hq=20B
    """
    arguments: dict[str, Any] = {
        "bounds": _types.merge_bounds(bounds) or None,
        "available": _types.merge_unique(available, "--available") or None,
        "target": _types.merge_unique(target, "--target") or None,
    }
    import lawkit

    fitted = lawkit.load_fit(fit)
    with _output.working("optimising", quiet=as_json):
        found = lawkit.optimize_mixture(
            fitted, n_params=n_params, n_tokens=n_tokens, max_epochs=max_epochs, **arguments
        )
    result = found.to_dict()
    _output.show_warnings(result.get("warnings", ()))
    if as_json:
        _output.emit_json(result)
        return
    _output.say(
        f"The best mixture at {_output.size(n_params)} parameters and {_output.size(n_tokens)} tokens\n"
    )
    _show(found)


def _show(found: MixtureResult) -> None:
    free = found.unconstrained_weights
    _output.show_table(
        ["source", "weight", "unconstrained"],
        [[name, f"{weight:.4f}", f"{free[name]:.4f}"] for name, weight in found.weights.items()],
    )
    _output.say()
    _output.show_table(["domain", "predicted loss"], [[d, f"{v:.4f}"] for d, v in found.predicted.items()])
    _output.say()
    named = {"uniform": "at equal weights", "best_recorded": "at the best recorded mixture"}
    _output.show_pairs(
        [
            ("objective", f"{found.objective:.5f} nats per token"),
            ("  unconstrained", f"{found.unconstrained_objective:.5f}"),
            *((f"  {named.get(name, name)}", f"{value:.5f}") for name, value in found.baselines.items()),
            ("optimality gap", f"{found.optimality_gap:.1e} nats ({_CERTIFIED[found.certificate]})"),
        ]
    )
    if found.active:
        _output.say()
        _output.show_table(
            ["binding limit", "nats per .01 more", "nats per 1B more tokens"],
            [[str(a), a.price / 100, a.price_per_billion_tokens] for a in found.active],
        )


_CERTIFIED = {
    "global": "proven: no allowed mixture is better by more",
    "local": "a local optimum: nothing is proven of mixtures elsewhere",
}
