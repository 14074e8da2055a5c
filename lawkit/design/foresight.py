"""What regret is to be expected before and after a batch of runs, by simulation with the whole law.

The criterion that runs are chosen by, tr(W Sigma), is to first order in the parameters. That ranks runs well and says
little of what is at stake: where runs leave a law much freedom, parameters that lie along the slopes at the fit miss
the very runs that were fitted. So what a proposal reports is simulated:

1. Truths: parameters that the fit allows, see `lawkit.design.truths`.
2. Outcomes: losses of the proposed runs under each truth, with the noise that the fit believes in.
3. Decisions: the law fitted to all runs, observed and simulated, as `lawkit.fit` would, and the mixture that is then
   best. What it gives away under its truth is the regret after the runs; what the mixture now chosen gives
   away is the one before.

Where the table is too large for hundreds of refits, the observed runs enter by the quadratic expansion of their
objective at the fit.

References
----------
What a sample is worth, by simulating its outcome: Raiffa and Schlaifer 1961, Applied Statistical Decision Theory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lawkit.design._criterion import Goal
from lawkit.design.candidates import Candidates
from lawkit.design.truths import fitted_apart, minima, prior_of, refits, resampled_normal, root_of
from lawkit.errors import OptimizeError
from lawkit.fitting.draws import Draws
from lawkit.fitting.prepare import prepare
from lawkit.mixture.optima import BARRIER, DEPTH
from lawkit.mixture.smooth import minimise_many
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.fitting import Fit

#: Truths that are simulated: at most, and at least where observed runs are refitted one by one.
MOST, LEAST = 200, 64
#: Derivatives in one iteration of all refits, at most.
WORK = 2e6


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
        self._draws = _picked(fit.draws, count, seed) if fit.draws is not None else None
        if self._draws is not None:
            z = self._draws.z
        else:
            z = (refits if self._one_by_one else resampled_normal)(fit, self._used, count, seed)
        now = [_losses(g, z, _held(g, count)) for g in self.goals]
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
        for law, own in fitted_apart(fit):
            z, problem = e.z[:, own], prepare(runs, law, e.objective, e.min_weight).problem
            x, target = replace(problem.inputs, n_ref=e.n_ref, d_ref=e.d_ref), problem.target
            found = np.tile(z, (len(outcomes), 1, 1))
            for g in self._used:
                losses, cells, prior = by_group[:, g], target.cell_weights[g], prior_of(target, g)
                if self._one_by_one:
                    observed = np.tile(target.losses[g, :kept], (len(losses), 1, 1))
                    losses = np.concatenate([observed, losses], 1)
                else:  # so many runs that a few more hardly change what each counts
                    cells, prior = cells[kept:], (z[g], root_of(e.hessian[g, own, own]))
                found[:, g] = minima(
                    problem, x.rows(slice(-losses.shape[1], None)), g, losses, cells, prior, z[g]
                )
            columns.append(found)
        return np.concatenate(columns, 2)


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


def _picked(draws: Draws, count: int, seed: int) -> Draws:
    """So many of them, in an order that the seed decides, each once before any twice."""
    rng, rounds = np.random.default_rng(seed), -(-count // len(draws))
    return _some(draws, np.concatenate([rng.permutation(len(draws)) for _ in range(rounds)])[:count])


def _some(draws: Draws, which: np.ndarray) -> Draws:
    return replace(draws, **{k: getattr(draws, k)[which] for k in ("z", "noise", "nu", "eta")})


# ---- choices -----------------------------------------------------------------------------------------------


def _held(goal: Goal, count: int) -> np.ndarray:
    """(count, K) the mixture that is chosen now, under as many truths."""
    assert goal.h is not None
    return np.broadcast_to(goal.h, (count, len(goal.h)))


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
    now = _held(goal, len(z))  # the search may end a hair inside a limit that is best
    return np.where((_losses(goal, z, h) < _losses(goal, z, now))[:, None], h, now)


def _losses(goal: Goal, z: np.ndarray, h: np.ndarray) -> np.ndarray:
    """(S,) loss at the target under each of the vectors z (S, G, P), each at its own mixture h (S, K)."""
    with np.errstate(all="ignore"):
        return goal.at.derivatives_of(z, goal.target)(np.arange(len(z)), h, np.zeros(len(z)))[0]
