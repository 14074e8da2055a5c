"""The study for people, part by part, as each is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lawkit.cli import _output
from lawkit.cli._output import number, percent, size
from lawkit.studies._page import paragraph, title
from lawkit.studies.text_cpu.forecast import DECISION, FEW


def show(part: str, value: Mapping[str, Any]) -> None:
    """Print one part of what the study finds."""
    _PARTS[part](value)


def _runs(value: Mapping[str, Any]) -> None:
    runs, made = value["runs"], value["made"]
    title("The runs")
    sizes, budgets = (
        ", ".join(size(v) for v in np.unique(column)) for column in (runs.n_params, runs.n_tokens)
    )
    mixtures = len(np.unique(runs.weights, axis=0))
    paragraph(f"""{len(runs)} small models trained by torchtitan {made["torchtitan"]} on two cores, recorded in
        studies/text_cpu/runs.csv: {sizes} parameters, {budgets} tokens, {mixtures} mixtures of
        {len(runs.sources)} kinds of text ({", ".join(runs.sources)}), a loss for each kind on text held out.""")
    noise = value["seed_noise"]
    paragraph(f"""With another seed alone a loss differs by {percent(float(np.mean(list(noise.values()))))} (standard
        deviation, mean over the kinds).""")


def _holdout(value: Mapping[str, Any]) -> None:
    title("1. Small models predict a larger one")
    sizes = " and ".join(size(n) for n in value["fitted_sizes"])
    paragraph(f"""The {value["law"]} law, fitted to the {value["n_fitted"]} runs of {sizes} parameters alone, says what
        {value["n_runs"]} runs of {size(value["size"])} would give; they were trained, but not shown to it.""")
    _output.show_pairs(
        [
            ("error", f"{percent(value['mre'])} of the loss, mean over all"),
            (
                f"{percent(value['level'], 0)} bands",
                f"held {percent(value['coverage'], 0)} of the losses; half width {percent(value['half_width'], 1)}",
            ),
        ]
    )
    _output.say()
    _output.show_table(
        ["kind", "error", "rank correlation"],
        [[d, percent(v["mre"]), number(v["spearman"], 2)] for d, v in value["domains"].items()],
    )
    _output.show_warnings(value["warnings"])


def _decision(value: Mapping[str, Any]) -> None:
    title("2. Its best mixtures, when trained")
    mixtures = value["mixtures"]
    first = next(iter(mixtures.values()))
    paragraph(f"""The mixtures that this law says are best for {size(value["n_params"])} parameters and
        {size(value["n_tokens"])} tokens, for all kinds alike and for {" and ".join(FEW)} alone, beside equal shares and
        the proportions in which the texts exist: losses, mean over {first["n_runs"]} seeds.""")
    sources = list(first["weights"])
    _output.show_table(
        ["mixture", *first["loss"], *sources],
        [
            [
                name,
                *(f"{m['loss'][k]:.3f}±{m['se'][k]:.3f}" for k in m["loss"]),
                *(f"{m['weights'][s]:.2f}" for s in sources),
            ]
            for name, m in mixtures.items()
        ],
    )
    _output.say()
    for best, of in zip(DECISION[:2], first["loss"], strict=True):
        for other in DECISION[2:]:
            gain = mixtures[other]["loss"][of] - mixtures[best]["loss"][of]
            se = float(np.hypot(mixtures[other]["se"][of], mixtures[best]["se"][of]))
            verdict = (
                "better than" if gain > 2 * se else "worse than" if gain < -2 * se else "not told apart from"
            )
            paragraph(f"For {of}, {best} is {verdict} {other}: {gain:+.3f} nats, standard error {se:.3f}.")


def _optimum(value: Mapping[str, Any]) -> None:
    title("3. The best mixture where nobody has trained")
    paragraph(
        f"From all runs, for {size(value['n_params'])} parameters and {size(value['n_tokens'])} tokens:"
    )
    _output.show_table(["source", "weight"], [[s, f"{w:.3f}"] for s, w in value["weights"].items()])
    _output.say()
    _output.show_pairs(
        [
            ("loss", f"{value['objective']:.3f} by the law, mean over the kinds"),
            (
                "certificate",
                f"{value['certificate']} optimum of the law, gap at most {value['optimality_gap']:.0e} nats",
            ),
        ]
    )


def _proposal(value: Mapping[str, Any]) -> None:
    title("4. The runs that would teach most about it")
    paragraph(f"""What is not known of the law costs that mixture {number(value["expected_regret_now"], 3)} nats in
        expectation, if the law's form is right. Of {value["n_candidates"]} runs that take a minute or two here, these
        reduce it most:""")
    _output.show_table(
        ["run", "params", "tokens", "regret after", "mixture"],
        [
            [
                str(i), size(run["n_params"]), size(run["n_tokens"]), number(run["regret_after"], 3),
                " ".join(f"{name}={weight:.2f}" for name, weight in run["weights"].items() if weight > 0.005),
            ]
            for i, run in enumerate(value["runs"], 1)
        ],
    )  # fmt: skip


def _live(value: Mapping[str, Any]) -> None:
    title("5. The first of them, trained here and now")
    losses = value["losses"]
    if "reason" in value:
        paragraph(f"""The study's texts are not to be had here ({value["reason"]}). In their place a run of this
            size was trained on {value["texts"]} text, in equal shares; the forecast is about other texts, so there is
            nothing to compare.""")
        _output.show_table(["kind", "loss"], [[d, f"{loss:.3f}"] for d, loss in losses.items()])
        return
    bands = value["forecast"]
    paragraph(f"Trained on {value['texts']} texts.")
    _output.show_table(
        ["kind", "forecast", "90% band", "measured", "off by", "in band"],
        [
            [
                d, f"{b['mean']:.3f}", f"{b['lower']:.3f} to {b['upper']:.3f}", f"{losses[d]:.3f}",
                percent(abs(b["mean"] / losses[d] - 1)), b["lower"] <= losses[d] <= b["upper"],
            ]
            for d, b in bands.items()
        ],
    )  # fmt: skip
    off = np.mean([abs(b["mean"] / losses[d] - 1) for d, b in bands.items()])
    inside = sum(b["lower"] <= losses[d] <= b["upper"] for d, b in bands.items())
    _output.say()
    paragraph(f"Off by {percent(float(off))} on average; {inside} of {len(bands)} losses in their bands.")


_PARTS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "runs": _runs,
    "holdout": _holdout,
    "decision": _decision,
    "optimum": _optimum,
    "proposal": _proposal,
    "live": _live,
}
