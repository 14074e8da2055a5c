"""The store of a study: one SQLite file that says of every run what it is, how far it is and what came of it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.errors import StudyError

if TYPE_CHECKING:
    from lawkit.backends.torchtitan.launch import Outcome
    from lawkit.backends.torchtitan.spec import TrainingSpec
    from lawkit.runs import Runs

#: Name of the file in the folder of a study.
FILE = "study.sqlite"
STATES = ("proposed", "running", "done", "failed")
_VERSION = 1

_SCHEMA = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    origin TEXT NOT NULL,            -- spec: the study's file asks for it; otherwise who proposed it
    state TEXT NOT NULL CHECK (state IN ('proposed', 'running', 'done', 'failed')),
    spec TEXT NOT NULL,              -- JSON, what the worker is given
    size TEXT NOT NULL,
    n_params INTEGER NOT NULL,       -- non-embedding
    n_tokens INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    flops REAL NOT NULL,             -- of all matrix products, attention and output layer included
    flops_6nd REAL NOT NULL,
    proposed_at REAL NOT NULL,       -- times in seconds since 1970
    started_at REAL,
    ended_at REAL,
    wall_s REAL,                     -- of training, without the start of the process
    cpu_s REAL,
    pid INTEGER,
    log TEXT,
    reason TEXT,                     -- of a failed run
    message TEXT,
    step INTEGER,                    -- where it ended
    result TEXT                      -- JSON of a finished run: done and evals, as its records have them
);
CREATE TABLE failures (
    run_id TEXT NOT NULL REFERENCES runs,
    at REAL NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    step INTEGER NOT NULL
);
CREATE VIEW losses AS
    SELECT run_id,
        json_extract(eval.value, '$.step') AS step,
        json_extract(eval.value, '$.n_tokens') AS n_tokens,
        json_extract(eval.value, '$.is_final') AS is_final,
        domain.key AS domain,
        json_extract(domain.value, '$.loss') AS loss,
        json_extract(domain.value, '$.se') AS se,
        json_extract(domain.value, '$.per_byte') AS per_byte,
        json_extract(domain.value, '$.per_byte_se') AS per_byte_se
    FROM runs, json_each(runs.result, '$.evals') AS eval, json_each(eval.value, '$.domains') AS domain
    WHERE runs.state = 'done';
CREATE VIEW weights AS
    SELECT run_id, weight.key AS source, weight.value AS weight FROM runs, json_each(runs.spec, '$.weights') AS weight;
"""


class Store:
    """The runs of a study; every change is one transaction, whole or not at all.

    Parameters
    ----------
    folder
        Of the study; the file is made where it is missing.

    Raises
    ------
    StudyError
        When the file cannot be read or written, now or in any method.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / FILE
        with self._errors():
            self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            with self._change():
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _SCHEMA.split(";\n"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version={_VERSION}")
        if version not in (0, _VERSION):
            raise StudyError(
                f"{self.path} was written by another version of lawkit: use that one, or a new folder"
            )

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
                changed = [key for key in value if value[key] != before.get(key)]
                (finished,) = self._db.execute("SELECT count(*) FROM runs WHERE state = 'done'").fetchone()
                if finished:
                    raise StudyError(
                        f"{', '.join(changed)} changed since {finished} runs of {self.folder} were trained, which "
                        "could not be compared with new ones: change it back, or start a study in a new folder"
                    )
                self._db.execute("DELETE FROM failures")
                self._db.execute("DELETE FROM runs")
            self._db.execute("INSERT OR REPLACE INTO study VALUES ('setting', ?)", (text,))

    def propose(self, specs: Sequence[TrainingSpec], *, origin: str = "spec") -> int:
        """Add the runs that are new, and return how many.

        Those of this origin that wait or failed and are not asked for any more are taken out. What is known and not
        done gets its specification anew, which says where the corpus lies now.
        """
        with self._errors(), self._change():
            wanted = {spec.run_id for spec in specs}
            waiting = self._db.execute(
                "SELECT run_id FROM runs WHERE origin = ? AND state IN ('proposed', 'failed')", (origin,)
            )
            for (run_id,) in waiting.fetchall():
                if run_id not in wanted:
                    self._db.execute("DELETE FROM failures WHERE run_id = ?", (run_id,))
                    self._db.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
            known = {run_id for (run_id,) in self._db.execute("SELECT run_id FROM runs")}
            new = [spec for spec in specs if spec.run_id not in known]
            self._db.executemany(
                "UPDATE runs SET spec = ? WHERE run_id = ? AND state != 'done'",
                [(json.dumps(spec.to_dict()), spec.run_id) for spec in specs if spec.run_id in known],
            )
            self._db.executemany(
                "INSERT INTO runs (run_id, origin, state, spec, size, n_params, n_tokens, seed, flops, flops_6nd, "
                "proposed_at) VALUES (?, ?, 'proposed', ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        spec.run_id,
                        origin,
                        json.dumps(spec.to_dict()),
                        spec.size.name,
                        spec.size.n_params,
                        spec.steps * spec.tokens_per_step,
                        spec.seed,
                        float(spec.flops(spec.steps)),
                        6.0 * spec.size.n_params * spec.steps * spec.tokens_per_step,
                        time.time(),
                    )
                    for spec in new
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

    def spec(self, run_id: str) -> TrainingSpec:
        """The specification of a run."""
        from lawkit.backends.torchtitan.spec import TrainingSpec

        with self._errors():
            (text,) = self._db.execute("SELECT spec FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return TrainingSpec.from_dict(json.loads(text))

    def started(self, run_id: str, *, pid: int, log: str) -> None:
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
        """Note that a run failed, and return whether it is proposed again: at most `retries` times."""
        with self._errors(), self._change():
            now = time.time()
            self._db.execute(
                "INSERT INTO failures VALUES (?, ?, ?, ?, ?)",
                (run_id, now, outcome.reason, outcome.message, outcome.step),
            )
            (begun,) = self._db.execute(
                "SELECT count(*) FROM failures WHERE run_id = ?", (run_id,)
            ).fetchone()
            again = outcome.again and begun <= retries
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
            "run_id, origin, state, size, n_params, n_tokens, seed, flops, flops_6nd, proposed_at, started_at, "
            "ended_at, wall_s, cpu_s, log, reason, message, step, "
            "(SELECT count(*) FROM failures WHERE failures.run_id = runs.run_id) AS failures"
        )
        with self._errors():
            return [dict(row) for row in self._db.execute(f"SELECT {columns} FROM runs ORDER BY rowid")]

    def runs(self) -> Runs:
        """The runs table of all finished runs, in the order in which they were proposed."""
        from lawkit.backends.torchtitan import table
        from lawkit.backends.torchtitan.launch import Outcome
        from lawkit.backends.torchtitan.spec import TrainingSpec

        with self._errors():
            found = self._db.execute(
                "SELECT run_id, spec, result FROM runs WHERE state = 'done' ORDER BY rowid"
            ).fetchall()
        specs, outcomes = [], []
        for run_id, spec, result in found:
            value = json.loads(result)
            specs.append(TrainingSpec.from_dict(json.loads(spec)))
            outcomes.append(Outcome(folder=Path(run_id), done=value["done"], evals=tuple(value["evals"])))
        return table(specs, outcomes)

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
