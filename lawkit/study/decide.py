"""From the finished runs of a study to its decision, and to the runs that would improve it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.errors import LawkitError
from lawkit.mixture.constraints import read_constraints
from lawkit.mixture.problem import MixtureProblem

if TYPE_CHECKING:
    from lawkit.design import Proposal
    from lawkit.fitting import Fit
    from lawkit.runs import Runs
    from lawkit.study.bench import Bench, PlannedRun
    from lawkit.study.goal import Goal

#: About how many candidates a round chooses from.
_CANDIDATES = 4_000
#: Constraints that a proposal can heed; the decision heeds all.
_HEEDED = ("bounds", "available", "max_epochs", "target")


def problem_of(goal: Goal, bench: Bench) -> MixtureProblem:
    """The mixtures to choose from at the target.

    Raises
    ------
    OptimizeError
        For constraints that make no sense or leave no mixture.
    """
    asked = read_constraints(goal.constraints, bench.sources, bench.domains)
    asked.pop("risk", None)
    return MixtureProblem.build(bench.sources, bench.domains, n_tokens=goal.n_tokens, **asked)


def fit_runs(goal: Goal, runs: Runs) -> Fit:
    """The study's law, fitted to its runs: of several the one of least expected error beyond them.

    Raises
    ------
    FitError, LawError
        When the runs are too few for the law.
    """
    import lawkit

    law = goal.laws[0] if goal.laws else None
    if len(goal.laws) > 1:
        from lawkit.fitting.selection import compare_laws

        law = compare_laws(runs, goal.laws, seed=goal.seed, elpd=False)[0].law
    fit = lawkit.fit(runs, law=law, seed=goal.seed, posterior=goal.posterior)
    if fit.diagnostics.get("interrupted"):
        # The fit would do without its draws; the study would then decide otherwise than without Ctrl-C.
        raise KeyboardInterrupt
    return fit


def fit_summary(fit: Fit) -> dict[str, Any]:
    """What a study's store keeps of a fit; the rest is in its folder."""
    names = ("law", "formula", "n_runs", "train", "holdout", "warnings")
    told = fit.to_dict()
    return {
        **{name: told[name] for name in names},
        "noise": dict(zip(fit.domains, fit.noise.tolist(), strict=True)),
    }


def decide(goal: Goal, fit: Fit) -> dict[str, Any]:
    """The best mixture at the target, what is known of it, and the regret expected of choosing it, in nats.

    Of three estimates of the regret if the law is right the largest counts, as few runs can leave each too small: the
    mean over the fit's own draws, that which proposals simulate, and tr(W Sigma), by which they choose. The first is
    not taken of a study without a posterior; where draws were refused those of a normal stand in, too wide as a rule,
    so that the study goes on until they are accepted. What the law's own error may cost comes on top, see
    `lawkit.design.misfit`. All but the first are not taken under constraints that proposals do not heed.

    Raises
    ------
    OptimizeError
        When there is none; see `lawkit.optimize_mixture`.
    """
    import lawkit

    best = lawkit.optimize_mixture(
        fit,
        n_params=goal.n_params,
        n_tokens=goal.n_tokens,
        constraints=goal.constraints,
        draws=goal.draws,
        interval=goal.interval,
        seed=goal.seed,
    )
    h = np.array([[best.weights[name] for name in fit.sources]])
    band = fit.predict(goal.n_params, goal.n_tokens, h, interval=goal.interval)
    assert band.lower is not None
    assert band.upper is not None
    ends = zip(fit.domains, band.lower[0].tolist(), band.upper[0].tolist(), strict=True)
    assert best.uncertainty is not None
    second, simulated, misfit = _reckoned(goal, fit)
    known = [x for x in (second, simulated) if x is not None]
    if goal.posterior != "none" or not known:
        known.append(best.uncertainty.regret_mean)
    told = best.to_dict()
    if misfit is not None and misfit > goal.tolerance > 0:
        told["warnings"] = [
            *told["warnings"],
            f"what the law may have wrong is expected to cost {misfit:.3g} nats, more than loop.tolerance, "
            f"{goal.tolerance:g}, alone: more runs hardly lower it, another law may (lawkit compare)",
        ]
    return {
        **told,
        "predicted_interval": {name: [low, high] for name, low, high in ends},
        "regret_second_order": second,
        "regret_simulated": simulated,
        "regret_misfit": misfit,
        "expected_regret": max(known) + (misfit or 0.0),
    }


