"""One estimation: a law, the runs, an objective; out come parameters, their covariance and how the search went."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.posterior import mean_one, posterior
from lawkit.fitting.prepare import Prepared, prepare, total_unique
from lawkit.fitting.solver import LeastSquares, minimise, tame
from lawkit.fitting.starts import starting_points
from lawkit.laws._average import Average, members
from lawkit.laws._function import Inputs
from lawkit.laws._law import Law, Objective
from lawkit.runs import Runs

#: Starts whose cost is within this of the best, relatively, count as having reached it.
SAME_OPTIMUM = 1e-6
#: Laws of up to this many parameters are searched from a few of the usual starts beside a warm one.
_CHEAP, _BESIDE = 12, 4
#: So do those whose relative residuals are about this small: tables give losses to fewer digits than that.
EXACT = 1e-6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A fitted law. G groups: one a domain, or one for all domains of a coupled law.

    Attributes
    ----------
    domains
        The E domains in the order of all arrays.
    own
        (E,) index of the source of the same name, -1 for none.
    recorded
        Which of 'n_params' and 'n_tokens' the runs have; the law was fitted as if the other were 1 for all.
    n_ref, d_ref
        Geometric means of n_params and n_tokens over the runs (1 where absent).
    z, covariance
        (G, P) unconstrained parameters, the mode of the objective under its own sigma or threshold; and (G, P, P)
        their Gauss-Newton covariance under the noise estimated from the residuals. See `posterior`.
    noise
        (E,) standard deviation of the log residuals of a run of weight 1.
    cost
        (G,) the minimised objective.
    starts_at_optimum
        (G,) fraction of starts that ended at the best cost.
    hessian
        (G, P, P), for diagnostics: not the Hessian but the matrix J'WJ (plus the prior precision) that bounds half of
        it, J being the slopes of the residuals, and W the weights by which Huber's function is majorised
        (a residual beyond the threshold counts as threshold/residual); the laws' own curvature is left out.
    min_weight
        Cells whose own source has less than this weight were left out.
    """

    law: Law
    objective: Objective
    domains: tuple[str, ...]
    own: np.ndarray
    recorded: frozenset[str]
    n_ref: float
    d_ref: float
    z: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray
    cost: np.ndarray
    starts_at_optimum: np.ndarray
    hessian: np.ndarray
    min_weight: float = 0.0

    @property
    def groups(self) -> np.ndarray:
        """(G, E/G) own sources by group."""
        return self.own[None, :] if self.law.coupled else self.own[:, None]

    def inputs(
        self,
        weights: np.ndarray,
        n_params: np.ndarray | float | None = None,
        n_tokens: np.ndarray | float | None = None,
        unique: np.ndarray | None = None,
    ) -> Inputs:
        """Rows (n,) at which this law may be evaluated; `unique` is (n, K).

        A size that the fitted runs do not record cannot be told from theirs: whatever is given is not used.
        """
        n = len(weights)
        n_params = n_params if "n_params" in self.recorded else None
        n_tokens = n_tokens if "n_tokens" in self.recorded else None
        return Inputs(
            n_params=np.full(n, self.n_ref)
            if n_params is None
            else np.broadcast_to(np.asarray(n_params, float), n),
            n_tokens=np.full(n, self.d_ref)
            if n_tokens is None
            else np.broadcast_to(np.asarray(n_tokens, float), n),
            weights=np.asarray(weights, float),
            own=self.groups,
            unique=total_unique(np.asarray(weights), unique),
            n_ref=self.n_ref,
            d_ref=self.d_ref,
        )

    def losses(self, x: Inputs) -> np.ndarray:
        """Predicted losses (n, E)."""
        value = self.law.function.value(self.z, x)
        return value[0] if self.law.coupled else value[:, :, 0].T

    def losses_at(self, z: np.ndarray, x: Inputs) -> np.ndarray:
        """Predicted losses (S, n, E) for parameters z (S, G, P), say draws of a posterior."""
        function, flat = self.law.function, z.reshape(-1, z.shape[-1])
        each = x.take(np.tile(np.arange(z.shape[1]), len(z)))
        value = function.value(flat, each)  # (S x G, n, E / G)
        return np.moveaxis(value.reshape(len(z), z.shape[1], len(x.weights), -1), 1, 2).reshape(
            len(z), len(x.weights), -1
        )

    def parameter_jacobian(self, x: Inputs) -> np.ndarray:
        """Derivatives (n, E, P) of each loss by the parameters of its own group."""
        _, slope = self.law.function.jacobian(self.z, x)
        return slope[0] if self.law.coupled else np.swapaxes(slope[:, :, 0], 0, 1)

    def covariance_of(self, domain: int) -> np.ndarray:
        """(P, P) covariance of the parameters that predict domain number `domain`."""
        return self.covariance[0 if self.law.coupled else domain]


