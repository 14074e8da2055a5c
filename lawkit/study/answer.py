"""A run done by asking a backend, wherever that is: recorded runs, simulated ones, or a third party's."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lawkit import backends
from lawkit._options import check_options
from lawkit.backends import RunSpec
from lawkit.backends.torchtitan.launch import Outcome
from lawkit.backends.torchtitan.records import LOG, SPEC, Records
from lawkit.errors import LawkitError
from lawkit.runs import Runs, read_runs
from lawkit.study.executors import Threads


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Does a run by asking a backend; see `lawkit.study.executors.Work`.

    Attributes
    ----------
    options
        JSON of the backend's name and options, by which every process makes its own.
    seconds
        That a run is made to last.
    """

    options: str
    seconds: float = 0.0

    @property
    def cpus(self) -> int:
        """Waiting takes no processor, but Ray should not start any number of them."""
        return 1

    @property
    def gpus(self) -> int:
        """None."""
        return 0

    def do(self, folder: Path) -> Outcome:
        """Answer the run of a folder and record it as a trained one is recorded."""
        records = Records(folder)
        begun = time.perf_counter(), time.process_time()
        spec = json.loads((folder / SPEC).read_text(encoding="utf-8"))
        records.add("start", step=0)
        (folder / LOG).touch()
        time.sleep(self.seconds)
        try:
            backend, _ = made_backend(self.options)
            answer = backend.run([_run_spec(spec)])
        except LawkitError as error:
            records.add("failed", step=0, reason="refused", message=str(error))
            return Outcome(folder=folder, reason="refused", message=str(error))
        se = answer.losses_se
        domains = {
            name: {"loss": float(loss), "se": None if se is None else float(se[0, i])}
            for i, (name, loss) in enumerate(zip(answer.domains, answer.losses[0], strict=True))
            if np.isfinite(loss)
        }
        unique = (
            dict.fromkeys(answer.sources)
            if answer.unique is None
            else dict(zip(answer.sources, answer.unique[0].tolist(), strict=True))
        )
        evaluation = {"step": 1, "n_tokens": spec["n_tokens"], "is_final": True, "domains": domains}
        records.add("eval", **evaluation)
        done = {
            "step": 1,
            "sources": {name: {"unique": value} for name, value in unique.items()},
            "wall_s": time.perf_counter() - begun[0],
            "cpu_s": time.process_time() - begun[1],
        }
        records.add("done", **done)
        return Outcome(folder=folder, done=done, evals=(evaluation,), step=1)

    def local(self, workers: int | None) -> Threads:
        """Nothing is computed that is worth a process."""
        return Threads(self, workers or 1)


@functools.lru_cache(maxsize=4)
def made_backend(options: str) -> tuple[Any, Runs | None]:
    """The backend of these options, and the table that a replay answers from."""
    given = json.loads(options)
    name = given.pop("name")
    if name == "replay":
        recorded = read_runs(given["table"])
        return backends.Replay(recorded), recorded
    if name == "simulate":
        from lawkit import laws

        law = laws.get(given.pop("law"))
        try:
            return backends.Simulate(law, given.pop("parameters"), **given), None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LawkitError(
                f"backend.parameters do not go with law {law.name}: {error}; `lawkit laws {law.name}` lists them"
            ) from None
    made = backends.get(name)
    try:
        check_options(made, given)
    except LawkitError as error:
        raise LawkitError(f"backend.{error} (backend {name})") from None
    try:
        return made(**given), None
    except TypeError as error:
        raise LawkitError(f"backend {name!r} cannot be made: {error}") from None


def _run_spec(spec: Mapping[str, Any]) -> RunSpec:
    return RunSpec(**{key: spec[key] for key in ("n_params", "n_tokens", "weights", "seed")})
