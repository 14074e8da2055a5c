"""The study for people: short tables, and beside each figure whether it is published or computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lawkit.cli import _output
from lawkit.cli._output import number, percent, size
from lawkit.studies._page import paragraph, title
from lawkit.studies.kang2025.study import BASELINE


def show(result: Mapping[str, Any]) -> None:
    """Print all parts of the result of `lawkit.studies.kang2025.study.run`."""
    title("Synthetic data in pre-training")
    paragraph(f"""PUBLISHED ({result["citation"]}): the coefficients of ten fitted curves, loss against tokens
        and against parameters, and the errors the paper reports. The losses themselves are not published.""")
    paragraph("""COMPUTED by lawkit: everything else, from points that lie exactly on the published curves. A law
        of the curves' own form must recover them, so its hold-out error below checks the machinery; it is
        no evidence that such laws extrapolate. The paper's own hold-out errors are.""")
    _data_scaling(result["data_scaling"])
    _model_scaling(result["model_scaling"])
    _mixture_law(result["mixture_law"])
    _best_mixture(result["mixture_law"])
    _proposal(result["mixture_law"]["proposal"])


def _data_scaling(part: Mapping[str, Any]) -> None:
    first, last = part["fitted_at"][0], part["fitted_at"][-1]
    title("1. More tokens: models of 1B parameters")
    paragraph(f"""Ten mixtures of web text (CC) with rephrased web text (HQ, QA) or generated textbooks (TXBK).
        Fitted by lawkit: B/D**beta + E, each mixture by itself, {part["n_runs"]} points from
        {size(first)} to {size(last)} tokens. The budgets between the ends are our choice.""")
    held = part["holdout"]
    _accuracy(part, f"held out at {size(held['n_tokens'])}", len(held["mixtures"]), "its runs of 200B tokens")
    ranking = part["ranking"]
    _output.say()
    paragraph(f"""Extrapolated to {size(ranking["n_tokens"])} tokens, best first. Speed-up: how many times fewer
        tokens than {BASELINE} alone for the same loss, at 100B and at 200B tokens of {BASELINE}.""")
    _output.show_table(
        ["mixture", "loss at 8T", "at 100B", "at 200B"],
        [
            [row["mixture"], f"{row['loss']:.3f}", *(_times(v) for v in row["speedup"].values())]
            for row in ranking["rows"]
        ],
    )
    one, other = part["crossing"]["mixtures"]
    _output.say()
    paragraph(f"{one} overtakes {other} at {part['crossing']['n_tokens'] / 1e9:.1f}B tokens.")


def _model_scaling(part: Mapping[str, Any]) -> None:
    first, last = part["fitted_at"][0], part["fitted_at"][-1]
    title("2. Larger models: 50B tokens")
    paragraph(f"""Fitted by lawkit: A/N**alpha + E, each mixture by itself, {part["n_runs"]} points at the
        paper's sizes from {size(first)} to {size(last)} parameters.""")
    held = part["holdout"]
    _accuracy(part, f"held out at {size(held['n_params'])}", len(held["mixtures"]), "its 3B models")
    ranking = part["ranking"]
    _output.say()
    paragraph(f"Extrapolated to {size(ranking['n_params'])} parameters, best first.")
    _output.show_table(
        ["mixture", "loss at 200B"], [[row["mixture"], f"{row['loss']:.3f}"] for row in ranking["rows"]]
    )
    _output.say()
    paragraph(f"""Both tables describe models of 1B parameters at 50B tokens, and differ there by
        {percent(part["tables_apart"])} on average: differences between mixtures smaller than that decide
        nothing.""")


def _accuracy(part: Mapping[str, Any], held: str, mixtures: int, published: str) -> None:
    _output.show_pairs(
        [
            ("coefficients", f"equal the published ones to {_tiny(part['coefficients_off_by'])}"),
            (held, f"off by {_tiny(part['holdout']['mre'])} on {mixtures} mixtures (checks the machinery)"),
            ("published", f"{percent(part['published_holdout_mre'])}, the paper's fits on {published}"),
        ]
    )


