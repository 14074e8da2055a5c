"""The page of a study: one HTML file with the decision, its band, what was spent and what to run next."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from lawkit.errors import ReportError
from lawkit.io._json import finite
from lawkit.io._write import write_bytes
from lawkit.report._study_facts import study_facts


def write_study_page(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Write the page of a study, whole or not at all, and return its path.

    It needs no network: styles, scripts and data are in the file.

    Raises
    ------
    StudyError, ReportError
        When the folder is no study, nothing has been run yet, or the page cannot be written.
    """
    page = study_page(study_facts(Path(folder)))
    try:
        write_bytes(page.encode(), path)
    except OSError as error:
        raise ReportError(f"{path}: cannot be written ({error.strerror}): name a file that can be") from None
    return Path(path)


def study_page(facts: dict[str, Any]) -> str:
    """The page that says these facts, as `lawkit.report._study_facts.study_facts` gives them."""
    kept = ("rounds", "runs", "sources", "domains", "tolerance", "fitted")
    # "</script>" in a name would end the script.
    data = json.dumps(finite({key: facts[key] for key in kept}), allow_nan=False).replace("</", "<\\/")
    parts = [
        _head(facts),
        *(part(facts) for part in (_decision, _figures, _next, _rounds, _runs, _failures, _notes)),
        _section("The study's file", f"<pre>{escape(facts['spec'])}</pre>"),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(facts['name'])}: study</title>\n<style>\n{_asset('_page.css')}</style>\n"
        "</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + '\n</main>\n<div id="tip" role="tooltip" hidden></div>\n'
        f'<script type="application/json" id="data">{data}</script>\n'
        f"<script>\n{_asset('_page.js')}</script>\n</body>\n</html>\n"
    )


# ---- parts ---------------------------------------------------------------------------------------------------


