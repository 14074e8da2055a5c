"""``lawkit study``: train the runs that a file asks for."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lawkit.cli import _output

if TYPE_CHECKING:
    from lawkit.backends.torchtitan.launch import Outcome

#: Seconds between two lines of progress where there is no terminal.
_EVERY_S = 60.0
_FOLDER = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))


@click.group("study")
def command() -> None:
    """Train proxy runs and keep their results.

    A study is a folder with a file study.toml that says which runs are trained; the
    results are in its store, study.sqlite, and its runs table, runs.csv.
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
@click.option(
    "--workers", type=click.IntRange(min=1), help="Runs at a time.  [default: what the machine takes]"
)
@click.option("--retry-failed", is_flag=True, help="Try the runs that failed before once more.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def run(folder: Path, workers: int | None, retry_failed: bool, as_json: bool) -> None:
    """Train the runs of a study that are not done yet.

    It may be stopped or killed at any time and goes on when called again. Runs that
    fail are recorded and do not stop the others; the exit status is then 1. Training
    needs torchtitan.

    \b
    Examples:
      lawkit study run study
      lawkit study run study --workers 2
    """
    from lawkit.study import run_study

    with _Screen() as screen:
        summary = run_study(folder, workers=workers, retry_failed=retry_failed, watcher=screen)
    if as_json:
        _output.emit_json(
            {
                "table": summary.table,
                "trained": summary.trained,
                "done": summary.done,
                "failed": summary.failed,
            }
        )
    else:
        _output.say(f"{summary.done} runs done, {summary.failed} failed; {summary.trained} trained now")
        if summary.failed:
            _output.note(f"why: lawkit study status {folder}")
            _output.note(f"to try them once more: lawkit study run {folder} --retry-failed")
        if summary.table:
            _output.note(f"table: {summary.table}")
    if summary.failed:
        raise click.exceptions.Exit(1)


@command.command("status")
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(folder: Path, as_json: bool) -> None:
    """Say how far a study is, and why runs failed.

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
    states = found["states"]
    _output.show_pairs(
        [
            *((state, count) for state, count in states.items()),
            ("run by", found["run_by"] or "nobody"),
            ("table", str(found["table"]) if found["table"] else None),
        ]
    )
    unfinished = [run for run in found["runs"] if run["state"] in ("running", "failed")]
    if unfinished:
        _output.say()
        _output.show_table(
            ["run", "state", "step", "loss", "failures", "why"],
            [
                [
                    run["run_id"],
                    run["state"] if run["state"] == "failed" or found["run_by"] else "interrupted",
                    (run["progress"] or {}).get("step", run["step"]),
                    (run["progress"] or {}).get("loss"),
                    run["failures"],
                    run["message"],
                ]
                for run in unfinished
            ],
        )


class _Screen:
    """Tells on standard error how a study goes: always on a terminal, elsewhere once a minute and when a run ends."""

    def __init__(self) -> None:
        self._total = self._left = 0
        self._first: tuple[float, float] | None = None
        self._status: Any = None
        self._told = time.monotonic()

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def begun(self, total: int, waiting: int) -> None:
        self._total, self._left = total, waiting
        _output.note(f"{waiting} of {total} runs to train")
        if waiting and sys.stderr.isatty():
            self._status = _output.console(stderr=True).status("starting")
            self._status.start()

    def ended(self, run_id: str, outcome: Outcome, again: bool) -> None:
        if outcome.done is not None:
            self._left -= 1
            losses = {name: domain["loss"] for name, domain in outcome.evals[-1]["domains"].items()}
            told = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
            self._note(f"{run_id}: {told}  ({outcome.done['wall_s']:.0f} s; {self._left} to go)")
            return
        self._left -= not again
        what = "failed, to be tried again" if again else "failed"
        self._note(f"{run_id}: {what} at step {outcome.step} ({outcome.reason}): {outcome.message}")

    def _note(self, text: str) -> None:
        # The console of a live display prints above it; another would print where it is drawn next.
        if self._status is None:
            _output.note(text)
            return
        from rich.text import Text

        self._status.console.print(Text(text, style="dim"))

    def tick(self, running: list[Path], share: float) -> None:
        from lawkit.backends.torchtitan.launch import progress

        now = time.monotonic()
        if self._first is None and share > 0:
            self._first = now, share
        parts = [f"{self._total - self._left} of {self._total} runs, {share:.0%} of the flops"]
        if self._first and share > self._first[1]:
            left = (now - self._first[0]) / (share - self._first[1]) * (1 - share)
            parts.append(f"about {left / 60:.0f}:{left % 60:02.0f} left")
        for home in running:
            record = progress(home)
            if record:
                parts.append(
                    f"{home.name}: step {record['step']:,}, loss {record['loss']:.3f}, "
                    f"{record['tokens_per_s']:,.0f} tokens/s"
                )
        if self._status is not None:
            self._status.update("\n".join(parts))
        elif now > self._told + _EVERY_S and len(parts) > 1:
            self._told = now
            _output.note("; ".join(parts))