def estimate(
    runs: Runs,
    law: Law,
    objective: Objective,
    min_weight: float = 0.0,
    seed: int = 0,
    starts: int | None = None,
    warm: np.ndarray | None = None,
) -> tuple[Estimate, Prepared]:
    """Fits `law` to `runs`; also returns what was fitted.

    Parameters
    ----------
    runs, law, objective, min_weight, seed, starts
        As for `lawkit.fit`.
    warm
        (G, P) parameters of a fit to similar runs. The search starts there, for laws of few parameters from a few of
        the usual starts as well, and from these alone for other laws without priors.

    Raises
    ------
    FitError
        As `prepare`, and if no start leads anywhere.
    """
    ready = prepare(runs, law, objective, min_weight)
    if isinstance(law, Average):
        return _average(
            ready,
            law,
            objective,
            [
                estimate(runs, m, objective, min_weight, seed, starts, part)[0]
                for m, part in zip(law.members, parts(law, warm, len(runs.sources)), strict=True)
            ],
        )
    problem, domains, size = ready.problem, ready.domains, ready.size
    count = law.starts if starts is None else starts
    if warm is None:
        first = starting_points(problem, law, ready.context, count, seed)
    elif size > _CHEAP and problem.target.prior_root is not None:
        first = warm[:, None]
    else:
        # What these runs leave open, and no prior decides, must not stay as the similar runs had it.
        first = starting_points(problem, law, ready.context, min(count, _BESIDE), seed)
        if size <= _CHEAP:
            first = np.concatenate([first, warm[:, None]], 1)
    count = first.shape[1]
    each = np.arange(len(first))
    z, cost = minimise(problem, first.reshape(-1, size), np.repeat(each, count))
    z, cost = z.reshape(-1, count, size), cost.reshape(-1, count)
    best = np.argmin(cost, 1)
    if not np.isfinite(cost[each, best]).all():
        bad = [domains[i] for i in np.flatnonzero(~np.isfinite(cost[each, best]))]
        raise FitError(
            f"law {law.name!r} gave no finite loss from any of {count} starts for {', '.join(bad)}: choose another law"
        )
    z, low = z[each, best], cost[each, best]
    # Losses without noise come from formulas, not from training: how near 0 a start got is then no matter.
    agree = (cost <= low[:, None] * (1 + SAME_OPTIMUM) + problem.cost_of(EXACT)[:, None]).mean(1)
    _, _, hessian = problem.expansion(z, each, False)
    noise, covariance = posterior(problem, z)
    return Estimate(
        law=law, objective=objective, domains=domains, own=ready.own, recorded=ready.recorded,
        n_ref=ready.n_ref, d_ref=ready.d_ref, z=z, covariance=covariance, noise=noise, cost=low,
        starts_at_optimum=agree, hessian=hessian, min_weight=min_weight,
    ), ready  # fmt: skip


def _average(
    ready: Prepared, law: Average, objective: Objective, each: list[Estimate]
) -> tuple[Estimate, Prepared]:
    """The mean of members that were fitted one by one: their parameters side by side, noise that of the mean.

    Members that saw the same noise err together. With C a member's covariance and J the slopes of its log losses in
    units of the noise, the noise that all saw makes their parameters covary by C_a J_a' J_b C_b.
    """
    from scipy.linalg import block_diag

    z = np.concatenate([m.z for m in each], 1)
    noise = posterior(ready.problem, z)[0]

    def side_by_side(name: str) -> np.ndarray:
        return np.stack([block_diag(*parts) for parts in zip(*[getattr(m, name) for m in each], strict=True)])

    covariance = side_by_side("covariance")
    moves = [m.covariance @ np.swapaxes(_standard_slopes(ready.problem, m), 1, 2) for m in each]
    ends = np.cumsum([0, *[m.z.shape[1] for m in each]])
    for a, b in permutations(range(len(each)), 2):
        covariance[:, ends[a] : ends[a + 1], ends[b] : ends[b + 1]] = moves[a] @ np.swapaxes(moves[b], 1, 2)
    return Estimate(
        law=law, objective=objective, domains=ready.domains, own=ready.own, recorded=ready.recorded,
        n_ref=ready.n_ref, d_ref=ready.d_ref, z=z, covariance=covariance, noise=noise,
        cost=ready.problem.cost(z, np.arange(len(z))),
        starts_at_optimum=np.min([m.starts_at_optimum for m in each], 0), hessian=side_by_side("hessian"),
        min_weight=each[0].min_weight,
    ), ready  # fmt: skip


def parts(law: Law, z: np.ndarray | None, n_sources: int) -> list[np.ndarray | None]:
    """The part of z (G, P) of each member of an average, all of it for another law; None for each without z."""
    if z is None:
        return [None] * len(members(law))
    ends = np.cumsum([m.n_parameters(n_sources) for m in members(law)])
    return list(np.split(z, ends[:-1], axis=1))


def _standard_slopes(problem: LeastSquares, e: Estimate) -> np.ndarray:
    """(G, n x E, P) slopes of log losses by the parameters, in units of the noise; 0 for masked cells."""
    value, slope = e.law.function.jacobian(e.z, problem.inputs.take(np.arange(len(e.z))))
    weight = np.sqrt(mean_one(problem.target)) / e.noise.reshape(len(e.z), 1, -1)
    with np.errstate(all="ignore"):
        return tame(slope / value[..., None] * weight[..., None]).reshape(len(e.z), -1, e.z.shape[1])
