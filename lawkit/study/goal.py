"""What a study is to decide: the run to plan, its limits, the runs that may be tried, and when to stop."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lawkit.errors import LawkitError
from lawkit.study._section import Section
from lawkit.study.grid import check_sizes

#: Flops that no study has.
_MOST_FLOPS = 1e40


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Sizes and numbers of tokens that proxy runs may have, each with each."""

    sizes: tuple[Any, ...]
    tokens: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is to be decided, and what may be spent on it.

    Attributes
    ----------
    n_params, n_tokens
        The run to plan.
    inside
        Whether it may be no dearer than proxy runs.
    constraints
        Of its mixture, see `lawkit.mixture.constraints.read_constraints`.
    ladder
        None: every scale that is recorded (for a study of recorded runs).
    budget
        Flops of all proxy runs together, and of the text that is generated for them.
    rounds, batch
        Rounds of proposals at most, and runs in each at most.
    ration
        What a round may spend, as a share of what was spent before it; two of the cheapest runs it may have anyhow.
    tolerance
        Expected regret in nats at which the mixture is known well enough.
    method
        What runs are chosen by, see `lawkit.propose_runs`.
    laws
        Laws to choose from on the runs; empty for the one that `lawkit.fit` takes, ``("auto",)`` for all.
    start
        Runs of the start where there is no grid; None: as many as the laws can be fitted to, within half the budget.
    posterior, draws, interval
        Where draws of the law's parameters come from (see `lawkit.fit`), how many of them the regret is averaged over,
        and the coverage of all intervals.
    seed
        Of all that is random.
    """

    n_params: float
    n_tokens: float
    inside: bool = False
    constraints: Mapping[str, Any]
    ladder: Ladder | None
    budget: float
    ration: float
    rounds: int = 20
    batch: int = 8
    tolerance: float = 0.01
    method: str = "regret"
    laws: tuple[str, ...] = ()
    start: int | None = None
    posterior: str = "laplace"
    draws: int = 200
    interval: float = 0.9
    seed: int = 0

    @property
    def question(self) -> dict[str, Any]:
        """What a decision depends on beside the runs."""
        names = ("n_params", "n_tokens", "constraints", "laws", "posterior", "draws", "interval", "seed")
        return {name: getattr(self, name) for name in names}

    @property
    def digest(self) -> str:
        """A checksum of the question."""
        return hashlib.sha256(json.dumps(self.question, sort_keys=True).encode()).hexdigest()


def read_goal(top: Section, trained: bool) -> Goal | None:
    """The tables target, constraints, ladder and loop of a study's file; None where there is no target.

    Raises
    ------
    StudyError
        Naming the path of what is missing, unknown or impossible.
    """
    from lawkit.design import METHODS
    from lawkit.design.policy import RATION
    from lawkit.fitting.sampling import POSTERIORS

    asked = {name: top.take(name, None) for name in ("target", "constraints", "ladder", "loop")}
    if asked["target"] is None:
        for name in ("constraints", "ladder", "loop"):
            if asked[name] is not None:
                rule = "without a [target] there is nothing to decide: add n_params and n_tokens of the run to plan"
                raise top.fail(name, asked[name], rule)
        return None
    target = Section(asked["target"], "target", top.file)
    loop = Section(asked["loop"] if asked["loop"] is not None else {}, "loop", top.file)
    ladder = None
    if asked["ladder"] is not None or trained:
        ladder = _ladder(Section(asked["ladder"] or {}, "ladder", top.file), trained)
    limits = asked["constraints"] if asked["constraints"] is not None else {}
    if not isinstance(limits, Mapping):
        raise top.fail("constraints", limits, "it must be a table, as docs/mixtures.md says")
    goal = Goal(
        n_params=target.size("n_params"),
        n_tokens=target.size("n_tokens"),
        inside=target.switch("inside", False),
        constraints=limits,
        ladder=ladder,
        budget=loop.size("budget", most=_MOST_FLOPS),
        rounds=loop.whole("rounds", 20),
        batch=loop.whole("batch", 8, least=1),
        ration=loop.number("ration", RATION),
        tolerance=loop.number("tolerance", 0.01),
        method=loop.choice("method", METHODS, "regret"),
        laws=_laws(loop),
        start=loop.whole("start", None, least=1),
        posterior=loop.choice("posterior", POSTERIORS, "laplace"),
        draws=loop.whole("draws", 200, least=20),
        interval=loop.number("interval", 0.9, least=0.01, most=0.999),
        seed=loop.whole("seed", 0),
    )
    target.end()
    loop.end()
    return goal


def _ladder(section: Section, trained: bool) -> Ladder:
    sizes = section.take("sizes")
    ladder = Ladder(
        sizes=tuple(sizes if isinstance(sizes, list) else [sizes]), tokens=tuple(section.sizes("tokens"))
    )
    section.end()
    check_sizes(section, ladder.sizes, trained)
    return ladder


def _laws(section: Section) -> tuple[str, ...]:
    from lawkit import laws

    names = section.names("laws", ())
    if names == ("auto",):
        return names
    for i, name in enumerate(names):
        if name == "auto":
            raise section.fail("laws", list(names), '"auto" means all laws: name it alone, or leave it out')
        if name not in laws.names():
            close = difflib.get_close_matches(name, [*laws.names(), "auto"], n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise section.fail(f"laws[{i}]", name, f"{hint}`lawkit laws` lists them")
        if "weights" not in laws.get(name).columns:
            rule = "it does not depend on mixture weights, so there is no mixture to choose; `lawkit laws` lists others"
            raise section.fail(f"laws[{i}]", name, rule)
    return names


def check_target(goal: Goal, dearest: float, where: str) -> None:
    """Refuse a target that proxy runs reach.

    Parameters
    ----------
    dearest
        6 N D of the dearest proxy run.

    Raises
    ------
    LawkitError
    """
    flops = 6 * goal.n_params * goal.n_tokens
    if not goal.inside and flops <= dearest:
        raise LawkitError(
            f"the target, {flops:.4g} flops (6 N D), lies inside the data: {where} has runs of {dearest:.4g}. Name a "
            "larger target or smaller runs; target.inside = true if it is meant"
        )
