"""The tables of a study's page: its rounds, its generated sources, its runs and those that failed."""

from __future__ import annotations

from html import escape
from typing import Any

from lawkit.report import _page_parts as parts


def flops(value: float | None) -> str:
    """Flops, which may be unknown."""
    return "unknown" if value is None else parts.number(value, 3)


def rounds_table(facts: dict[str, Any]) -> str:
    """What each round chose, spent and decided."""
    return (
        parts.section(
            "Rounds",
            parts.table(
                [
                    "round",
                    "chosen by",
                    "runs",
                    "flops spent",
                    "law",
                    "objective",
                    "expected regret",
                    "mixture",
                ],
                [
                    [
                        round_["round"],
                        escape(round_["method"]),
                        round_["n_runs"],
                        parts.number(round_["flops"], 3),
                        escape(round_["law"] or ""),
                        parts.number(round_["objective"], 5),
                        parts.number(round_["regret"], 3),
                        parts.mixture(round_["weights"] or {}),
                    ]
                    for round_ in facts["rounds"]
                ],
            ),
        )
        if facts["rounds"]
        else ""
    )


def generated_table(facts: dict[str, Any]) -> str:
    """How the sources came about that a model wrote."""
    rows = [
        [
            escape(source["name"]),
            parts.size(source["tokens"]),
            parts.size(source["corpus_tokens"]) if "corpus_tokens" in source else "",
            flops(source["flops"]),
            f"{source['seconds']:,.0f}",
            escape(f"{source['generator']}: {source['model']}"),
            escape(f"{source['prompt']}, seed {source['seed']}"),
            escape(source["source"]),
        ]
        for source in facts["generated"]
    ]
    heads = [
        "source",
        "tokens kept",
        "tokens to train on",
        "flops",
        "seconds",
        "generator",
        "prompt",
        "made from",
    ]
    return parts.section("Generated sources", parts.table(heads, rows, words=(5, 6, 7))) if rows else ""


def runs_table(facts: dict[str, Any]) -> str:
    """All runs, to be sorted."""
    names = ["run", "round", "state", "parameters", "tokens", "seed", "flops", *facts["domains"]]
    heads = "".join(f"<th><button>{escape(name)}</button></th>" for name in names)
    body = []
    for run in facts["runs"]:
        losses = [(run["losses"] or {}).get(name) for name in facts["domains"]]
        cells = [
            f'<td title="{parts.mixture(run["weights"])}">{escape(run["id"])}</td>',
            parts.cell(run["round"], str(run["round"])),
            f"<td>{run['state']}</td>",
            *(parts.cell(run[key], parts.size(run[key])) for key in ("n_params", "n_tokens")),
            parts.cell(run["seed"], str(run["seed"])),
            parts.cell(run["flops"], parts.number(run["flops"], 3)),
            *(parts.cell(loss, "" if loss is None else f"{loss:.4f}") for loss in losses),
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    table = f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return parts.section(
        "Runs", f'<p class="soft">Press a heading to sort.</p><div class="scroll">{table}</div>'
    )


def failures_table(facts: dict[str, Any]) -> str:
    """Why runs failed."""
    failed = [run for run in facts["runs"] if run["state"] == "failed"]
    rows = [[escape(run["id"]), escape(run["reason"] or ""), escape(run["message"] or "")] for run in failed]
    return (
        parts.section("Runs that failed", parts.table(["run", "reason", "message"], rows, words=(1, 2)))
        if rows
        else ""
    )
