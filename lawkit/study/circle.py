"""The closed circle: do the runs, fit, optimise, decide, and propose the next runs, until it may stop.

Every step is in the store before the next one begins, and each is a function of what the store holds and of seeds. So
a study that was killed goes on with the step that it was in, and comes to the decision that it would have come to.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.design.policy import settled
from lawkit.errors import LawkitError, StudyError
from lawkit.study.decide import decide, fit_runs, fit_summary, propose
from lawkit.study.spending import on_generation, on_runs, spent
from lawkit.study.start import starting_runs
from lawkit.study.training import export

if TYPE_CHECKING:
    from lawkit.fitting import Fit
    from lawkit.study.bench import Bench, PlannedRun
    from lawkit.study.goal import Goal
    from lawkit.study.runner import Watcher
    from lawkit.study.spec import StudySpec
    from lawkit.study.store import Store

#: Origin of the runs of a space-filling start.
START = "start"
#: Folder of the rounds' fits, in the folder of a study.
FITS = "fits"


class Circle:
    """The circle of one study.

    Parameters
    ----------
    spec, bench, store
        The study; its spec has a goal.
    watcher
        Is told what has been decided.
    """

    def __init__(self, spec: StudySpec, bench: Bench, store: Store, watcher: Watcher | None = None) -> None:
        assert spec.goal is not None
        self._spec, self._bench, self._store, self._watcher = spec, bench, store, watcher
        self._goal: Goal = spec.goal
        self._folder: Path = store.folder
        self._fit: Fit | None = None

    def turn(self, train: Callable[[], int]) -> str:
        """Turn until there is a reason to stop, and return it; `train` does all runs that wait.

        Raises
        ------
        StudyError
            When the runs cannot be fitted or no mixture can be found; all runs are kept.
        """
        self.begin()
        while True:
            train()
            stop = self._close_round() or self._open_round()
            if stop is not None:
                self._store.note_round(self._last["round"], stop=stop)
                return stop

    def begin(self, taken: float = 0.0) -> None:
        """Put the start into the store; of one that is there and undecided what loop.start has been raised by.

        Of the budget `taken` flops are not to be had, beside those of generated text and of the runs that are there.
        """
        if self._store.rounds():
            begun = self._begun_with
            if not begun or (self._goal.start or 0) <= self._last["proposal"].get("start", len(begun)):
                return
        origin, runs, proposal = self.start(taken)
        self._store.propose(runs, origin=origin, round_=0, proposal=proposal)

    def start(self, taken: float = 0.0) -> tuple[str, list[PlannedRun], dict[str, Any]]:
        """The runs of round 0: those of the grids, or of a space-filling start."""
        text, begun = on_generation(self._store), self._begun_with
        try:
            if self._spec.grids and not begun:
                runs = self._spec.plan(self._bench)
                flops = sum(run.flops for run in runs)
                if flops > self._goal.budget - text:
                    less = f", of which generation took {text:.4g}" if text else ""
                    raise LawkitError(
                        f"the runs of the grids take {flops:.4g} flops, more than loop.budget, "
                        f"{self._goal.budget:.4g}{less}"
                    )
                return "spec", runs, {"method": "grid"}
            taken += text + sum(row["flops"] for row in self._store.rows())
            specs = [self._store.spec(row["run_id"]) for row in begun]
            runs = starting_runs(self._goal, self._bench, taken, specs)
            origin = f"{START} {len(begun)}" if begun else START
            return origin, runs, {"method": "space-filling", "start": self._goal.start or len(runs)}
        except StudyError:
            raise
        except LawkitError as error:
            raise StudyError(f"{self._spec.path}: {error}") from None

    def next_runs(self, left: float | None = None) -> tuple[list[PlannedRun], dict[str, Any], str | None]:
        """The runs of the round after the last, which has been decided, how they were chosen, or why there are none.

        Parameters
        ----------
        left
            Flops that they may take; None: what is left of the budget.

        Raises
        ------
        StudyError
            When no run can be proposed.
        """
        last, states = self._last, self._states()
        if self._watcher:
            self._watcher.doing("choosing the next runs")
        try:
            runs, proposal = propose(
                self._goal,
                self._bench,
                self._fitted(),
                last=last["decision"],
                spent=on_runs(self._store),
                left=self.left if left is None else left,
                round_=last["round"] + 1,
                done=states["done"],
                failed=states["failed"],
            )
        except LawkitError as error:
            raise StudyError(f"no run can be proposed after round {last['round']}: {error}") from None
        if proposal is None:
            return [], {}, "candidates: no run that can be had is left, or none within the budget"
        told = proposal.to_dict()
        kept = (
            "method",
            "budget",
            "spent",
            "stopped",
            "efficiency",
            "expected_regret_now",
            "n_candidates",
            "warnings",
        )
        about = {**{key: told[key] for key in kept}, "regret_after": [r.regret_after for r in proposal.runs]}
        return runs, about, None if runs else f"no run is worth it: {proposal.stopped}"

    @property
    def left(self) -> float:
        """Flops that may still be spent."""
        return self._goal.budget - spent(self._store)

    @property
    def _begun_with(self) -> list[dict[str, Any]]:
        """The runs of a start, which can be added to: until the first decision, and unless it was grids."""
        if any(row["decision"] or row["round"] for row in self._store.rounds()):
            return []
        return [row for row in self._store.rows() if row["origin"].startswith(START)]

    # ---- steps ---------------------------------------------------------------------------------------------

    @property
    def _last(self) -> dict[str, Any]:
        return self._store.rounds()[-1]

    def _states(self) -> dict[str, list[dict[str, Any]]]:
        return {
            state: [self._store.spec(run_id) for run_id in self._store.in_state(state)]
            for state in ("done", "failed")
        }

    def _close_round(self) -> str | None:
        """Fit and decide, unless that is in the store for these very runs, and say why to stop."""
        last = self._last
        finished = self._store.in_state("done")
        if not finished:
            raise StudyError(
                f"none of the {len(self._store.rows())} runs could be done: lawkit study status says why"
            )
        question = json.dumps([finished, self._goal.digest])
        basis = hashlib.sha256(question.encode()).hexdigest()
        if last["basis"] != basis:
            self._fit = None
            fit = self._fitted()
            self._store.note_round(
                last["round"],
                basis=basis,
                fit=fit_summary(fit),
                decision=None,
                flops=spent(self._store),
                stop=None,
            )
            last["decision"] = None
        if last["decision"] is None:
            if self._watcher:
                self._watcher.doing("optimising the mixture")
            try:
                decision = decide(self._goal, self._fitted())
            except LawkitError as error:
                raise StudyError(f"no decision after round {last['round']}: {error}") from None
            decision["question"] = self._goal.digest
            self._store.note_round(last["round"], decision=decision, decided_at=time.time())
        stop = self._reason()
        if self._watcher:
            self._watcher.decided(self._last)
        return stop

    def _open_round(self) -> str | None:
        """Propose the runs of the next round, or say why there is none."""
        runs, proposal, stop = self.next_runs()
        if stop is None:
            round_ = self._last["round"] + 1
            self._store.propose(runs, origin=f"round {round_}", round_=round_, proposal=proposal)
        return stop

    def _fitted(self) -> Fit:
        """The fit to all finished runs, made again where this process has not made it."""
        if self._fit is None:
            runs = export(self._folder, self._bench, self._store)
            assert runs is not None
            if self._watcher:
                self._watcher.doing(f"fitting {len(runs)} runs")
            try:
                self._fit = fit_runs(self._goal, runs)
            except LawkitError as error:
                begun = len(self._begun_with)
                asked = self._last["proposal"].get("start", begun)
                # Where fewer began than were asked for there are no more.
                raised = f"raise loop.start above {asked}, " if 0 < asked <= begun else ""
                raise StudyError(
                    f"{len(self._store.in_state('done'))} runs cannot be fitted: {error} ({raised}add runs by a "
                    "[[grid]], or name another law in loop.laws)"
                ) from None
            self._fit.save(self._folder / FITS / f"round-{self._last['round']:02d}")
        return self._fit

    def _reason(self) -> str | None:
        """Why to stop after the last round, if that is to be."""
        goal, last = self._goal, self._last
        of_round = [row["state"] for row in self._store.rows() if row["round"] == last["round"]]
        if of_round and all(state == "failed" for state in of_round):
            return f"failures: none of the {len(of_round)} runs of round {last['round']} could be done"
        same = [
            r["decision"]["expected_regret"]
            for r in self._store.rounds()
            if r["decision"] and r["decision"].get("question") == last["decision"]["question"]
        ]
        if settled(same, goal.tolerance):
            return (
                f"tolerance: the expected regret, {same[-1]:.3g} nats, is within {goal.tolerance:g}, as it was in the "
                "round before"
            )
        if last["round"] >= goal.rounds:
            return f"rounds: {goal.rounds} were proposed, as many as loop.rounds allows"
        cheapest = self._bench.scales()[0].flops
        if self.left < cheapest:
            return (
                f"budget: {max(self.left, 0):.3g} of {goal.budget:.3g} flops are left, and the cheapest run takes "
                f"{cheapest:.3g}"
            )
        return None
