"""The page of a study: one HTML file with the decision, its band, what was spent and what to run next."""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path
from typing import Any

from lawkit.errors import ReportError
from lawkit.io._json import finite
from lawkit.io._write import write_bytes
from lawkit.report import _page_parts as parts
from lawkit.report import _study_tables as tables
from lawkit.report._study_facts import study_facts

_BEGINS = b"<!doctype html>"


def write_study_page(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Write the page of a study, whole or not at all, and return its path.

    It needs no network: styles, scripts and data are in the file.

    Raises
    ------
    StudyError, ReportError
        When the folder is no study, nothing has been run yet, or the page cannot be written; of files that are there
        it replaces pages alone.
    """
    _check_replaced(Path(path))
    page = study_page(study_facts(Path(folder)))
    try:
        write_bytes(page.encode(), path)
    except OSError as error:
        raise ReportError(f"{path}: cannot be written ({error.strerror}): name a file that can be") from None
    return Path(path)


def _check_replaced(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(len(_BEGINS)) not in (b"", _BEGINS):
            raise ReportError(f"{path} is no page, and what it holds would be lost: name another file")


def study_page(facts: dict[str, Any]) -> str:
    """The page that says these facts, as `lawkit.report._study_facts.study_facts` gives them."""
    kept = ("rounds", "runs", "sources", "domains", "tolerance", "fitted")
    # "</script>" in a name would end the script.
    data = json.dumps(finite({key: facts[key] for key in kept}), allow_nan=False).replace("</", "<\\/")
    sections = [
        _head(facts),
        *(
            part(facts)
            for part in (
                _decision,
                _figures,
                _next,
                tables.rounds_table,
                tables.generated_table,
                tables.runs_table,
                tables.failures_table,
                _notes,
            )
        ),
        parts.section("The study's file", f"<pre>{escape(facts['spec'])}</pre>"),
    ]
    return (
        f'{_BEGINS.decode()}\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(facts['name'])}: study</title>\n<style>\n{parts.asset('_page.css')}</style>\n"
        "</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + '\n</main>\n<div id="tip" role="tooltip" hidden></div>\n'
        f'<script type="application/json" id="data">{data}</script>\n'
        f"<script>\n{parts.asset('_page.js')}</script>\n</body>\n</html>\n"
    )


# ---- parts ---------------------------------------------------------------------------------------------------


def _head(facts: dict[str, Any]) -> str:
    decided, target = facts["decision"], facts["target"]
    states = [run["state"] for run in facts["runs"]]
    spent = f"{parts.number(facts['spent'], 3)}" + (
        f" of {parts.number(facts['budget'], 3)}" if facts["budget"] else ""
    )
    cards = [("flops spent", spent)]
    if facts["generated"]:
        text = [source["flops"] for source in facts["generated"]]
        cards.append(("of them for generation", tables.flops(None if None in text else sum(text))))
    seconds = sum(run["cpu_s"] or 0.0 for run in facts["runs"])
    if seconds > 36:
        cards.append(("processor time", f"{seconds / 3600:.2f} h"))
    failed = states.count("failed")
    cards.append(
        ("runs done", f"{states.count('done')} of {len(states)}" + (f", {failed} failed" if failed else ""))
    )
    lead = "No decision yet."
    if decided:
        decision = decided["decision"]
        mixture = ", ".join(
            f"{parts.percent(w)} {escape(name)}"
            for name, w in parts.ordered(decision["weights"])
            if w >= 5e-4
        )
        lead = f"Train on <b>{mixture}</b>."
        misfit = decision.get("regret_misfit")
        first = [("expected regret, nats per token", parts.number(decision["expected_regret"], 3))]
        if misfit is not None:
            first.append(("of it by what the law may have wrong", parts.number(misfit, 3)))
        cards[:0] = [*first, ("predicted objective, nats per token", f"{decision['objective']:.4f}")]
    told = ""
    if target:
        told = f"For a run of {parts.size(target['n_params'])} parameters on {parts.size(target['n_tokens'])} tokens. "
    stop = decided["stop"] if decided else None
    told += (
        f"Stopped because of {escape(stop)}." if stop else "The study has not stopped yet." if target else ""
    )
    boxes = "".join(
        f'<div class="card"><b>{value}</b><span class="soft">{name}</span></div>' for name, value in cards
    )
    return (
        f'<header><h1>{escape(facts["name"])}</h1>\n<p class="lead">{lead}</p>\n<p class="soft">{told}</p>\n'
        f'<div class="cards">{boxes}</div></header>'
    )


def _decision(facts: dict[str, Any]) -> str:
    if not facts["decision"]:
        return ""
    decision, tokens = facts["decision"]["decision"], facts["target"]["n_tokens"]
    bands, free = decision.get("weights_interval", {}), decision["unconstrained"]["weights"] or {}
    rows = []
    for name, weight in parts.ordered(decision["weights"]):
        low, high = bands.get(name, (weight, weight))
        bar = (
            f'<span class="band"><i style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>'
            f'<b style="left:{100 * weight:.2f}%"></b></span>'
        )
        epochs = decision["epochs"].get(name)
        rows.append(
            [
                escape(name),
                parts.percent(weight),
                bar,
                f"{parts.percent(low)} to {parts.percent(high)}",
                parts.size(weight * tokens),
                "" if epochs is None else f"{epochs:.2f}",
                parts.percent(free[name]) if name in free else "",
            ]
        )
    mixture = parts.table(
        ["source", "weight", "", f"{facts['interval']:.0%} interval", "tokens", "epochs", "without limits"],
        rows,
    )
    losses = parts.table(
        ["domain", "predicted loss", "from", "to"],
        [
            [
                escape(name),
                f"{loss:.4f}",
                *(f"{end:.4f}" for end in decision["predicted_interval"].get(name, ("", ""))),
            ]
            for name, loss in decision["predicted"].items()
        ],
    )
    prices = decision["shadow_prices"]
    limits = "".join(f"<li>{escape(text)}</li>" for text in decision["active_constraints"])
    worth = ", ".join(
        f"{escape(name)}: {parts.number(price, 3)} nats a unit" for name, price in prices.items()
    )
    limits = (
        f'<h3>Limits that bind</h3><ul class="notes">{limits}</ul><p class="soft">{worth}</p>'
        if limits
        else ""
    )
    against = parts.table(
        ["other mixture", "its objective", "worse with probability"],
        [
            [
                escape(name.replace("_", " ")),
                f"{value:.4f}",
                parts.percent(decision["against"][name]["probability_worse"]),
            ]
            for name, value in decision["baselines"].items()
            if name in decision.get("against", {})
        ],
    )
    proof = (
        "proven to be the best"
        if decision["certificate"] == "global"
        else "a local optimum, not proven the best,"
    )
    law = escape(facts["decision"]["fit"]["law"])
    return parts.section(
        "The decision",
        f'<p class="soft">By law {law}, fitted to {facts["decision"]["fit"]["n_runs"]} rows; {proof} under that law '
        f"(gap {parts.number(decision['optimality_gap'], 2)} nats). Intervals cover what the law does not know of its "
        f"parameters, not what it may get wrong.</p>{mixture}"
        f'<div class="pair" style="margin-top:20px"><div>{losses}</div><div>{limits}{against}</div></div>',
    )


def _figures(facts: dict[str, Any]) -> str:
    shown = []
    if any(round_["regret"] is not None for round_ in facts["rounds"]):
        shown.append(parts.figure("regret", "Expected regret, nats per token", ""))
        shown.append(parts.figure("weights", "Best mixture and its interval", parts.key(facts["sources"])))
    if facts["domains"]:
        rounds = [f"round {round_['round']}" for round_ in facts["rounds"]]
        shown.append(parts.figure("losses", "Losses of all runs, nats per token", parts.key(rounds)))
    if facts["fitted"]:
        shown.append(parts.figure("fit", "Observed over fitted loss, % off", ""))
    options = "".join(f"<option>{escape(name)}</option>" for name in facts["domains"])
    pick = (
        f'<p><label class="soft">domain <select id="domain">{options}</select></label></p>' if options else ""
    )
    return (
        parts.section("How it came about", f'{pick}<div class="pair">{"".join(shown)}</div>') if shown else ""
    )


def _next(facts: dict[str, Any]) -> str:
    following = facts["next"]
    if following is None:
        return ""
    target, decision = facts["target"], facts["decision"]["decision"]
    tokens = ", ".join(
        f"{parts.size(w * target['n_tokens'])} of {escape(name)}"
        for name, w in parts.ordered(decision["weights"])
        if w >= 5e-4
    )
    plan = (
        f"<p>The run that was to be planned: {parts.size(target['n_params'])} parameters on {tokens} "
        f"({parts.number(6 * target['n_params'] * target['n_tokens'], 3)} flops).</p>"
    )
    if not following["runs"]:
        why = f' <span class="soft">No further proxy runs: {escape(following["why"] or "")}.</span>'
        return parts.section("What to run next", plan + (f"<p>{why}</p>" if following["why"] else ""))
    table = parts.table(
        ["proxy run", "parameters", "tokens", "seed", "flops", "mixture"],
        [
            [
                escape(run["run_id"]),
                parts.size(run["n_params"]),
                parts.size(run["n_tokens"]),
                run["seed"],
                parts.number(run["flops"], 3),
                parts.mixture(run.get("weights", {})),
            ]
            for run in following["runs"]
        ],
    )
    if_ = "With the budget renewed, " if following["why"] else ""
    flops = parts.number(following["flops"], 3)
    told = f"<p>{if_}{len(following['runs'])} proxy runs would teach most about it, for {flops} flops:</p>"
    return parts.section("What to run next", plan + told + table)


def _notes(facts: dict[str, Any]) -> str:
    if not facts["decision"]:
        return ""
    notes = [*facts["decision"]["fit"]["warnings"], *facts["decision"]["decision"]["warnings"]]
    items = "".join(f"<li>{escape(note)}</li>" for note in dict.fromkeys(notes))
    return parts.section("Before acting on it", f'<ul class="notes">{items}</ul>') if items else ""
