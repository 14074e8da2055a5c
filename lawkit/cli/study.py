"""``lawkit study``: the closed circle from proxy runs to a decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lawkit.cli import _output

_FOLDER = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), help="Runs at a time.  [default: what the executor takes]"
)


@click.group("study")
def command() -> None:
    """Choose, do and learn from proxy runs until the mixture is decided.

    A study is a folder with a file study.toml that says which runs are done to begin
    with, what is to be decided and what may be spent; its results are in its store,
    study.sqlite, and its runs table, runs.csv.
    """


@command.command("init")
@_FOLDER
@click.option(
    "--corpus",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder made by lawkit corpus build.",
)
def init(folder: Path, corpus: Path) -> None:
    """Write the study.toml of a new study, to be edited.

    \b
    Example:
      lawkit study init study --corpus corpus
    """
    from lawkit.corpus import open_corpus
    from lawkit.study.template import write_template

    found = open_corpus(corpus)
    path = write_template(folder, found)
    _output.note(f"{path}: edit it, then lawkit study run {folder}")


@command.command("run")
@_FOLDER
@_WORKERS
@click.option("--retry-failed", is_flag=True, help="Try the runs that failed before once more.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be done next and what it would cost; do nothing."
)
@_JSON
def run(folder: Path, workers: int | None, retry_failed: bool, dry_run: bool, as_json: bool) -> None:
    """Turn the circle of a study: do runs, fit, decide, propose runs, until it stops.

    It stops when the expected regret of the mixture is within the tolerance, or the
    budget or the rounds are used up, and says which. Without a [target] it does the
    runs of the grids. It may be stopped or killed at any time and goes on when called
    again, to the same decision. Runs that fail are recorded and do not stop the
    others; the exit status is then 1. Training needs torchtitan.

    \b
    Examples:
      lawkit study run study --dry-run
      lawkit study run study
      lawkit study run study --workers 2
    """
    if dry_run:
        from lawkit.study.pricing import price

        with _output.working("choosing runs", quiet=as_json):
            told = price(folder, workers=workers)
        _output.emit_json(told) if as_json else _show_price(told)
        return
    from lawkit.cli._study_screen import Screen
    from lawkit.study import read_study, run_study

    goal = read_study(folder).goal
    with Screen(goal) as screen:
        summary = run_study(folder, workers=workers, retry_failed=retry_failed, watcher=screen)
    if as_json:
        decided = {} if goal is None else {"stop": summary.stop, "round": summary.decision}
        _output.emit_json(
            {
                "table": summary.table,
                "trained": summary.trained,
                "done": summary.done,
                "failed": summary.failed,
                **decided,
            }
        )
    else:
        _output.say(f"{summary.done} runs done, {summary.failed} failed; {summary.trained} done now")
        if summary.decision is not None:
            _output.say()
            _show_decision(summary.decision)
        if summary.failed:
            _output.note(f"why: lawkit study status {folder}")
            _output.note(f"to try them once more: lawkit study run {folder} --retry-failed")
        if summary.table:
            _output.note(f"table: {summary.table}")
    if summary.failed:
        raise click.exceptions.Exit(1)


@command.command("status")
@_FOLDER
@_JSON
def status(folder: Path, as_json: bool) -> None:
    """Say how far a study is, what it has decided, and why runs failed.

    \b
    Examples:
      lawkit study status study
      lawkit study status study --json
    """
    from lawkit.study import study_status

    found = study_status(folder)
    if as_json:
        _output.emit_json(found)
        return
    budget = f" of {_output.number(found['budget'], 3)}" if found["budget"] else ""
    interrupted = found["states"]["interrupted"]
    _output.show_pairs(
        [
            *((state, count) for state, count in found["states"].items() if state != "interrupted"),
            *([("interrupted", f"{interrupted}, to be continued")] if interrupted else []),
            ("flops", f"{_output.number(found['flops'], 3)}{budget}{_of_generation(found['generated'])}"),
            ("run by", found["run_by"] or "nobody"),
            ("table", str(found["table"]) if found["table"] else None),
        ]
    )
    if found["generated"]:
        _output.say()
        _output.show_table(
            ["generated", "from", "style", "model", "seed", "tokens", "flops", "seconds", "generator"],
            [
                [
                    source["name"],
                    source["source"],
                    source["prompt"],
                    source["model"],
                    source["seed"],
                    _output.size(source["tokens"]),
                    "unknown" if source["flops"] is None else _output.number(source["flops"], 3),
                    f"{source['seconds']:.0f}",
                    source["generator"],
                ]
                for source in found["generated"]
            ],
        )
    decided = [round_ for round_ in found["rounds"] if round_["decision"]]
    if found["rounds"]:
        _output.say()
        _show_rounds(found)
    if decided:
        _output.say()
        _show_decision(decided[-1])
    unfinished = [run for run in found["runs"] if run["state"] in ("running", "interrupted", "failed")]
    if unfinished:
        _output.say()
        _output.show_table(
            ["run", "state", "step", "loss", "failures", "why"],
            [
                [
                    run["run_id"],
                    run["state"],
                    (run["progress"] or {}).get("step", run["step"]),
                    (run["progress"] or {}).get("loss"),
                    run["failures"],
                    run["message"],
                ]
                for run in unfinished
            ],
        )


@command.command("report")
@_FOLDER
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page to write.  [default: report.html in the study's folder]",
)
def report(folder: Path, out: Path | None) -> None:
    """Write a page about a study: the decision, its band, what was spent, what to run next.

    The page is one file that needs no network.

    \b
    Examples:
      lawkit study report study
      lawkit study report study -o decision.html
    """
    from lawkit.report.study_page import write_study_page

    path = write_study_page(folder, out or folder / "report.html")
    _output.note(f"written to {path}")


def _show_rounds(found: dict[str, Any]) -> None:
    _output.show_table(
        ["round", "chosen by", "runs", "flops", "law", "expected regret", "mixture"],
        [
            [
                str(round_["round"]),
                round_["proposal"]["method"],
                sum(run["round"] == round_["round"] for run in found["runs"]),
                _output.number(round_["flops"], 3),
                (round_["fit"] or {}).get("law"),
                _output.number((round_["decision"] or {}).get("expected_regret"), 3),
                _mixture((round_["decision"] or {}).get("weights", {})),
            ]
            for round_ in found["rounds"]
        ],
    )


def _show_decision(round_: dict[str, Any]) -> None:
    decision = round_["decision"]
    bands = decision.get("weights_interval", {})
    _output.show_table(
        ["source", "weight", "from", "to"],
        [
            [name, f"{weight:.3f}", *(f"{end:.3f}" for end in bands.get(name, ()))]
            for name, weight in decision["weights"].items()
        ],
        title=f"the mixture after round {round_['round']}",
    )
    _output.say()
    _output.show_pairs(
        [
            (
                "expected regret",
                f"{_output.number(decision['expected_regret'], 3)} nats per token{_misfit(decision)}",
            ),
            ("certificate", decision["certificate"]),
            ("law", round_["fit"]["law"]),
            ("spent", f"{_output.number(round_['flops'], 3)} flops"),
            ("stopped because of", round_["stop"]),
        ]
    )
    _output.show_warnings([*round_["fit"]["warnings"], *decision["warnings"]])


def _misfit(decision: dict[str, Any]) -> str:
    part = decision.get("regret_misfit")
    if part is None:
        return ", if the law is right"
    return f", {_output.number(part, 3)} of them by what the law may have wrong"


def _show_price(told: dict[str, Any]) -> None:
    _output.show_table(
        ["run", "parameters", "tokens", "seed", "flops"],
        [
            [
                run["run_id"],
                _output.size(run["n_params"]),
                _output.size(run["n_tokens"]),
                run["seed"],
                _output.number(run["flops"], 3),
            ]
            for run in told["runs"]
        ],
    )
    if told["runs"]:
        _output.say()
    unnamed = told["generated"] and not told["runs"]
    undecided = not (told["runs"] or told["generated"] or told["stop"]) and told["budget"] is not None
    pairs = [
        ("round", told["round"]),
        ("runs to do", "named once there is the text" if unnamed else len(told["runs"])),
        *((f"generate {source['name']}", _generation(source)) for source in told["generated"]),
        ("flops with these" if told["generated"] else "their flops", _output.number(told["flops"], 3)),
        (
            "they take about",
            None
            if unnamed
            else f"{_time(told['seconds'])} with {told['workers']} at a time ({told['rate_from']})",
        ),
        ("spent so far", f"{_output.number(told['spent'], 3)} flops"),
        ("budget", None if told["budget"] is None else f"{_output.number(told['budget'], 3)} flops"),
        (
            "all of it takes",
            None if told["seconds_all"] is None else f"about {_time(told['seconds_all'])} at most",
        ),
        ("stopped because of", told["stop"]),
        ("next", f"the decision of round {told['round']}" if undecided else None),
    ]
    _output.show_pairs((name, value) for name, value in pairs if value is not None)


def _of_generation(generated: list[dict[str, Any]]) -> str:
    """How much of what was spent went into text."""
    if not generated:
        return ""
    flops = [source["flops"] for source in generated if source["flops"] is not None]
    if not flops:
        return ", what generation took unknown"
    some = ", as far as it is known" if len(flops) < len(generated) else ""
    return f", {_output.number(sum(flops), 3)} of it for generation{some}"


def _generation(source: dict[str, Any]) -> str:
    flops = (
        "flops unknown: no n_params"
        if source["flops"] is None
        else f"{_output.number(source['flops'], 3)} flops"
    )
    without = "" if source["measured"] or source["flops"] is None else ", prompts not counted"
    return f"{_output.size(source['tokens'])} tokens, {flops}{without}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _mixture(weights: dict[str, float]) -> str:
    return " ".join(f"{name}={weight:.3f}" for name, weight in weights.items() if weight >= 5e-4)
