"""The mixture that is best for all draws of the parameters together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lawkit.errors import OptimizeError
from lawkit.mixture.certificate import frank_wolfe_gap
from lawkit.mixture.objective import Objective
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.smooth import minimise_many
from lawkit.mixture.solve import Solution, solve
from lawkit.mixture.target import Target

#: Searches of a quantile, each from the last one's mixture.
ROUNDS = 10
#: More draws than this are searched on this many first, and then proven on all.
MANY = 400


def solve_risk(
    at: Target, problem: MixtureProblem, seed: int, z: np.ndarray | None, risk: tuple[str, float]
) -> Solution:
    """The best mixture under a measure of risk over draws z (S, G, P); of the point fit without draws.

    A quantile is not convex in the mixture. Its search begins at the optimum of CVaR of the same level, leaves out the
    draws that are worse than the quantile there, and minimises the maximum of the rest, a convex problem that cannot
    end at a higher quantile; then again from there. No mixture's quantile is under that of the draws' own least losses,
    which bounds it from below.

    Raises
    ------
    OptimizeError
        As `solve`, for no draws, and for draws without a finite loss.
    """
    if z is None:
        return solve(at, problem, seed)
    if not len(z):
        asked = risk[0] if risk[0] == "mean" else f"{risk[0]}:{risk[1]:g}"
        raise OptimizeError(
            f"risk {asked} is over draws of the parameters, of which 0 were asked for: ask for some draws, or for "
            "risk point"
        )
    middle = problem.raised(at.floor).interior()
    finite = np.isfinite(Objective(at, problem, z, ("mean", 0.0)).draws(middle))
    if not finite.all():
        if finite.sum() < len(z) / 2:
            raise OptimizeError(
                "most draws of the parameters give no finite loss: look at the fit's warnings"
            )
        z = z[finite]
    note = () if finite.all() else (f"{(~finite).sum()} draws without a finite loss are left out",)
    if risk[0] != "quantile":
        found = _with_many(at, problem, seed, z, risk)
        return replace(found, notes=(*note, *found.notes))
    level = risk[1]
    keep = max(1, int(np.ceil(level * len(z) - 1e-9)))
    found = solve(at, problem, seed, z, ("cvar", level))
    judge = Objective(at, problem.raised(at.floor), z, risk)
    value = judge.of(found.h)
    for _ in range(ROUNDS):
        better = np.argsort(judge.draws(found.h), kind="stable")[:keep]
        # CVaR at a level above 1 - 1 / n is the maximum.
        new = solve(at, problem, seed, z[better], ("cvar", 1 - 0.5 / keep))
        if not judge.of(new.h) < value - 1e-9:
            break
        found, value = new, judge.of(new.h)
    bound = _least_quantile(at, problem, z, keep, found.h)
    note = (
        *note,
        f"a quantile is not convex in the mixture: this one was searched from the optimum of cvar:{level:g} and is "
        "proven only locally",
        *found.notes,
    )
    gap = value - bound if np.isfinite(bound) else found.gap
    return replace(
        found, objective=value, certificate="local", gap=max(0.0, gap), notes=note,
        lower_bound=bound if np.isfinite(bound) else None,
    )  # fmt: skip


def _with_many(
    at: Target, problem: MixtureProblem, seed: int, z: np.ndarray, risk: tuple[str, float]
) -> Solution:
    """`solve`, for many draws first on some of them; the bound is that of all draws, or all are searched."""
    if len(z) <= MANY or not at.fit.law.convex_in_weights:
        return solve(at, problem, seed, z, risk)
    some = np.random.default_rng(seed).permutation(len(z))[: MANY // 2]
    first = solve(at, problem, seed, z[some], risk)
    found = solve(at, problem, seed, z, risk, start=first.h)
    over = Objective(at, problem.raised(at.floor), z, risk).of(first.h) - found.objective + found.gap
    note = f"the mixture best for {len(some)} of {len(z)} draws is within {over:.1g} nats of the best for all of them"
    return replace(found, notes=(*found.notes, note))


def _least_quantile(at: Target, problem: MixtureProblem, z: np.ndarray, keep: int, h: np.ndarray) -> float:
    """A lower bound on the keep-th least loss of any mixture: that of the draws' own least losses, each bounded."""
    law = at.fit.law
    if not law.convex_in_weights or problem.over[0] != "mean":
        return -np.inf
    problem = problem.raised(at.floor)
    polytope = problem.polytope.inner()
    if polytope.only is not None:
        return -np.inf
    derivatives = at.derivatives_of(z, problem.target)
    found = minimise_many(derivatives, polytope, [polytope.toward(h, 0.05)] * len(z), 1e-3)
    mixtures = np.array([s.h for s in found])
    values, slopes, _ = derivatives(np.arange(len(z)), mixtures, np.zeros(len(z)))
    gaps = [frank_wolfe_gap(g, x, polytope) for g, x in zip(slopes, mixtures, strict=True)]
    return float(np.sort(values - np.array(gaps))[keep - 1])
