"""``lawkit optimize-mixture``: the best mixture at a scale, with its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lawkit.cli import _output, _types


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
    """Find the mixture with the lowest predicted loss at the target scale.

    FIT is a folder saved by lawkit fit. The optimality gap is an upper bound on how
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
    _show(result, n_params, n_tokens)


def _show(result: dict[str, Any], n_params: float, n_tokens: float) -> None:
    free = result["unconstrained"]
    _output.say(
        f"The best mixture at {_output.size(n_params)} parameters and {_output.size(n_tokens)} tokens\n"
    )
    _output.show_table(
        ["source", "weight", "unconstrained"],
        [
            [name, f"{weight:.4f}", f"{free['weights'][name]:.4f}"]
            for name, weight in result["weights"].items()
        ],
    )
    _output.say()
    _output.show_table(
        ["domain", "predicted loss"], [[d, f"{v:.4f}"] for d, v in result["predicted"].items()]
    )
    _output.say()
    pairs = [
        ("objective", f"{result['objective']:.5f} nats per token"),
        ("unconstrained", f"{free['objective']:.5f}"),
        ("optimality gap", f"at most {result['optimality_gap']:.1e} nats ({result['certificate']} optimum)"),
        ("active constraints", ", ".join(map(str, result["active_constraints"])) or "none"),
    ]
    prices = {name: price for name, price in result["shadow_prices"].items() if price}
    if prices:
        pairs.append(("shadow prices", ", ".join(f"{n} {_output.number(p)}" for n, p in prices.items())))
    _output.show_pairs(pairs)