def _head(facts: dict[str, Any]) -> str:
    decided, target = facts["decision"], facts["target"]
    states = [run["state"] for run in facts["runs"]]
    spent = f"{_n(facts['spent'], 3)}" + (f" of {_n(facts['budget'], 3)}" if facts["budget"] else "")
    cards = [("flops spent", spent)]
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
            f"{_p(w)} {escape(name)}" for name, w in _ordered(decision["weights"]) if w >= 5e-4
        )
        lead = f"Train on <b>{mixture}</b>."
        cards.insert(0, ("expected regret, nats per token", _n(decision["expected_regret"], 3)))
        cards.insert(1, ("predicted objective, nats per token", f"{decision['objective']:.4f}"))
    told = ""
    if target:
        told = f"For a run of {_size(target['n_params'])} parameters on {_size(target['n_tokens'])} tokens. "
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
    for name, weight in _ordered(decision["weights"]):
        low, high = bands.get(name, (weight, weight))
        bar = (
            f'<span class="band"><i style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>'
            f'<b style="left:{100 * weight:.2f}%"></b></span>'
        )
        epochs = decision["epochs"].get(name)
        rows.append(
            [
                escape(name),
                _p(weight),
                bar,
                f"{_p(low)} to {_p(high)}",
                _size(weight * tokens),
                "" if epochs is None else f"{epochs:.2f}",
                _p(free[name]) if name in free else "",
            ]
        )
    mixture = _table(
        ["source", "weight", "", f"{facts['interval']:.0%} interval", "tokens", "epochs", "without limits"],
        rows,
    )
    losses = _table(
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
    worth = ", ".join(f"{escape(name)}: {_n(price, 3)} nats a unit" for name, price in prices.items())
    limits = (
        f'<h3>Limits that bind</h3><ul class="notes">{limits}</ul><p class="soft">{worth}</p>'
        if limits
        else ""
    )
    against = _table(
        ["other mixture", "its objective", "worse with probability"],
        [
            [
                escape(name.replace("_", " ")),
                f"{value:.4f}",
                _p(decision["against"][name]["probability_worse"]),
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
    return _section(
        "The decision",
        f'<p class="soft">By law {law}, fitted to {facts["decision"]["fit"]["n_runs"]} rows; {proof} under that law '
        f"(gap {_n(decision['optimality_gap'], 2)} nats). Intervals cover what the law does not know of its "
        f"parameters, not what it may get wrong.</p>{mixture}"
        f'<div class="pair" style="margin-top:20px"><div>{losses}</div><div>{limits}{against}</div></div>',
    )


def _figures(facts: dict[str, Any]) -> str:
    shown = []
    if any(round_["regret"] is not None for round_ in facts["rounds"]):
        shown.append(_figure("regret", "Expected regret, nats per token", ""))
        shown.append(_figure("weights", "Best mixture and its interval", _key(facts["sources"])))
    if facts["domains"]:
        rounds = [f"round {round_['round']}" for round_ in facts["rounds"]]
        shown.append(_figure("losses", "Losses of all runs, nats per token", _key(rounds)))
    if facts["fitted"]:
        shown.append(_figure("fit", "Observed over fitted loss, % off", ""))
    options = "".join(f"<option>{escape(name)}</option>" for name in facts["domains"])
    pick = (
        f'<p><label class="soft">domain <select id="domain">{options}</select></label></p>' if options else ""
    )
    return _section("How it came about", f'{pick}<div class="pair">{"".join(shown)}</div>') if shown else ""


def _next(facts: dict[str, Any]) -> str:
    following = facts["next"]
    if following is None:
        return ""
    target, decision = facts["target"], facts["decision"]["decision"]
    tokens = ", ".join(
        f"{_size(w * target['n_tokens'])} of {escape(name)}"
        for name, w in _ordered(decision["weights"])
        if w >= 5e-4
    )
    plan = (
        f"<p>The run that was to be planned: {_size(target['n_params'])} parameters on {tokens} "
        f"({_n(6 * target['n_params'] * target['n_tokens'], 3)} flops).</p>"
    )
    if not following["runs"]:
        why = f' <span class="soft">No further proxy runs: {escape(following["why"] or "")}.</span>'
        return _section("What to run next", plan + (f"<p>{why}</p>" if following["why"] else ""))
    table = _table(
        ["proxy run", "parameters", "tokens", "seed", "flops", "mixture"],
        [
            [
                escape(run["run_id"]),
                _size(run["n_params"]),
                _size(run["n_tokens"]),
                run["seed"],
                _n(run["flops"], 3),
                _mixture(run.get("weights", {})),
            ]
            for run in following["runs"]
        ],
    )
    if_ = "With the budget renewed, " if following["why"] else ""
    flops = _n(following["flops"], 3)
    told = f"<p>{if_}{len(following['runs'])} proxy runs would teach most about it, for {flops} flops:</p>"
    return _section("What to run next", plan + told + table)


def _rounds(facts: dict[str, Any]) -> str:
    return (
        _section(
            "Rounds",
            _table(
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
                        _n(round_["flops"], 3),
                        escape(round_["law"] or ""),
                        _n(round_["objective"], 5),
                        _n(round_["regret"], 3),
                        _mixture(round_["weights"] or {}),
                    ]
                    for round_ in facts["rounds"]
                ],
            ),
        )
        if facts["rounds"]
        else ""
    )


def _runs(facts: dict[str, Any]) -> str:
    names = ["run", "round", "state", "parameters", "tokens", "seed", "flops", *facts["domains"]]
    heads = "".join(f"<th><button>{escape(name)}</button></th>" for name in names)
    body = []
    for run in facts["runs"]:
        losses = [(run["losses"] or {}).get(name) for name in facts["domains"]]
        cells = [
            f'<td title="{_mixture(run["weights"])}">{escape(run["id"])}</td>',
            _cell(run["round"], str(run["round"])),
            f"<td>{run['state']}</td>",
            *(_cell(run[key], _size(run[key])) for key in ("n_params", "n_tokens")),
            _cell(run["seed"], str(run["seed"])),
            _cell(run["flops"], _n(run["flops"], 3)),
            *(_cell(loss, "" if loss is None else f"{loss:.4f}") for loss in losses),
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    table = f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return _section("Runs", f'<p class="soft">Press a heading to sort.</p><div class="scroll">{table}</div>')


def _failures(facts: dict[str, Any]) -> str:
    failed = [run for run in facts["runs"] if run["state"] == "failed"]
    rows = [[escape(run["id"]), escape(run["reason"] or ""), escape(run["message"] or "")] for run in failed]
    return (
        _section("Runs that failed", _table(["run", "reason", "message"], rows, words=(1, 2))) if rows else ""
    )


def _notes(facts: dict[str, Any]) -> str:
    if not facts["decision"]:
        return ""
    notes = [*facts["decision"]["fit"]["warnings"], *facts["decision"]["decision"]["warnings"]]
    items = "".join(f"<li>{escape(note)}</li>" for note in dict.fromkeys(notes))
    return _section("Before acting on it", f'<ul class="notes">{items}</ul>') if items else ""


# ---- pieces --------------------------------------------------------------------------------------------------


def _asset(name: str) -> str:
    return files("lawkit.report").joinpath(name).read_text(encoding="utf-8")


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>\n{body}</section>"


def _figure(name: str, title: str, key: str) -> str:
    return f'<figure><h3>{title}</h3>{key}<svg data-figure="{name}" role="img" aria-label="{title}"></svg></figure>'


def _key(names: Sequence[str]) -> str:
    colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#333333")
    items = (f'<span style="--c:{colours[i % 7]}">{escape(name)}</span>' for i, name in enumerate(names))
    return f'<div class="key">{"".join(items)}</div>'


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]], words: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already."""
    rows = list(rows)
    if not rows:
        return ""

    def cells(tag: str, values: Sequence[Any]) -> str:
        return "".join(
            f'<{tag} class="words">{value}</{tag}>' if i in words else f"<{tag}>{value}</{tag}>"
            for i, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells("th", names)}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any, text: str) -> str:
    return f'<td data-value="{"" if value is None else value}">{text}</td>'


def _ordered(weights: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(weights.items(), key=lambda item: -item[1])


def _mixture(weights: dict[str, float]) -> str:
    return ", ".join(f"{escape(name)} {weight:.3f}" for name, weight in _ordered(weights) if weight >= 5e-4)


def _n(value: float | None, digits: int) -> str:
    return (
        "–"
        if value is None
        else f"{value:.{digits}g}".replace("e+", "e").replace("e0", "e").replace("e-0", "e-")
    )


def _p(value: float) -> str:
    return f"{100 * value:.1f}%"


def _size(value: float) -> str:
    from lawkit.cli._output import size

    return size(value)