def _mixture_law(part: Mapping[str, Any]) -> None:
    title("3. One law for all mixtures")
    paragraph(f"""Fitted by lawkit: the {part["law"]} law, one set of parameters for all {part["n_runs"]} points
        of part 1, with the mixture's weights as inputs. It is not the form that made the points, so here
        errors mean something.""")
    _output.show_pairs(
        [
            ("on all points", f"off by {percent(part['train_mre'])}"),
            ("held out at 200B", f"off by {percent(part['holdout']['mre'])}"),
            (
                "held out at 1/3",
                f"off by {percent(part['unseen_ratio_mre'])}: the 33% mixtures, fitted without any",
            ),
            ("ranking at 8T", f"Spearman {number(part['spearman_with_curves'], 3)} with that of part 1"),
        ]
    )


def _best_mixture(part: Mapping[str, Any]) -> None:
    target, best, ten = part["target"], part["optimum"], part["best_of_ten"]
    title("4. The best mixture, by that law")
    paragraph(f"""At {size(target["n_params"])} parameters and {size(target["n_tokens"])} tokens, beside web text
        one synthetic source at a time:""")
    _output.show_table(
        ["source", "best share", "loss", "loss at 30%", "published best"],
        [
            [
                source, percent(found["weight"], 0), f"{found['loss']:.3f}",
                f"{found['loss_at_30_percent']:.3f}", part["published_best_ratio"][source],
            ]
            for source, found in part["best_ratio"].items()
        ],
    )  # fmt: skip
    _output.say()
    cost = max(found["loss_at_30_percent"] - found["loss"] for found in part["best_ratio"].values())
    paragraph(f"""Published: the best of ten ratios in the paper's own search, models to 1B and tokens to 50B.
        Computed: the points have four ratios only (0, 1/3, 2/3, 1), and between those the law's shape
        decides. By the law, 30% instead of its own best costs at most {cost:.3f} nats.""")
    _output.say()
    paragraph("All four sources free:")
    _output.show_table(["source", "weight"], [[s, f"{w:.3f}"] for s, w in best["weights"].items()])
    _output.say()
    gap = f"{best['certificate']} optimum of the law, gap at most {best['optimality_gap']:.0e} nats"
    _output.show_pairs(
        [
            ("loss", f"{best['objective']:.3f} by the law"),
            ("best of the ten", f"{ten['loss']:.3f} by the law ({ten['mixture']})"),
            ("certificate", gap),
        ]
    )
    _output.say()
    paragraph(f"""The certificate is about the law, not about the world: no point has two synthetic sources
        together, so the {ten["loss"] - best["objective"]:.2f} nats promised here are unsupported by any data.
        Do not train on this mixture; test it.""")


def _proposal(proposal: Mapping[str, Any]) -> None:
    runs = proposal["runs"]
    title("5. The runs that would test it")
    together = any(sum(w > 0.05 for s, w in run["weights"].items() if s != BASELINE) > 1 for run in runs)
    form = "; with several synthetic sources together they test the form as well" if together else ""
    paragraph(f"""If the law's form is right, what is not known of its parameters costs that mixture
        {number(proposal["expected_regret_now"], 3)} nats per token in expectation (its regret). The runs that
        reduce it most, for {number(sum(run["flops"] for run in runs), 3)} flops{form}:""")
    _output.show_table(
        ["run", "params", "tokens", "regret after", "mixture"],
        [
            [
                str(i), size(run["n_params"]), size(run["n_tokens"]), number(run["regret_after"], 3),
                " ".join(f"{name}={weight:.2f}" for name, weight in run["weights"].items() if weight > 0.005),
            ]
            for i, run in enumerate(runs, 1)
        ],
    )  # fmt: skip


def _tiny(value: float) -> str:
    """Write a relative error that may be nothing but rounding."""
    return percent(value) if value >= 5e-5 else f"{value:.0e}"


def _times(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}x" if value < 10 else f"{value:.0f}x"
