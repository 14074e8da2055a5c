"""``lawkit allocate``: a compute budget split between model size and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lawkit.cli import _constraints, _output, _types
from lawkit.cli._options import limit_arguments, limit_options


@click.command("allocate")
@click.argument("fit", type=click.Path(path_type=Path))
@click.option(
    "--flops",
    type=_types.SIZE,
    required=True,
    help="The budget: 6 x n_params x n_tokens, and what generating text costs.",
)
@limit_options
@_constraints.constraint_options
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    help="Draws of the parameters for the intervals.  [default: 200 of a fit with draws, else none]",
)
@click.option(
    "--interval",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="Nominal coverage of the intervals.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    fit: Path,
    flops: float,
    groups: tuple[tuple[str, dict[str, Any]], ...],
    constraints: Path | None,
    draws: int | None,
    interval: float,
    as_json: bool,
    **limits: Any,
) -> None:
    """Split a compute budget between model size and tokens.

    FIT is a folder saved by lawkit fit, of a law in which the loss falls with both. The
    model and the tokens are those of the least predicted loss; where the law depends on
    the mixture, so is the mixture. A file of --constraints may say what generating a source
    costs (generation: {cost: {hq: 2e10}}, flops per token): the budget then pays for that too, and
    the prices say what one more flop is worth either way. Intervals are over the draws of a fit made with
    --posterior or --bootstrap, the mixture being held.

    \b
    Examples:
      lawkit allocate fit --flops 1e23
      lawkit allocate fit --flops 1e23 --bound 'hq<=.5' --json
      lawkit allocate fit --flops 1e23 --constraints limits.yaml
    """
    arguments = _constraints.drop_default_epochs(limit_arguments(**limits))
    arguments |= _constraints.constraint_arguments(groups, constraints)
    import lawkit

    fitted = lawkit.load_fit(fit)
    with _output.working("allocating", quiet=as_json):
        found = lawkit.allocate(fitted, flops, draws=draws, interval=interval, **arguments)
    _output.show_warnings(found.warnings)
    if as_json:
        _output.emit_json(found.to_dict())
        return
    _output.say(f"The best run for {_output.size(flops)} flops\n")
    rows = [
        ("n_params", found.n_params, _output.size),
        ("n_tokens", found.n_tokens, _output.size),
        ("objective", found.objective, lambda v: f"{v:.4f}"),
    ]
    _output.show_table(
        ["", "best", f"{100 * interval:g}% interval"],
        [
            [name, say(value), " to ".join(map(say, found.intervals[name])) if found.intervals else None]
            for name, value, say in rows
        ],
    )
    _output.say()
    pairs = [("tokens per parameter", f"{found.n_tokens / found.n_params:.4g}")]
    if found.regret is not None:
        pairs.append(("loss given up by this split, on average", f"{found.regret:.2g} nats per token"))
    pairs.append(("nats per 1e18 flops more of training", _output.number(found.price_of_training)))
    if found.price_of_generation is not None:
        share = found.generation_flops / found.flops
        pairs += [
            ("  of generation", _output.number(found.price_of_generation)),
            (
                "spent on generation",
                f"{_output.size(found.generation_flops)} flops, {_output.percent(share)}",
            ),
        ]
    _output.show_pairs(pairs)
    if found.weights is not None:
        _output.say()
        _output.show_table(["source", "weight"], [[s, f"{w:.4f}"] for s, w in found.weights.items()])
    limits_that_bind = [a for a in found.active if a.kind != "generation"]
    if limits_that_bind:
        _output.say()
        _output.show_table(
            ["binding limit", "nats per .01 more", "nats per unit more", "unit"],
            [[str(a), a.price / 100, a.price_per_unit, a.unit] for a in limits_that_bind],
        )
