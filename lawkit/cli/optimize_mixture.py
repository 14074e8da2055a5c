"""``lawkit optimize-mixture``: the best mixture at a scale, with its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _output
from lawkit.cli._options import target_arguments, target_options

if TYPE_CHECKING:
    from lawkit.mixture import MixtureResult


@click.command("optimize-mixture")
@click.argument("fit", type=click.Path(path_type=Path))
@target_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(fit: Path, as_json: bool, **target: Any) -> None:
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
    arguments = target_arguments(**target)
    import lawkit

    fitted = lawkit.load_fit(fit)
    with _output.working("optimising", quiet=as_json):
        found = lawkit.optimize_mixture(fitted, **arguments)
    result = found.to_dict()
    _output.show_warnings(result.get("warnings", ()))
    if as_json:
        _output.emit_json(result)
        return
    where = (_output.size(arguments[name]) for name in ("n_params", "n_tokens"))
    _output.say("The best mixture at {} parameters and {} tokens\n".format(*where))
    _show(found)


def _show(found: MixtureResult) -> None:
    free = found.unconstrained_weights
    # Without a limit that binds the two columns would be the same.
    _output.show_table(
        ["source", "weight", "unconstrained"],
        [
            [name, f"{w:.4f}", f"{free[name]:.4f}" if found.active and free else None]
            for name, w in found.weights.items()
        ],
    )
    _output.say()
    _output.show_table(["domain", "predicted loss"], [[d, f"{v:.4f}"] for d, v in found.predicted.items()])
    _output.say()
    named = {"uniform": "at equal weights", "best_recorded": "at the best recorded mixture"}
    _output.show_pairs(
        [
            ("objective", f"{found.objective:.5f} nats per token"),
            *(
                [("  unconstrained", f"{found.unconstrained_objective:.5f}")]
                if found.unconstrained_objective is not None
                else []
            ),
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
    "global": "proven under the fitted law: no allowed mixture is better by more",
    "local": "a local optimum: nothing is proven of mixtures elsewhere",
}
