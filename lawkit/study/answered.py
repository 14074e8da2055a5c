"""What a study knows of a backend that answers without training: replay, simulate, or a third party's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lawkit import backends
from lawkit.backends import RunSpec
from lawkit.backends.torchtitan.launch import Outcome
from lawkit.errors import LawkitError, StudyError
from lawkit.io._cells import parse_size
from lawkit.runs import Runs
from lawkit.study._pool import SAME, generated
from lawkit.study._section import Section
from lawkit.study.answer import Answer, made_backend
from lawkit.study.bench import PlannedRun, Scale
from lawkit.study.executors import Work
from lawkit.study.spec import StudySpec


class Answered:
    """A backend that answers, see `lawkit.study.bench.Bench`."""

    def __init__(self, spec: StudySpec) -> None:
        options, seconds = _options(spec)
        self._spec = spec
        self._options = json.dumps(options, sort_keys=True)
        backend, self._recorded = made_backend(self._options)
        self.sources, self.domains = (
            tuple(_attribute(backend, "sources")),
            tuple(_attribute(backend, "domains")),
        )
        self._digest = hashlib.sha256(
            json.dumps({k: v for k, v in options.items() if k != "table"}, sort_keys=True).encode()
        ).hexdigest()
        if self._recorded is not None:
            self._digest = _digest_of(self._recorded)
        self.setting = {"backend": spec.backend, "world": self._digest}
        self.work: Work = Answer(options=self._options, seconds=seconds)

    def plan(
        self, size: Any, tokens: float, weights: Mapping[str, float], seed: int, recipe: Mapping[str, Any]
    ) -> PlannedRun:
        """The run asked for."""
        unknown = [name for name in weights if name not in self.sources]
        if unknown:
            raise LawkitError(
                f"weights.{unknown[0]}: there is no such source; there are {', '.join(self.sources)}"
            )
        n = float(parse_size(size))
        if self._recorded is None:
            return self._planned(n, tokens, weights, seed, 6 * n * tokens, None)
        row = backends.Replay(self._recorded).find(
            RunSpec(n_params=n, n_tokens=tokens, weights=dict(weights), seed=seed)
        )
        return self._at(row)

    def scales(self) -> list[Scale]:
        """What the ladder asks for, or what is recorded of it."""
        goal = self._spec.goal
        assert goal is not None
        ladder = goal.ladder
        if self._recorded is None:
            if ladder is None:
                raise LawkitError("ladder is missing: name the sizes and tokens that runs may have")
            pairs = [(float(parse_size(n)), d) for n in ladder.sizes for d in ladder.tokens]
            found = [Scale(size=n, tokens=d, n_params=n, n_tokens=d, flops=6 * n * d) for n, d in pairs]
        else:
            rows = self._rows()
            n, d, cost = self._size("n_params"), self._size("n_tokens"), self._cost()
            pairs, first = np.unique(np.column_stack([n, d])[rows], axis=0, return_index=True)
            found = [
                Scale(size=a, tokens=b, n_params=a, n_tokens=b, flops=float(cost[rows[i]]))
                for (a, b), i in zip(pairs.tolist(), first, strict=True)
            ]
        return sorted(found, key=lambda scale: (scale.flops, scale.n_params))

    def upper(self) -> np.ndarray:
        """Any mixture can be asked for."""
        return np.ones(len(self.sources))

    def candidates(
        self, mixtures: np.ndarray, done: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]]
    ) -> Runs:
        """Every mixture at every rung; of recorded runs those that were not asked for yet."""
        if self._recorded is None:
            return generated(self.scales(), mixtures, self.sources, failed, None)
        used = {spec["row"] for spec in (*done, *failed)}
        rows = [row for row in self._rows().tolist() if row not in used]
        seed = self._recorded.seed
        key = np.column_stack(
            [np.log(self._size("n_params")), np.log(self._size("n_tokens")), self._recorded.weights]
        )
        key = np.column_stack([key, np.zeros(len(key)) if seed is None else seed])
        _, first = np.unique((key[rows] / SAME).round(), axis=0, return_index=True)
        part = self._recorded.select(np.sort(np.array(rows, int)[first]))
        return Runs(
            sources=part.sources,
            domains=(),
            n_params=part.n_params,
            n_tokens=part.n_tokens,
            weights=part.weights,
            losses=np.empty((len(part), 0)),
            unique=part.unique,
            flops=self._cost()[part.rows - 1],
            seed=part.seed,
            rows=part.rows,
        )

    def chosen(self, candidates: Runs, row: int, seed: int) -> PlannedRun:
        """The run of a row."""
        if self._recorded is not None:
            return self._at(int(candidates.rows[row]) - 1)
        assert candidates.n_params is not None
        assert candidates.n_tokens is not None
        weights = dict(zip(self.sources, candidates.weights[row].tolist(), strict=True))
        return self.plan(float(candidates.n_params[row]), float(candidates.n_tokens[row]), weights, seed, {})

    def renewed(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The spec as it is: it names no file."""
        return spec

    def table(self, specs: Sequence[Mapping[str, Any]], outcomes: Sequence[Outcome]) -> Runs:
        """One row a run."""
        cells = [o.evals[-1]["domains"] for o in outcomes]

        def column(key: str) -> np.ndarray:
            rows = [[c.get(name, {}).get(key) for name in self.domains] for c in cells]
            return np.array(rows, float).reshape(len(specs), len(self.domains))

        unique = [[(o.done or {})["sources"][name]["unique"] for name in self.sources] for o in outcomes]
        known = np.array(unique, float).reshape(len(specs), len(self.sources))
        se = column("se")
        return Runs(
            sources=self.sources,
            domains=self.domains,
            n_params=np.array([spec["n_params"] for spec in specs], float),
            n_tokens=np.array([spec["n_tokens"] for spec in specs], float),
            weights=np.array([[spec["weights"].get(k, 0.0) for k in self.sources] for spec in specs]).reshape(
                known.shape
            ),
            losses=column("loss"),
            losses_se=None if np.isnan(se).all() else se,
            unique=None if np.isnan(known).all() else known,
            flops=np.array([spec["flops"] for spec in specs], float),
            run_id=np.array([spec["run_id"] for spec in specs], object),
            seed=np.array([spec["seed"] for spec in specs], np.int64),
        )

    def prepare(self, waiting: Sequence[Mapping[str, Any]]) -> None:
        """Nothing is needed."""

    # ---- recorded runs -------------------------------------------------------------------------------------

    def _rows(self) -> np.ndarray:
        """Rows of the table (from 0) that the ladder allows: without one, those that cost less than the target."""
        goal, n, d = self._spec.goal, self._size("n_params"), self._size("n_tokens")
        assert goal is not None
        if goal.ladder is None:
            keep = np.full(len(n), True) if goal.inside else 6 * n * d < 6 * goal.n_params * goal.n_tokens
            if not keep.any():
                raise LawkitError(
                    f"the target, {6 * goal.n_params * goal.n_tokens:.4g} flops (6 N D), lies inside the data: no "
                    "recorded run is cheaper. Name a larger target; target.inside = true if it is meant"
                )
        else:
            sizes = np.array([float(parse_size(size)) for size in goal.ladder.sizes])
            tokens = np.array(goal.ladder.tokens)
            keep = (np.abs(n[:, None] / sizes - 1) < 10 * SAME).any(1)
            keep &= (np.abs(d[:, None] / tokens - 1) < 10 * SAME).any(1)
            if not keep.any():
                raise LawkitError(
                    "ladder: no recorded run has one of its sizes and one of its numbers of tokens"
                )
        return np.flatnonzero(keep)

    def _size(self, column: str) -> np.ndarray:
        """(n,) a size of all recorded runs; the target's where none is recorded."""
        assert self._recorded is not None
        values = getattr(self._recorded, column)
        goal = self._spec.goal
        if values is None and goal is None:
            raise LawkitError(f"the recorded runs have no column {column}")
        return np.full(len(self._recorded), getattr(goal, column)) if values is None else values

    def _cost(self) -> np.ndarray:
        assert self._recorded is not None
        cost, known = 6 * self._size("n_params") * self._size("n_tokens"), self._recorded.flops
        return cost if known is None else np.where(np.isfinite(known) & (known > 0), known, cost)

    def _at(self, row: int) -> PlannedRun:
        assert self._recorded is not None
        weights = dict(zip(self.sources, self._recorded.weights[row].tolist(), strict=True))
        seed = 0 if self._recorded.seed is None else int(self._recorded.seed[row])
        n, d = float(self._size("n_params")[row]), float(self._size("n_tokens")[row])
        return self._planned(n, d, weights, seed, float(self._cost()[row]), row)

    def _planned(
        self, n: float, d: float, weights: Mapping[str, float], seed: int, flops: float, row: int | None
    ) -> PlannedRun:
        kept = {name: float(w) for name, w in weights.items() if w > 0}
        what = [self._digest, n, d, sorted(kept.items()), seed, row]
        identity = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
        run_id = f"{_short(n)}-{_short(d)}-s{seed}-{identity[:8]}"
        spec = {"n_params": n, "n_tokens": d, "weights": kept, "seed": seed, "flops": flops, "run_id": run_id}
        return PlannedRun(
            run_id=run_id,
            identity=identity,
            size=_short(n),
            n_params=n,
            n_tokens=d,
            weights=kept,
            seed=seed,
            flops=flops,
            flops_6nd=6 * n * d,
            spec=spec if row is None else {**spec, "row": row},
        )


