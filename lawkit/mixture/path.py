"""How the best mixture moves with the size of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture.optimize import optimize_mixture
from lawkit.mixture.result import MixtureResult
from lawkit.mixture.target import check_size

if TYPE_CHECKING:
    from lawkit.fitting import Fit


@dataclass(frozen=True, kw_only=True)
class MixturePath:
    """The best mixtures along one size.

    Attributes
    ----------
    vary
        Which size moves.
    sizes
        (n,) its values, evenly spaced on a logarithmic scale.
    results
        The best mixture at each.
    """

    vary: Literal["n_params", "n_tokens"]
    sizes: np.ndarray
    results: tuple[MixtureResult, ...]

    @property
    def weights(self) -> np.ndarray:
        """(n, K) the mixtures."""
        return np.array([list(r.weights.values()) for r in self.results])

    def to_dict(self) -> dict[str, Any]:
        """What `lawkit optimize-mixture --path --json` prints under 'path'."""
        kept = (
            "weights", "objective", "optimality_gap", "certificate", "active_constraints", "shadow_prices",
            "weights_interval",
        )  # fmt: skip
        rows = [r.to_dict() for r in self.results]
        return {
            "vary": self.vary,
            "points": [
                {self.vary: float(s), **{k: r[k] for k in kept if k in r}}
                for s, r in zip(self.sizes, rows, strict=True)
            ],
        }


def mixture_path(
    fit: Fit, vary: str, start: float, stop: float, *, points: int = 9, **arguments: Any
) -> MixturePath:
    """The best mixture at sizes from `start` to `stop`; limits that depend on n_tokens move with it.

    Parameters
    ----------
    fit
        A fitted law of mixtures and of that size.
    vary
        'n_params' or 'n_tokens'.
    start, stop
        Its first and last value.
    points
        How many sizes, evenly spaced on a logarithmic scale.
    **arguments
        As for `optimize_mixture`; the size that varies is not among them.

    Raises
    ------
    OptimizeError
        For sizes that make no path, and as `optimize_mixture`, naming the size.

    Examples
    --------
    >>> import lawkit, numpy as np
    >>> hq, d = np.linspace(0.05, 0.95, 12), np.tile([1e9, 4e9], 6)
    >>> runs = lawkit.Runs(sources=("web", "hq"), domains=("wiki",), n_params=None, n_tokens=d,
    ...     weights=np.column_stack([1 - hq, hq]), losses=(1.5 + np.exp(-hq) + 500 / d**.3)[:, None])
    >>> fit = lawkit.fit(runs, law="exponential-scale", holdout="none")
    >>> path = mixture_path(fit, "n_tokens", 1e10, 1e12, points=3, available={"hq": 1e9})
    >>> [round(r.weights["hq"], 3) for r in path.results]  # four epochs of 1B tokens
    [0.4, 0.04, 0.004]
    """
    if vary not in ("n_params", "n_tokens"):
        raise OptimizeError(f"a path runs along n_params or n_tokens, got {vary!r}")
    for name, value in (("start", start), ("stop", stop)):
        check_size(f"{name} of the path", value)
    if isinstance(points, bool) or not isinstance(points, (int, np.integer)) or points < 2 or stop <= start:
        raise OptimizeError(
            f"a path needs at least 2 points and a start below its stop, got {points!r} from {start:g} to {stop:g}"
        )
    sizes = np.geomspace(start, stop, points)
    results = []
    for size in sizes:
        try:
            results.append(optimize_mixture(fit, **{**arguments, vary: float(size)}))
        except OptimizeError as error:
            raise OptimizeError(f"at {vary} {size:.4g}: {error}") from error
    return MixturePath(
        vary="n_params" if vary == "n_params" else "n_tokens", sizes=sizes, results=tuple(results)
    )
