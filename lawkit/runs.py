"""Runs: the table of trained models that everything else starts from, one row a model.

Units: `n_params` counts non-embedding parameters and `n_tokens` training tokens, both as plain counts
(7e9, not 7 billions); losses are nats per token; weights are fractions of the training tokens.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import RunsError

if TYPE_CHECKING:
    import pandas as pd

    from lawkit.io.checks import check_runs
    from lawkit.io.importing import import_runs

__all__ = ["Runs", "check_runs", "import_runs", "read_runs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """Trained models: their scale, their mixture and their losses.

    The arrays are read-only. Cells that the table leaves empty are NaN.

    Attributes
    ----------
    sources : tuple of str, length K
        What the models were trained on; empty when the table has no weights.
    domains : tuple of str, length E
        What they were evaluated on.
    n_params, n_tokens : ndarray, shape (n,), or None
        Non-embedding parameters and training tokens; None where the table has no such column
        and all runs share one size.
    weights : ndarray, shape (n, K)
        Fractions of the training tokens, each row summing to 1.
    losses : ndarray, shape (n, E)
        Nats per token; NaN where missing.
    losses_se : ndarray, shape (n, E), or None
        Standard errors of the losses.
    unique : ndarray, shape (n, K), or None
        Tokens available in each source before it repeats.
    flops : ndarray, shape (n,), or None
        Training compute.
    run_id : ndarray of str, shape (n,), or None
        Name of the run; "" where missing. Checkpoints of one run share it.
    seed : ndarray of int, shape (n,), or None
        Training seed; -1 where missing.
    is_final : ndarray of bool, shape (n,), or None
        Whether the row is a finished run rather than an intermediate checkpoint.
    rows : ndarray of int, shape (n,)
        Data row of the file, the first under the header being 1; messages use it.
    path : str or None
        Where the table was read from.
    warnings : tuple of str
        What was odd about the table.

    Raises
    ------
    RunsError
        When the arrays do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> runs = Runs(sources=("web", "hq"), domains=("wiki",), n_params=np.array([1e8, 1e8]),
    ...     n_tokens=np.array([2e9, 2e9]), weights=np.array([[1, 0], [0.5, 0.5]]),
    ...     losses=np.array([[3.5], [3.25]]))
    >>> len(runs), runs.select([1]).weights.tolist()
    (2, [[0.5, 0.5]])
    """

    sources: tuple[str, ...]
    domains: tuple[str, ...]
    n_params: np.ndarray | None
    n_tokens: np.ndarray | None
    weights: np.ndarray
    losses: np.ndarray
    losses_se: np.ndarray | None = None
    unique: np.ndarray | None = None
    flops: np.ndarray | None = None
    run_id: np.ndarray | None = None
    seed: np.ndarray | None = None
    is_final: np.ndarray | None = None
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    path: str | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n, K, E = len(self.losses), len(self.sources), len(self.domains)
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "n_params": ((n,), float),
            "n_tokens": ((n,), float),
            "weights": ((n, K), float),
            "losses": ((n, E), float),
            "losses_se": ((n, E), float),
            "unique": ((n, K), float),
            "flops": ((n,), float),
            "run_id": ((n,), object),
            "seed": ((n,), np.int64),
            "is_final": ((n,), bool),
            "rows": ((n,), np.int64),
        }
        if len(self.rows) == 0:
            object.__setattr__(self, "rows", np.arange(1, n + 1))
        for name, (shape, dtype) in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            array = np.array(value, dtype=dtype)
            if array.shape != shape:
                raise RunsError(
                    f"Runs.{name} has shape {array.shape} where {shape} is needed: {n} runs, {K} sources, "
                    f"{E} domains."
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        for kind in ("sources", "domains"):
            names = tuple(getattr(self, kind))
            object.__setattr__(self, kind, names)
            if len(set(names)) < len(names) or not all(names):
                raise RunsError(f"Runs.{kind} must be distinct names, not {names}.")
        for name in self.domains:
            if self.losses_se is not None and f"{name}_se" in self.domains:
                raise RunsError(
                    f"the domains {name!r} and {name + '_se'!r} cannot stand together in a table with standard errors: "
                    f"loss_{name}_se is the standard error of loss_{name}. Rename one."
                )

    def __len__(self) -> int:
        return len(self.losses)

    def __repr__(self) -> str:
        return (
            f"Runs({len(self)} runs, {len(self.sources)} sources, {len(self.domains)} domains"
            + (f", from {self.path}" if self.path else "")
            + ")"
        )

    @property
    def scale(self) -> np.ndarray | None:
        """(n_params, n_tokens), shape (n, 2); None unless the table has both."""
        if self.n_params is None or self.n_tokens is None:
            return None
        return np.column_stack([self.n_params, self.n_tokens])

    def select(self, which: Sequence[int] | Sequence[bool] | np.ndarray) -> Runs:
        """Return the runs at a boolean mask or at indices, in that order.

        Examples
        --------
        >>> import numpy as np
        >>> runs = Runs(sources=(), domains=("wiki",), n_params=None, n_tokens=np.array([1e9, 2e9]),
        ...     weights=np.empty((2, 0)), losses=np.array([[3.5], [3.25]]))
        >>> runs.select(runs.n_tokens > 1e9).rows.tolist()
        [2]
        """
        index = np.asarray(which)
        if index.size == 0:
            index = index.astype(np.int64)
        per_run = ("n_params", "n_tokens", "weights", "losses", "losses_se", "unique", "flops")
        per_run += ("run_id", "seed", "is_final", "rows")
        chosen = {name: getattr(self, name)[index] for name in per_run if getattr(self, name) is not None}
        return replace(self, **chosen)

    def with_domains(self, names: Sequence[str]) -> Runs:
        """Return the same runs with these evaluation domains only, in this order.

        Raises
        ------
        RunsError
            When a name is not a domain of the table.
        """
        unknown = [name for name in names if name not in self.domains]
        if unknown:
            import difflib

            close = difflib.get_close_matches(unknown[0], self.domains, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise RunsError(
                f"no domain {unknown[0]!r} in {self.path or 'the table'}; "
                f"it has {', '.join(self.domains)}.{hint}"
            )
        index = [self.domains.index(name) for name in names]
        se = None if self.losses_se is None else self.losses_se[:, index]
        return replace(self, domains=tuple(names), losses=self.losses[:, index], losses_se=se)

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns of the runs table by name: plain values, None for an empty cell."""
        out: dict[str, list[Any]] = {}
        if self.run_id is not None:
            out["run_id"] = [name or None for name in self.run_id.tolist()]
        if self.seed is not None:
            out["seed"] = [None if seed < 0 else seed for seed in self.seed.tolist()]
        for name in ("n_params", "n_tokens", "flops"):
            values = getattr(self, name)
            if values is not None:
                out[name] = _plain(values)
        for prefix, names, table, suffix in (
            ("weight_", self.sources, self.weights, ""),
            ("unique_", self.sources, self.unique, ""),
            ("loss_", self.domains, self.losses, ""),
            ("loss_", self.domains, self.losses_se, "_se"),
        ):
            if table is not None:
                out |= {f"{prefix}{name}{suffix}": _plain(table[:, j]) for j, name in enumerate(names)}
        if self.is_final is not None:
            out["is_final"] = self.is_final.tolist()
        return out

    def to_frame(self) -> pd.DataFrame:
        """Return the runs table as a pandas DataFrame, in the columns that :func:`read_runs` reads."""
        import pandas as pd

        kinds = {
            "run_id": object,
            "seed": "Int64" if self.seed is not None and (self.seed < 0).any() else "int64",
        }
        kinds["is_final"] = bool
        return pd.DataFrame(
            {name: pd.Series(cells, dtype=kinds.get(name, float)) for name, cells in self.columns().items()}
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the runs table as CSV, Parquet or JSON lines, by the suffix of `path`.

        The file is written beside `path` and renamed over it; reading it back gives the same numbers
        bit for bit.

        Raises
        ------
        RunsError
            When the suffix is unknown or the file cannot be written.
        """
        from lawkit.io._write import write_table

        write_table(self.columns(), path)


def _plain(values: np.ndarray) -> list[Any]:
    """Floats as Python numbers: None for NaN, and int where whole, so that 1e9 reads 1000000000."""
    return [
        None if value != value else int(value) if value.is_integer() and abs(value) < 2.0**53 else value
        for value in values.tolist()
    ]


def read_runs(source: str | os.PathLike[str] | pd.DataFrame | Runs, *, require_losses: bool = True) -> Runs:
    """Read a runs table and check every cell of it.

    Columns: `n_params`, `n_tokens`, `weight_<source>` (each row summing to 1 within 1e-3, then
    normalised), `loss_<domain>`; optionally `run_id`, `seed`, `flops`, `unique_<source>`,
    `loss_<domain>_se`, `is_final`. The two sizes may be left out where all runs share one scale.
    Sizes may be written 7e9 or 7B.

    Parameters
    ----------
    source : path, pandas.DataFrame or Runs
        A .csv, .csv.gz, .tsv, .parquet or .jsonl file, ``-`` for CSV on standard input, or a table in memory.
    require_losses : bool
        False for a table of runs still to be trained or predicted, which needs no losses.

    Returns
    -------
    Runs
        Its `warnings` say what is odd: unknown columns, units that look off, duplicates, checkpoints.

    Raises
    ------
    RunsError
        When the table cannot be used; the message names the file, the rows, the column and the value.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"n_params": ["70M", "160M"], "n_tokens": [2e9, 2e9], "loss_wiki": [3.5, 3.25]})
    >>> read_runs(table).n_params.tolist()
    [70000000.0, 160000000.0]
    """
    if isinstance(source, Runs):
        return source
    from lawkit.io._tables import read_table
    from lawkit.io.reading import runs_from_table

    return runs_from_table(read_table(source), require_losses=require_losses)


def __getattr__(name: str) -> Any:
    # Checks and importers read this module, so it can only name them when asked.
    if name in _ELSEWHERE:
        return getattr(import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_ELSEWHERE = {"check_runs": "lawkit.io.checks", "import_runs": "lawkit.io.importing"}
