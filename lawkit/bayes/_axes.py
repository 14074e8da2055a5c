"""Coordinates for a sampler: about unit size, uncorrelated at the posterior's mode, straight where it bends most.

The level of the losses is what runs know best, by far: all else that the parameters may do, they do on a thin sheet of
vectors that predict the same level. The sheet is curved (terms of a loss add up, and each is fitted as a logarithm),
which costs a sampler dearly. So it is flattened: parameters are moved along the direction that scales all losses
alike, by as much as their level differs from the mode's. That is a shear, so densities stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lawkit.bayes._proposal import Normal
from lawkit.bayes.density import LogPosterior
from lawkit.bayes.laplace import mode, refuse_contradiction
from lawkit.bayes.spec import Spec
from lawkit.errors import FitError
from lawkit.laws._function import Inputs

#: The level is the mean log loss of this many runs.
_LEVEL_RUNS = 32


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Coordinates u of the parameters, z = prior_mean + root u, and straight ones v.

    Attributes
    ----------
    root, sd
        (P, P), (P,): z has the prior of the spec where u ~ Normal(0, sd), independently.
    centre, spread
        (T,), (T, T) the posterior's mode and a root of its covariance there, in `LogPosterior`'s coordinates.
    at
        (P,) u of the mode.
    along, across
        (P,), (P,) the direction in which the losses scale, by 1 in the logarithm; and the gradient of their level.
    level
        At the mode.
    """

    root: np.ndarray
    sd: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    at: np.ndarray
    along: np.ndarray
    across: np.ndarray
    level: float


def level_runs(spec: Spec) -> Inputs:
    """The runs whose mean log loss is the level: the same for all domains of a table."""
    x = spec.inputs
    order = np.lexsort((*x.weights.T, x.n_params * x.n_tokens))
    return x.rows(order[np.unique(np.linspace(0, len(order) - 1, _LEVEL_RUNS).astype(int))])


def bends(spec: Spec) -> bool:
    """Whether the level is straightened: of one domain, and where a second evaluation of its law is cheap."""
    return spec.law.implicit is None and spec.log_losses.shape[1] == 1


def sheared(u: Any, level: Any, around: Any, sign: int) -> Any:
    """From u to v (sign 1) or back (sign -1), of arrays or tensors; `level` is a function of u."""
    flat = u - around["along"] * (around["across"] * (u - around["at"])).sum()
    return u + sign * around["along"] * (level(flat) - around["level"])


def axes(spec: Spec) -> Axes:
    """The prior's own coordinates (its Cholesky root), turned and scaled to the posterior's curvature at its mode.

    Raises
    ------
    FitError
        If the posterior is not finite at the point fit, or the prior excludes the losses.
    """
    posterior = LogPosterior(spec)
    start = posterior.start()
    if not np.isfinite(posterior.value(start[None])[0]):
        raise FitError(
            f"law {spec.law.name!r} has no finite posterior at its point fit to {spec.name}: check the losses, or "
            "choose another law"
        )
    centre = mode(posterior, start)[0]
    refuse_contradiction(posterior, start, centre)
    spread = Normal(centre, posterior.hessian(centre)).axes
    of_z = spread[: posterior.P]
    values, vectors = np.linalg.eigh(of_z @ of_z.T)
    sd = 1.0 / np.sqrt(values)
    root = posterior.root @ vectors / sd
    drawn = posterior.draws(centre[None])
    at = np.linalg.solve(root, drawn.z[0] - spec.prior_mean)
    along = across = np.zeros(len(at))
    level = 0.0
    if bends(spec):
        few = level_runs(spec)
        value, slope = spec.law.function.jacobian(drawn.z, few)
        level, across = float(np.log(value).mean()), (slope[0, :, 0] / value[0] @ root).mean(0)
        value, slope = spec.law.function.jacobian(drawn.z, spec.inputs)
        weight = np.sqrt(spec.counts) / (spec.spread * drawn.noise[0])
        rows = (slope[0, :, 0] / value[0]) @ root * weight
        along = np.linalg.solve(rows.T @ rows + 1e-3 * np.eye(len(at)), rows.T @ weight[:, 0])
        along = along / (across @ along)
    return Axes(
        root=root, sd=sd, centre=centre, spread=spread, at=at, along=along, across=across, level=level
    )
