"""What regret is to be expected before and after a batch of runs, by simulation with the whole law.

The criterion that runs are chosen by, tr(W Sigma), is to first order in the parameters. That ranks runs well and says
little of what is at stake: where runs leave a law much freedom, parameters that lie along the slopes at the fit miss
the very runs that were fitted. So what a proposal reports is simulated:

1. Truths: the fit's own draws (of a posterior, or a bootstrap) where it has some; else refits to the observed losses
   with noise added once more and prior means drawn from their priors. For linear laws these are draws of the
   posterior; for others each still agrees with the runs, which draws of a normal do not.
2. Outcomes: losses of the proposed runs under each truth, with the noise that the fit believes in.
3. Decisions: the law fitted to all runs, observed and simulated, as `lawkit.fit` would, and the mixture that is then
   best. What it gives away under its truth is the regret after the runs; what the mixture now chosen gives
   away is the one before.

Where the table is too large for hundreds of refits, the observed runs enter by the quadratic expansion of their
objective at the fit, and truths are draws of the normal that belongs to it: with so many runs, both are near.

References
----------
Truths by refits to perturbed losses: Oliver, He and Reynolds 1996, Conditioning permeability fields to pressure data;
Bardsley et al. 2014, SIAM Journal on Scientific Computing 36. What a sample is worth, by simulating its outcome: Raiffa
and Schlaifer 1961, Applied Statistical Decision Theory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.design._criterion import Goal
from lawkit.design.candidates import Candidates
from lawkit.errors import OptimizeError
from lawkit.fitting.draws import Draws
from lawkit.fitting.posterior import mean_one
from lawkit.fitting.prepare import prepare
from lawkit.fitting.solver import LeastSquares, Target, minimise
from lawkit.laws._average import members
from lawkit.laws._function import Inputs
from lawkit.laws._law import Law
from lawkit.mixture.optima import BARRIER, DEPTH
from lawkit.mixture.smooth import minimise_many
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: Truths that are simulated: at most, and at least where observed runs are refitted one by one.
MOST, LEAST = 200, 64
#: Derivatives in one iteration of all refits, at most.
WORK = 2e6
#: Refits end where an iteration lowers their cost by less than this, relatively: no choice hangs on more.
CLOSE = 1e-6


class Foresight:
    """What the choice of mixtures gives away under a fit's truths, now and once more runs are known.

    Parameters
    ----------
    fit
        The fit.
    goals
        Its targets; those without a mixture to choose are left out.
    seed
        Of the truths and of the noise of new runs, the same for all runs that `after` is asked about.

    Attributes
    ----------
    z
        (S, G, P) the truths.
    before
        (S,) regret of the mixtures chosen now under each truth, nats, summed over the targets by their shares.

    Raises
    ------
    OptimizeError
        If the law has a finite loss at the targets under fewer than half of the truths.
    """

    def __init__(self, fit: Fit, goals: Sequence[Goal], seed: int = 0) -> None:
        self.fit, self.goals, self._seed = fit, [g for g in goals if g.choice is not None], seed
        counts = np.any([g.target > 0 for g in self.goals], axis=0)
        self._used: list[int] = [0] if fit.law.coupled else np.flatnonzero(counts).tolist()
        work = len(fit.runs) * len(fit.domains) * fit.z.shape[1] * len(self._used) // len(fit.z)
        self._one_by_one = work * LEAST <= WORK
        count = int(np.clip(WORK // work, LEAST, MOST)) if self._one_by_one else MOST
        self._draws, z = _truths(fit, self._used, count, seed, self._one_by_one)
        now = [_losses(g, z, np.tile(g.h, (count, 1))) for g in self.goals if g.h is not None]
        sound = np.asarray(np.isfinite(now).all(0))
        if sound.sum() < count / 2:
            raise OptimizeError(
                f"law {fit.law.name} has no finite loss at the target under {count - sound.sum()} of {count} fits "
                "to runs like these, so the regret cannot be simulated: look at the fit's warnings"
            )
        self._draws = None if self._draws is None else _some(self._draws, sound)
        self.z, self._now = z[sound], [f[sound] for f in now]
        self._least = [
            np.fmin(f, _losses(g, self.z, _chosen(g, self.z)))
            for g, f in zip(self.goals, self._now, strict=True)
        ]
        self.before = self._regret(self._now)

    def after(self, new: Candidates) -> np.ndarray:
        """(S,) regret of the mixtures that a fit with the `new` runs chooses, on the same scale as `before`."""
        if not len(new):
            return self.before
        z = self._refitted(new, self.outcomes(new))
        then = []
        for goal, now in zip(self.goals, self._now, strict=True):
            found = _losses(goal, self.z, _chosen(goal, z))
            then.append(np.where(np.isfinite(found), found, now))
        return self._regret(then)

    def _regret(self, losses: Sequence[np.ndarray]) -> np.ndarray:
        parts = zip(self.goals, losses, self._least, strict=True)
        return np.sum([g.share * np.maximum(f - least, 0.0) for g, f, least in parts], axis=0)

    def outcomes(self, new: Candidates) -> np.ndarray:
        """(S, K, E) losses of K new runs under each truth."""
        fit, rng = self.fit, np.random.default_rng([self._seed, 1])
        x = fit.estimate.inputs(new.weights, new.n_params, new.n_tokens, new.unique)
        losses = fit.estimate.losses_at(self.z, x)
        shock, scale = rng.standard_normal(losses.shape), fit.noise_at(new.n_tokens)
        if (d := self._draws) is not None:
            nu = np.broadcast_to(d.nu[:, None], losses.shape)
            heavy = np.isfinite(nu)
            shock /= np.where(heavy, np.sqrt(rng.chisquare(np.where(heavy, nu, 1.0)) / nu), 1.0)
            more = np.einsum("sec,nc->sne", d.eta, d.noise_model.columns(x.n_params, x.weights))
            scale = scale / fit.noise * d.noise[:, None] * np.exp(more)
        return losses * np.exp(scale * shock)

    def _refitted(self, new: Candidates, outcomes: np.ndarray) -> np.ndarray:
        """(S, G, P) fits to the observed runs and the new ones (S, K, E), at the fit's own reference sizes.

        Under truths for which a new run has no finite positive loss nothing is learned from any.
        """
        fit, e = self.fit, self.fit.estimate
        predicted = fit.losses(new.n_params, new.n_tokens, new.weights, new.unique)
        sound = np.asarray((np.isfinite(outcomes) & (outcomes > 0)).all((1, 2)))
        outcomes = np.where(sound[:, None, None], outcomes, predicted)
        by_group = outcomes[:, None] if e.law.coupled else np.moveaxis(outcomes, 2, 1)[..., None]
        runs, kept = _joined(fit, new, predicted), len(fit.runs)
        columns = []
        for law, z, hessian in _members(fit):
            problem = prepare(runs, law, e.objective, e.min_weight).problem
            x, target = replace(problem.inputs, n_ref=e.n_ref, d_ref=e.d_ref), problem.target
            found = np.tile(z, (len(outcomes), 1, 1))
            for g in self._used:
                losses, cells, prior = by_group[:, g], target.cell_weights[g], _prior(target, g)
                if self._one_by_one:
                    observed = np.tile(target.losses[g, :kept], (len(losses), 1, 1))
                    losses = np.concatenate([observed, losses], 1)
                else:  # so many runs that a few more hardly change what each counts
                    cells, prior = cells[kept:], (z[g], _root(hessian[g]))
                found[:, g] = _minima(
                    problem, x.rows(slice(-losses.shape[1], None)), g, losses, cells, prior, z[g]
                )
            columns.append(found)
        return np.concatenate(columns, 2)


# ---- fits, many at once ------------------------------------------------------------------------------------


def _minima(
    problem: LeastSquares,
    x: Inputs,
    group: int,
    losses: np.ndarray,
    cells: np.ndarray,
    prior: tuple[np.ndarray, np.ndarray] | None,
    start: np.ndarray,
) -> np.ndarray:
    """(S, P) minima of the problem's objective for one group with other losses (S, n, m), from one start (P,).

    Parameters
    ----------
    x
        The n rows.
    cells
        (n, m) how much each loss counts.
    prior
        Its mean (P,) or (S, P), and the root (P, P) of its precision.
    """
    S, P = len(losses), len(start)
    mean, root = (None, None) if prior is None else (np.broadcast_to(prior[0], (S, P)), prior[1])
    target = Target(losses, np.broadcast_to(cells, losses.shape), mean, root)
    many = LeastSquares(problem.function, x.take(np.full(S, group)), target, problem.objective)
    return minimise(many, np.tile(start, (S, 1)), np.arange(S), tolerance=CLOSE, workers=1)[0]


def _members(fit: Fit) -> Iterator[tuple[Law, np.ndarray, np.ndarray]]:
    """The laws that are fitted one by one, with the vectors (G, P) and Hessians (G, P, P) of each."""
    e, end = fit.estimate, 0
    for law in members(e.law):
        own = slice(end, end + law.n_parameters(len(fit.sources)))
        yield law, e.z[:, own], e.hessian[:, own, own]
        end = own.stop


def _prior(target: Target, group: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean (P,) of a group's prior, and the root (P, P) of its precision."""
    if target.prior_mean is None or target.prior_root is None:
        return None
    return target.prior_mean[group], target.prior_root


