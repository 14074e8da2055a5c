"""The store of a study: one SQLite file that says of every run what it is, how far it is and what came of it."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.backends.torchtitan.launch import Outcome
from lawkit.errors import StudyError
from lawkit.io._json import finite
from lawkit.study._schema import STEPS, VERSION

if TYPE_CHECKING:
    from lawkit.study.bench import PlannedRun

#: Name of the file in the folder of a study.
FILE = "study.sqlite"
#: How parts of a setting are called in messages, where not by their own names.
_SAID = {"world": "what the backend answers"}
STATES = ("proposed", "running", "done", "failed")
#: Reason of a run whose machine was lost, and how often that may happen to it.
LOST, _MOST_LOSSES = "lost", 20


class Store:
    """The runs of a study; every change is one transaction, whole or not at all.

    Parameters
    ----------
    folder
        Of the study; the file is made where it is missing, and only read where it cannot be written.

    Raises
    ------
    StudyError
        When the file cannot be read or written, now or in any method.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE
        with self._errors():
            self._db, writable = _opened(self.path)
            self._db.row_factory = sqlite3.Row
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            self.close()
            raise StudyError(
                f"{self.path} was written by a newer lawkit (its tables are of version {version}, and this one knows "
                f"{VERSION}): use that lawkit, or a new folder"
            )
        if not writable and version == VERSION:
            return
        with self._errors():
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            if version < VERSION:
                self._bring_up_to_date()

    def _bring_up_to_date(self) -> None:
        with self._change():
            # Another process may have done it meanwhile.
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            for step in STEPS[version:]:
                for statement in step.split(";\n"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={VERSION}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def setting(self, value: dict[str, Any]) -> None:
        """Fix what all runs of the study share, such as the corpus and the recipe.

        Raises
        ------
        StudyError
            When runs were finished under another setting; they could not be compared with new ones.
        """
        text = json.dumps(value, sort_keys=True)
        with self._errors(), self._change():
            row = self._db.execute("SELECT value FROM study WHERE key = 'setting'").fetchone()
            if row is not None and row[0] != text:
                before = json.loads(row[0])
                changed = [_SAID.get(key, key) for key in value if value[key] != before.get(key)]
                (finished,) = self._db.execute("SELECT count(*) FROM runs WHERE state = 'done'").fetchone()
                if finished:
                    raise StudyError(
                        f"{', '.join(changed)} changed since {finished} runs of {self.folder} were trained, which "
                        "could not be compared with new ones: change it back, or start a study in a new folder"
                    )
                self._db.execute("DELETE FROM failures")
                self._db.execute("DELETE FROM runs")
                self._db.execute("DELETE FROM rounds")
            self._db.execute("INSERT OR REPLACE INTO study VALUES ('setting', ?)", (text,))

    def keep(self, key: str, value: dict[str, Any]) -> None:
        """Keep a value under a key, in place of what was there."""
        with self._errors(), self._change():
            self._db.execute("INSERT OR REPLACE INTO study VALUES (?, ?)", (key, json.dumps(value)))

    def kept(self, key: str) -> Any:
        """The value kept under a key; None where there is none."""
        with self._errors():
            row = self._db.execute("SELECT value FROM study WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def propose(
        self,
        runs: Sequence[PlannedRun],
        *,
        origin: str = "spec",
        round_: int = 0,
        proposal: Mapping[str, Any] | None = None,
    ) -> int:
        """Add the runs that are new, with the round that they begin, or add to, if it has a `proposal`; say how many.

        Those of this origin that wait or failed and are not asked for any more are taken out. What is known and not
        done gets its specification anew, which says where the corpus lies now.
        """
        with self._errors(), self._change():
            if proposal is not None:
                self._db.execute(
                    "INSERT INTO rounds (round, begun_at, proposal) VALUES (?, ?, ?) "
                    "ON CONFLICT (round) DO UPDATE SET proposal = excluded.proposal",
                    (round_, time.time(), json.dumps(finite(dict(proposal)))),
                )
            wanted = {run.run_id for run in runs}
            waiting = self._db.execute(
                "SELECT run_id FROM runs WHERE origin = ? AND state IN ('proposed', 'failed')", (origin,)
            )
            for (run_id,) in waiting.fetchall():
                if run_id not in wanted:
                    self._db.execute("DELETE FROM failures WHERE run_id = ?", (run_id,))
                    self._db.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
            known = {run_id for (run_id,) in self._db.execute("SELECT run_id FROM runs")}
            # One that comes twice is one run.
            new = {run.run_id: run for run in runs if run.run_id not in known}.values()
            self._db.executemany(
                "UPDATE runs SET spec = ? WHERE run_id = ? AND state != 'done'",
                [(json.dumps(dict(run.spec)), run.run_id) for run in runs if run.run_id in known],
            )
            self._db.executemany(
                "INSERT INTO runs (run_id, origin, state, spec, size, n_params, n_tokens, seed, flops, flops_6nd, "
                "proposed_at, round) VALUES (?, ?, 'proposed', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        run.run_id,
                        origin,
                        json.dumps(dict(run.spec)),
                        run.size,
                        run.n_params,
                        run.n_tokens,
                        run.seed,
                        run.flops,
                        run.flops_6nd,
                        time.time(),
                        round_,
                    )
                    for run in new
                ],
            )
        return len(new)

    def in_state(self, *states: str) -> list[str]:
        """Names of the runs in these states, in the order in which they were proposed."""
        marks = ", ".join("?" * len(states))
        with self._errors():
            found = self._db.execute(
                f"SELECT run_id FROM runs WHERE state IN ({marks}) ORDER BY rowid", states
            )
            return [run_id for (run_id,) in found]

    def again(self, run_ids: Sequence[str]) -> None:
        """Propose runs again, which then resume where they can."""
        with self._errors(), self._change():
            self._db.executemany(
                "UPDATE runs SET state = 'proposed', reason = NULL, message = NULL WHERE run_id = ?",
                [(run_id,) for run_id in run_ids],
            )

    def spec(self, run_id: str) -> dict[str, Any]:
        """The specification of a run, as its worker is given it."""
        with self._errors():
            (text,) = self._db.execute("SELECT spec FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return json.loads(text)

    def started(self, run_id: str, *, pid: int | None, log: str) -> None:
        """Note that a worker has taken up a run."""
        with self._errors(), self._change():
            self._db.execute(
                "UPDATE runs SET state = 'running', pid = ?, log = ?, started_at = coalesce(started_at, ?) "
                "WHERE run_id = ?",
                (pid, log, time.time(), run_id),
            )

    def finished(self, run_id: str, outcome: Outcome) -> None:
        """Note what a run has brought; a second time changes nothing."""
        done = outcome.done or {}
        result = json.dumps({"done": done, "evals": list(outcome.evals)})
        with self._errors(), self._change():
            self._db.execute(
                "UPDATE runs SET state = 'done', ended_at = ?, wall_s = ?, cpu_s = ?, step = ?, result = ?, "
                "pid = NULL, reason = NULL, message = NULL WHERE run_id = ? AND state != 'done'",
                (time.time(), done.get("wall_s"), done.get("cpu_s"), outcome.step, result, run_id),
            )

    def failed(self, run_id: str, outcome: Outcome, *, retries: int) -> bool:
        """Note that a run failed, and return whether it is proposed again: at most `retries` times, or 20 if lost."""
        with self._errors(), self._change():
            now = time.time()
            self._db.execute(
                "INSERT INTO failures VALUES (?, ?, ?, ?, ?)",
                (run_id, now, outcome.reason, outcome.message, outcome.step),
            )
            lost = outcome.reason == LOST
            (before,) = self._db.execute(
                "SELECT count(*) FROM failures WHERE run_id = ? AND (reason = ?) = ?", (run_id, LOST, lost)
            ).fetchone()
            # A machine that is taken away is not the run's fault.
            again = outcome.again and before <= (_MOST_LOSSES if lost else retries)
            self._db.execute(
                "UPDATE runs SET state = ?, ended_at = ?, reason = ?, message = ?, step = ?, pid = NULL "
                "WHERE run_id = ?",
                (
                    "proposed" if again else "failed",
                    now,
                    outcome.reason,
                    outcome.message,
                    outcome.step,
                    run_id,
                ),
            )
        return again

    def rows(self) -> list[dict[str, Any]]:
        """Every run with its state, sizes, times and, where it failed, why."""
        columns = (
            "run_id, origin, round, state, size, n_params, n_tokens, seed, flops, flops_6nd, proposed_at, started_at, "
            "ended_at, wall_s, cpu_s, log, reason, message, step, "
            "(SELECT count(*) FROM failures WHERE failures.run_id = runs.run_id) AS failures"
        )
        with self._errors():
            return [dict(row) for row in self._db.execute(f"SELECT {columns} FROM runs ORDER BY rowid")]

    def results(self) -> tuple[list[dict[str, Any]], list[Outcome]]:
        """Specifications and outcomes of all finished runs, in the order in which they were proposed."""
        with self._errors():
            found = self._db.execute(
                "SELECT run_id, spec, result FROM runs WHERE state = 'done' ORDER BY rowid"
            ).fetchall()
        specs, outcomes = [], []
        for run_id, spec, result in found:
            value = json.loads(result)
            specs.append(json.loads(spec))
            outcomes.append(Outcome(folder=Path(run_id), done=value["done"], evals=tuple(value["evals"])))
        return specs, outcomes

    # ---- rounds --------------------------------------------------------------------------------------------

    def rounds(self) -> list[dict[str, Any]]:
        """All rounds in their order; what is not there yet is None."""
        with self._errors():
            found = [dict(row) for row in self._db.execute("SELECT * FROM rounds ORDER BY round")]
        for row in found:
            for key in ("proposal", "fit", "decision"):
                row[key] = None if row[key] is None else json.loads(row[key])
        return found

    def note_round(self, round_: int, **values: Any) -> None:
        """Note what is known of a round by now: mappings are kept as JSON."""
        cells = {
            key: json.dumps(finite(value)) if isinstance(value, dict) else value
            for key, value in values.items()
        }
        with self._errors(), self._change():
            assigned = ", ".join(f"{key} = ?" for key in cells)
            self._db.execute(f"UPDATE rounds SET {assigned} WHERE round = ?", (*cells.values(), round_))

    @contextmanager
    def _change(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StudyError(
                f"{self.path}: {error}: see that the folder is writable, the disk has space and the file is whole"
            ) from None


def _opened(path: Path) -> tuple[sqlite3.Connection, bool]:
    """The file of a store, and whether it can be written."""
    writable = all(os.access(p, os.W_OK) for p in (path.parent, path) if p.exists())
    if writable:
        return sqlite3.connect(path, timeout=30, isolation_level=None), True
    # While nobody writes there is no log beside it, which SQLite would want to make.
    alone = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    uri = f"{path.resolve().as_uri()}?mode=ro{alone}"
    return sqlite3.connect(uri, timeout=30, isolation_level=None, uri=True), False
