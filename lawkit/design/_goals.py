"""The targets of a proposal, under the fit and under draws of its posterior, as one problem of linear criteria."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lawkit.design._criterion import Criterion, Goal
from lawkit.design._inputs import problem_for
from lawkit.design.candidates import Candidates
from lawkit.design.value import Slopes, decision, decision_among
from lawkit.errors import OptimizeError
from lawkit.mixture import MixtureProblem, optimize_mixture
from lawkit.mixture.problem import RESOLUTION
from lawkit.mixture.smooth import minimise
from lawkit.mixture.target import Target, check_size, unique_tokens
from lawkit.runs import Runs

if TYPE_CHECKING:
    from lawkit.fitting import Fit

_KEYS = ("n_params", "n_tokens", "target", "bounds", "share")


@dataclass(frozen=True, kw_only=True, eq=False)
class Goals:
    """Every target under every point of linearisation.

    Attributes
    ----------
    fit
        The fit.
    points
        (S, G, P) fitted vectors, the fit's own first.
    of
        For each point the targets.
    warnings
        What was left out.
    """

    fit: Fit
    points: np.ndarray
    of: tuple[tuple[Goal, ...], ...]
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        fit: Fit,
        first: Mapping[str, Any],
        also: Sequence[Mapping[str, Any]],
        available: Mapping[str, float] | None,
        max_epochs: float | Mapping[str, float],
        choices: Runs | None,
        points: int,
        seed: int,
    ) -> Goals:
        """The goals that the arguments of `propose_runs` describe.

        Raises
        ------
        OptimizeError
            For targets that make no sense.
        """
        among = None if choices is None else _among(fit, choices)
        own = tuple(
            _goal(fit, _checked(g, i), available, max_epochs, among, seed)
            for i, g in enumerate((first, *also))
        )
        vectors, of, warnings = [fit.z], [own], []
        for z in fit.draw(points - 1, seed) if points > 1 else ():
            try:
                of.append(tuple(_moved(goal, z) for goal in own))
                vectors.append(z)
            except OptimizeError as error:
                warnings.append(f"a draw of the posterior was left out: {error}")
        return cls(fit=fit, points=np.array(vectors), of=tuple(of), warnings=warnings)

    @property
    def first(self) -> Goal:
        """The main target under the fit itself."""
        return self.of[0][0]

    @property
    def near(self) -> np.ndarray:
        """(m, K) where the best mixtures are or may be."""
        found = [np.zeros((0, len(self.fit.sources)))]
        for goal in self.of[0]:
            if goal.h is not None:
                found.append(goal.h[None])
            if goal.choice is not None:
                found.append(goal.choice.plausible[::4])
        return np.vstack(found)

    def slopes(self, pool: Candidates) -> Slopes:
        """Of the candidates, at every point."""
        return Slopes(self.fit, pool, None if len(self.points) == 1 else self.points)

    def factor(self, rule: Criterion) -> np.ndarray | None:
        """(S x G, r, P): the criterion's, summed over targets by their shares, its mean over the points."""
        stacks = []
        for goals in self.of:
            parts = [(g, rule.factor(g)) for g in goals if not (rule.needs_choice and g.choice is None)]
            if any(a is None for _, a in parts):
                return None
            stacks.append(
                np.concatenate([np.sqrt(g.share) * a for g, a in parts if a is not None], axis=1)
                / math.sqrt(len(self.of))
            )
        most = max(s.shape[1] for s in stacks)
        return np.concatenate([np.pad(s, ((0, 0), (0, most - s.shape[1]), (0, 0))) for s in stacks])


def _checked(given: Mapping[str, Any], i: int) -> Mapping[str, Any]:
    unknown = sorted(set(given) - set(_KEYS))
    if unknown:
        raise OptimizeError(f"also[{i - 1}]: unknown key {unknown[0]!r}; it takes {', '.join(_KEYS)}")
    where = "" if i == 0 else f"also[{i - 1}]: "
    for name in ("n_params", "n_tokens"):
        check_size(where + name, given.get(name))
    check_size(where + "share", given.get("share", 1.0))
    return given


def _goal(
    fit: Fit,
    given: Mapping[str, Any],
    available: Mapping[str, float] | None,
    max_epochs: float | Mapping[str, float],
    among: np.ndarray | None,
    seed: int,
) -> Goal:
    sizes = {"n_params": given["n_params"], "n_tokens": given["n_tokens"]}
    limits: dict[str, Any] = {
        "bounds": given.get("bounds"),
        "available": available,
        "max_epochs": max_epochs,
        "target": given.get("target"),
    }
    at = Target(fit, given["n_params"], given["n_tokens"], unique_tokens(fit, available))
    problem = problem_for(at, given["n_tokens"], **limits)
    # Which domains count also matters to laws without a mixture to choose.
    target = (problem or MixtureProblem.build(("any",), fit.domains, target=limits["target"])).target
    h = choice = None
    if problem is not None and among is not None:
        inside = ((among >= problem.lower - 1e-6) & (among <= problem.upper + 1e-6)).all(1)
        if not inside.any():
            raise OptimizeError(f"none of the {len(among)} choices is within the bounds: change either")
        choice = decision_among(at, target, among[inside], seed)
        h = choice.h
        choice = choice if inside.sum() > 1 else None
    elif problem is not None:
        best = optimize_mixture(fit, **sizes, **limits, seed=seed, draws=0)
        h = np.array([best.weights[s] for s in fit.sources])
        free = (problem.upper - problem.lower > RESOLUTION).sum() > 1
        choice = decision(at, problem, h, seed) if free else None
    return Goal(
        at=at, target=target, problem=problem, h=h, choice=choice, share=given.get("share", 1.0), seed=seed
    )


def _moved(goal: Goal, z: np.ndarray) -> Goal:
    """The same target under another fitted vector (G, P)."""
    at = goal.at.with_parameters(z)
    if goal.choice is None or goal.problem is None or goal.h is None:
        return replace(goal, at=at)
    if goal.choice.among is not None:
        choice = decision_among(at, goal.target, goal.choice.among, goal.seed)
    else:
        start = goal.problem.interior(goal.h, depth=1e-3)
        h = minimise(at.derivatives(goal.target), goal.problem, start).h
        choice = decision(at, goal.problem, h, goal.seed)
    return replace(goal, at=at, h=choice.h, choice=choice)


def _among(fit: Fit, choices: Runs) -> np.ndarray:
    """(M, K) distinct mixtures of a table, in the order of the fit's sources."""
    if set(choices.sources) != set(fit.sources):
        raise OptimizeError(
            f"the choices have sources {', '.join(choices.sources) or '(none)'}; the fit has "
            f"{', '.join(fit.sources) or '(none)'}"
        )
    if not len(choices):
        raise OptimizeError("the choices have no rows: nothing to choose from")
    every = choices.weights[:, [choices.sources.index(s) for s in fit.sources]]
    _, first = np.unique(every.round(6), axis=0, return_index=True)
    return every[np.sort(first)]
