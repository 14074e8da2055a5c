"""Tells on standard error how a study goes: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.cli import _output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lawkit.backends.torchtitan.launch import Outcome
    from lawkit.study.goal import Goal

#: Seconds between two lines of progress where there is no terminal.
_EVERY_S = 60.0
#: Width of a bar.
_BAR = 28


class Screen:
    """The watcher of `lawkit study run`.

    Parameters
    ----------
    goal
        Of the study; None for one of grids alone.
    """

    def __init__(self, goal: Goal | None = None) -> None:
        self._goal = goal
        self._total = self._left = 0
        self._spent = self._flops = self._share = 0.0
        self._running: list[Path] = []
        self._first: tuple[float, float] | None = None
        self._round: dict[str, Any] | None = None
        self._doing = "starting"
        self._live: Any = None
        self._told = time.monotonic()

    def __enter__(self) -> Screen:
        if sys.stderr.isatty():
            from rich.live import Live

            self._live = Live(
                console=_output.console(stderr=True),
                get_renderable=self._view,
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    # ---- what the study tells ------------------------------------------------------------------------------

    def begun(self, total: int, waiting: int, spent: float, flops: float) -> None:
        """Runs are about to be done."""
        self._total, self._left, self._spent, self._flops = total, waiting, spent, flops
        self._first, self._share, self._doing = None, 0.0, ""
        self._told = time.monotonic()
        self._note(f"{waiting} of {total} runs to do, {_output.size(flops)} flops")

    def ended(self, run_id: str, outcome: Outcome, again: bool) -> None:
        """A run has ended."""
        if outcome.done is not None:
            self._left -= 1
            losses = {name: domain["loss"] for name, domain in outcome.evals[-1]["domains"].items()}
            told = ", ".join(f"{name} {loss:.4f}" for name, loss in list(losses.items())[:8])
            more = f" and {len(losses) - 8} more" if len(losses) > 8 else ""
            self._note(f"{run_id}: {told}{more}  ({outcome.done['wall_s']:.0f} s; {self._left} to go)")
            return
        self._left -= not again
        what = "failed, to be tried again" if again else "failed"
        self._note(f"{run_id}: {what} at step {outcome.step} ({outcome.reason}): {outcome.message}")

    def tick(self, running: list[Path], share: float) -> None:
        """Runs are under way."""
        now = time.monotonic()
        self._running, self._share = running, share
        if self._first is None and share > 0:
            self._first = now, share
        if self._live is None and now > self._told + _EVERY_S and running:
            self._told = now
            _output.note("; ".join([self._headline(), *(line for _, line in self._runs())]))

    def doing(self, what: str) -> None:
        """Something other than runs is under way; what comes after a colon says how far it is."""
        same = what.partition(":")[0] == self._doing.partition(":")[0]
        self._doing, self._running = what, []
        now = time.monotonic()
        if self._live is None and not (same and now < self._told + _EVERY_S):
            self._told = now
            _output.note(what)

    def decided(self, round_: dict[str, Any]) -> None:
        """A round has come to its decision."""
        self._round = round_
        self._note(f"round {round_['round']}: {decision_line(round_, self._goal)}")

    # ---- what is shown -------------------------------------------------------------------------------------

    def _note(self, text: str) -> None:
        # The console of a live display prints above it; another would print where it is drawn next.
        if self._live is None:
            _output.note(text)
            return
        from rich.text import Text

        self._live.console.print(Text(text, style="dim"))

    def _headline(self) -> str:
        if self._doing:
            return self._doing
        parts = [f"{self._total - self._left} of {self._total} runs, {self._share:.0%} of the flops"]
        now = time.monotonic()
        if self._first and self._share > self._first[1]:
            left = (now - self._first[0]) / (self._share - self._first[1]) * (1 - self._share)
            parts.append(f"about {left / 60:.0f}:{left % 60:02.0f} left")
        return ", ".join(parts)

    def _runs(self) -> list[tuple[float, str]]:
        """Share done and a line for each run under way."""
        from lawkit.backends.torchtitan.launch import progress

        found = []
        for home in self._running:
            record = progress(home) or {}
            steps = record.get("steps")
            line = home.name
            if record:
                line += f": step {record['step']:,}, loss {record['loss']:.3f}, {record['tokens_per_s']:,.0f} tokens/s"
            found.append((record["step"] / steps if steps else 0.0, line))
        return found

    def _view(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        lines: list[RenderableType] = [Text(self._headline(), style="bold")]
        if self._goal is not None:
            used = self._spent + self._share * self._flops
            share = used / self._goal.budget
            said = f" {_output.size(used)} of {_output.size(self._goal.budget)} flops ({share:.0%})"
            lines.append(Text.assemble("budget ", (_bar(share), "cyan"), said))
        table = Table.grid(padding=(0, 1))
        for share, line in self._runs():
            table.add_row(Text(_bar(share), style="green"), Text(line, overflow="ellipsis", no_wrap=True))
        lines.append(table)
        if self._round is not None:
            lines.append(
                Text(f"after round {self._round['round']}: {decision_line(self._round, self._goal)}")
            )
        return Group(*lines)


def decision_line(round_: dict[str, Any], goal: Goal | None = None) -> str:
    """The mixture of a round with its intervals, and the regret expected of choosing it."""
    decision = round_["decision"]
    bands = decision.get("weights_interval", {})
    parts = []
    for name, weight in sorted(decision["weights"].items(), key=lambda item: -item[1])[:8]:
        low, high = bands.get(name, (None, None))
        parts.append(f"{name} {weight:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else ""))
    regret = decision["expected_regret"]
    told = f"{', '.join(parts)}; expected regret {_output.number(regret, 3)} nats"
    return told if goal is None else f"{told}, {goal.tolerance:g} will do"


def _bar(share: float) -> str:
    full = round(_BAR * min(1.0, max(0.0, share)))
    return "━" * full + "╌" * (_BAR - full)