def _root(precision: np.ndarray) -> np.ndarray:
    """R (P, P) with R'R a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(precision)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T


def _joined(fit: Fit, new: Candidates, losses: np.ndarray) -> Runs:
    """The fitted runs, and new ones with losses (K, E)."""
    old = fit.runs.with_domains(list(fit.domains))

    def both(name: str) -> np.ndarray | None:
        first, second = getattr(old, name), getattr(new, name)
        return None if first is None or second is None else np.concatenate([first, second])

    return Runs(
        sources=old.sources, domains=old.domains, n_params=both("n_params"), n_tokens=both("n_tokens"),
        weights=np.concatenate([old.weights, new.weights]), losses=np.concatenate([old.losses, losses]),
        unique=both("unique"),
    )  # fmt: skip


# ---- truths ------------------------------------------------------------------------------------------------


def _truths(
    fit: Fit, used: list[int], count: int, seed: int, one_by_one: bool
) -> tuple[Draws | None, np.ndarray]:
    """Parameters (count, G, P) that the fit allows, and the draws that they are where it has some."""
    if fit.draws is not None:
        rng = np.random.default_rng(seed)
        rounds = -(-count // len(fit.draws))
        which = np.concatenate([rng.permutation(len(fit.draws)) for _ in range(rounds)])[:count]
        return _some(fit.draws, which), fit.draws.z[which]
    return None, _refitted_anew(fit, used, count, seed) if one_by_one else fit.draw(count, seed)


def _some(draws: Draws, which: np.ndarray) -> Draws:
    return replace(draws, **{k: getattr(draws, k)[which] for k in ("z", "noise", "nu", "eta")})


def _refitted_anew(fit: Fit, used: list[int], count: int, seed: int) -> np.ndarray:
    """(count, G, P) fits to the observed losses with noise added, and priors around draws of their means.

    Losses count by the noise that was estimated rather than by the objective's own sigma: as in the covariance of the
    fit, that is what they and the priors together tell.
    """
    e, rng = fit.estimate, np.random.default_rng(seed)
    columns, shocks = [], None
    for law, z, _ in _members(fit):
        problem = prepare(fit.runs, law, e.objective, e.min_weight).problem
        target, weight = problem.target, mean_one(problem.target)
        if shocks is None:  # members of an average saw the same noise
            shocks = rng.standard_normal((count, *weight.shape))
        noise = e.noise.reshape(len(z), 1, -1)
        spread = np.divide(noise, np.sqrt(weight), where=weight > 0, out=np.zeros_like(weight))
        losses, found = target.losses * np.exp(spread * shocks), np.tile(z, (count, 1, 1))
        for g in used:
            cells, prior = target.cell_weights[g], _prior(target, g)
            if prior is not None and e.objective.sigma is not None:
                cells = weight[g] * (e.objective.sigma / noise[g]) ** 2
                moved = np.linalg.solve(prior[1], rng.standard_normal((z.shape[1], count))).T
                prior = prior[0] + moved, prior[1]
            found[:, g] = _minima(problem, problem.inputs, g, losses[:, g], cells, prior, z[g])
        columns.append(found)
    return np.concatenate(columns, 2)


# ---- choices -----------------------------------------------------------------------------------------------


def _chosen(goal: Goal, z: np.ndarray) -> np.ndarray:
    """(S, K) mixture that is best at the target under each of the vectors z (S, G, P)."""
    choice, problem = goal.choice, goal.problem
    assert choice is not None
    assert problem is not None
    if choice.among is not None:
        losses = goal.at.objectives(z, choice.among, goal.target)
        return choice.among[np.where(np.isfinite(losses), losses, np.inf).argmin(1)]
    polytope = problem.polytope.inner()
    begin = polytope.toward(choice.h, DEPTH)
    found = minimise_many(goal.at.derivatives_of(z, goal.target), polytope, [begin] * len(z), BARRIER)
    h = np.array([s.h for s in found])
    now = np.broadcast_to(choice.h, h.shape)  # the search may end a hair inside a limit that is best
    return np.where((_losses(goal, z, h) < _losses(goal, z, now))[:, None], h, now)


def _losses(goal: Goal, z: np.ndarray, h: np.ndarray) -> np.ndarray:
    """(S,) loss at the target under each of the vectors z (S, G, P), each at its own mixture h (S, K)."""
    with np.errstate(all="ignore"):
        return goal.at.derivatives_of(z, goal.target)(np.arange(len(z)), h, np.zeros(len(z)))[0]
