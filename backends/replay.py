"""Replay: answer with runs that were recorded before.

What a study would have found had it chosen other runs can be asked of a table that holds
them; it costs nothing and the losses are real.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lawkit.backends._backend import RunSpec
from lawkit.errors import LawkitError
from lawkit.runs import Runs


class Replay:
    """Answers each specification with the recorded run that it describes.

    Parameters
    ----------
    recorded
        The runs to answer from.
    tolerance
        A recorded run is the one asked for when its sizes agree within this fraction and each
        weight within this much. The default allows for weights written with four digits.

    Examples
    --------
    >>> import numpy as np
    >>> recorded = Runs(sources=("web", "hq"), domains=("wiki",), n_params=np.array([1e8, 1e8]),
    ...     n_tokens=np.array([2e9, 2e9]), weights=np.array([[1, 0], [0.5, 0.5]]),
    ...     losses=np.array([[3.5], [3.25]]))
    >>> asked = RunSpec(n_params=1e8, n_tokens=2e9, weights={"web": 0.5, "hq": 0.5})
    >>> Replay(recorded).run([asked]).losses.tolist()
    [[3.25]]
    """

    def __init__(self, recorded: Runs, *, tolerance: float = 1e-4) -> None:
        self.recorded = recorded
        self.tolerance = tolerance

    def run(self, specs: Sequence[RunSpec]) -> Runs:
        """Return the recorded runs, one a specification.

        Where a run was recorded with several seeds, the specification's own seed is taken; where
        the table records no seed, the first such row.

        Raises
        ------
        LawkitError
            When a run, or its seed, was never recorded; the message names the nearest that was.
        """
        return self.recorded.select(np.array([self.find(spec) for spec in specs], dtype=np.int64))

    def find(self, spec: RunSpec) -> int:
        """Row (from 0) of the recorded run that a specification asks for; see `run`."""
        table = self.recorded
        unknown = [name for name, weight in spec.weights.items() if weight and name not in table.sources]
        if unknown:
            raise LawkitError(
                f"source {unknown[0]!r} of the run asked for is not in the recorded table; "
                f"it has {', '.join(table.sources)}"
            )
        weights = np.array([spec.weights.get(name, 0.0) for name in table.sources])
        distance = np.zeros(len(table))
        if table.sources:
            distance = np.abs(table.weights - weights).max(axis=1)
        for asked, column in ((spec.n_params, table.n_params), (spec.n_tokens, table.n_tokens)):
            if column is not None:
                distance = np.maximum(distance, np.abs(np.log(column / asked)))
        if not len(table) or distance.min() > self.tolerance:
            raise LawkitError(f"no recorded run has {_said(spec)}; {self._nearest(distance)}")
        same = np.flatnonzero(distance <= self.tolerance)
        if table.seed is None:
            return int(same[0])
        seeded = same[table.seed[same] == spec.seed]
        if not len(seeded):
            seeds = ", ".join(str(s) for s in sorted(set(table.seed[same].tolist())))
            raise LawkitError(
                f"the run with {_said(spec)} was recorded with seed {seeds}, not {spec.seed}: ask for one of "
                "these"
            )
        return int(seeded[0])

    def _nearest(self, distance: np.ndarray) -> str:
        if not len(distance):
            return "the table is empty"
        row = self.recorded.rows[int(np.argmin(distance))]
        return f"the nearest is row {row} of {self.recorded.path or 'the table'}"


def _said(spec: RunSpec) -> str:
    mixture = ", ".join(f"{name} {weight:.4g}" for name, weight in spec.weights.items() if weight)
    return f"n_params {spec.n_params:.4g}, n_tokens {spec.n_tokens:.4g} and mixture {mixture}"