def _options(spec: StudySpec) -> tuple[dict[str, Any], float]:
    """What makes the backend, and the seconds that a run lasts; what is wrong in them is named by its path."""
    section = Section(spec.options, "backend", str(spec.path))
    seconds = section.number("seconds", 0.0)
    if spec.backend == "replay":
        table = spec.path.parent / Path(section.text("table")).expanduser()
        section.end()
        return {"name": spec.backend, "table": str(table.resolve())}, seconds
    if spec.backend == "simulate":
        known = {
            "law": section.text("law"),
            "parameters": section.take("parameters"),
            "sources": list(section.names("sources", ())),
            "noise": section.number("noise", 0.0),
            "seed": section.whole("seed", 0),
            **{key: section.size(key) for key in ("n_ref", "d_ref") if key in section.keys},
        }
        section.end()
        return {"name": spec.backend, **known}, seconds
    return {"name": spec.backend, **{key: section.take(key) for key in section.keys}}, seconds


def _attribute(backend: Any, name: str) -> Sequence[str]:
    if not hasattr(backend, name):
        backend = getattr(backend, "recorded", backend)
    try:
        return getattr(backend, name)
    except AttributeError:
        raise StudyError(
            f"a {type(backend).__name__} does not say its {name}, which a study needs to know"
        ) from None


def _digest_of(table: Runs) -> str:
    text = json.dumps(table.columns(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _short(value: float) -> str:
    unit, letter = next(
        (u for u in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")) if value >= u[0]), (1, "")
    )
    return f"{value / unit:.4g}{letter}"