def _reckoned(goal: Goal, fit: Fit) -> tuple[float | None, float | None, float | None]:
    """Regret to second order, simulated, and by the law's own error; None where proposals do not heed a constraint, or
    cannot tell."""
    from lawkit.design._goals import Goals
    from lawkit.design.foresight import Foresight
    from lawkit.design.misfit import misfit_regret
    from lawkit.design.value import Posterior

    asked = read_constraints(goal.constraints, fit.sources, fit.domains)
    if not set(asked) <= set(_HEEDED):
        return None, None, None
    at = {"n_params": goal.n_params, "n_tokens": goal.n_tokens}
    first = {**at, "bounds": asked.get("bounds"), "target": asked.get("target")}
    try:
        goals = Goals.build(
            fit, first, (), asked.get("available"), asked.get("max_epochs", 4.0), None, 1, goal.seed
        )
    except LawkitError:
        return None, None, None
    if goals.first.choice is None:
        return 0.0, 0.0, 0.0
    second, misfit = Posterior.of(fit).trace(goals.first.choice.factor), misfit_regret(goals.of[0], goal.seed)
    try:
        return second, float(Foresight(fit, goals.of[0], goal.seed).before.mean()), misfit
    except LawkitError:
        return second, None, misfit


def _heeded(goal: Goal, fit: Fit) -> dict[str, Any]:
    """Those of the study's constraints that proposals heed, as `lawkit.propose_runs` takes them."""
    asked = read_constraints(goal.constraints, fit.sources, fit.domains)
    return {key: asked[key] for key in _HEEDED if key in asked}


def propose(
    goal: Goal,
    bench: Bench,
    fit: Fit,
    *,
    last: Mapping[str, Any],
    spent: float,
    left: float,
    round_: int,
    done: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, Any]],
) -> tuple[list[PlannedRun], Proposal | None]:
    """The runs of the next round, within its ration of flops; none, and no proposal, where none can be had.

    Parameters
    ----------
    last
        The decision of the last round.
    spent, left
        Flops of all runs so far, and of what may still be spent.
    done, failed
        Specs of the study's runs.

    Raises
    ------
    OptimizeError
        When no candidate can be valued.
    """
    import lawkit
    from lawkit.design.policy import method_now, ration

    seed = goal.seed + round_
    table = bench.candidates(_mixtures(goal, bench, fit, last["weights"], seed), done, failed)
    assert table.flops is not None
    if not len(table) or table.flops.min() > left:
        return [], None
    most = ration(spent, float(table.flops.min()), goal.ration)
    if_right = last["expected_regret"] - (last.get("regret_misfit") or 0.0)
    proposal = lawkit.propose_runs(
        fit,
        n_params=goal.n_params,
        n_tokens=goal.n_tokens,
        budget=min(left, most),
        n=goal.batch,
        candidates=table,
        method=method_now(goal.method, if_right / last["objective"]),
        seed=seed,
        **_heeded(goal, fit),
    )
    at = {int(row): i for i, row in enumerate(table.rows)}
    runs = []
    for run in proposal.runs:
        assert run.row is not None
        runs.append(bench.chosen(table, at[run.row], run.seed))
    return runs, proposal


def _mixtures(goal: Goal, bench: Bench, fit: Fit, best: Mapping[str, float], seed: int) -> np.ndarray:
    """Mixtures worth a run: among those that the target may have, and among all there are."""
    from lawkit.design.candidates import mixtures, space_filling

    count = int(np.clip(_CANDIDATES // (2 * len(bench.scales())), 64, 1024))
    near = np.array([[best[name] for name in bench.sources]])
    anywhere = open_problem(bench)
    found = [space_filling(anywhere, count // 2, seed)]
    limited = problem_of(goal, bench)
    upper = np.minimum(limited.upper, bench.upper())
    if upper.sum() > 1 and (limited.lower <= upper).all():
        found.append(
            mixtures(replace(limited, upper=upper), fit.runs, np.minimum(near, upper), count // 2, seed)
        )
    return np.vstack(found)


def open_problem(bench: Bench) -> MixtureProblem:
    """All mixtures that a run can have.

    Raises
    ------
    LawkitError
        When there are none.
    """
    upper = bench.upper()
    if upper.sum() <= 1 and len(upper) > 1:
        raise LawkitError(
            "no feasible candidate: the sources are too short for the rows of one step; add text, or lower "
            "recipe.batch_rows or recipe.seq_len"
        )
    bounds = dict(zip(bench.sources, [(0.0, float(u)) for u in upper], strict=True))
    return MixtureProblem.build(bench.sources, bench.domains, bounds=bounds)
