"""``lawkit laws``: the zoo, or one law of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _output

if TYPE_CHECKING:
    from lawkit.laws import Law


@click.command("laws")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(name: str | None, as_json: bool) -> None:
    """List the laws, or show one of them.

    Of one law you see the formula, the parameters, the shape and the reference. K is
    the number of sources. A law that is convex in the mixture has an optimal mixture
    that can be certified. Laws of other packages are listed too.

    \b
    Examples:
      lawkit laws
      lawkit laws transfer
    """
    from lawkit import laws

    if name is not None:
        _show(_describe(laws.get(name), whole=True), as_json)
        return
    found = [_describe(laws.get(each)) for each in laws.names()]
    if as_json:
        _output.emit_json({"laws": found})
        return
    _output.show_table(
        ["law", "inputs", "parameters", "shape", "reference"],
        [[d["name"], ", ".join(d["inputs"]), d["n_parameters"], _shape(d), d["reference"]] for d in found],
    )


def _describe(law: Law, whole: bool = False) -> dict[str, Any]:
    scalars = sum(not p.per_source for p in law.parameters)
    vectors = len(law.parameters) - scalars
    terms = [f"{vectors if vectors > 1 else ''}K"] * bool(vectors) + [str(scalars)] * bool(scalars)
    found: dict[str, Any] = {
        "name": law.name,
        "title": law.title,
        "inputs": [c for c in ("n_params", "n_tokens", "unique", "weights") if c in law.columns],
        "n_parameters": " + ".join(terms) + (" for all domains together" if law.coupled else ""),
        "convex_in_weights": law.convex_in_weights,
        "needs_own_source": law.needs_own_source,
        "reference": law.citation,
    }
    if whole:
        found["formula"] = law.text()
        found["latex"] = law.latex()
        found["description"] = type(law).__doc__ or ""
        found["objective"] = law.objective.kind
        found["parameters"] = [
            {"name": p.name, "support": p.support, "per_source": p.per_source, "unit": p.unit}
            for p in law.parameters
        ]
    return found


def _shape(described: dict[str, Any]) -> str:
    if "weights" not in described["inputs"]:
        return "no mixture"
    return "convex" if described["convex_in_weights"] else "not convex"


def _show(described: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _output.emit_json(described)
        return
    _output.say(f"{described['name']}: {described['title']}")
    _output.say(f"\n  {described['formula']}\n")
    pairs = [
        ("inputs", ", ".join(described["inputs"])),
        ("parameters", described["n_parameters"]),
        ("shape in the mixture", _shape(described)),
        ("fitted by", described["objective"]),
        ("reference", described["reference"]),
    ]
    if described["needs_own_source"]:
        pairs.append(("needs", "every domain to be one of the sources"))
    _output.show_pairs(pairs)
    _output.say()
    _output.show_table(
        ["parameter", "values", "one for each", "unit"],
        [
            [p["name"], p["support"], "source" if p["per_source"] else "domain", p["unit"] or "-"]
            for p in described["parameters"]
        ],
    )
