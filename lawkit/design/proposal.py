"""What `propose_runs` returns."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from lawkit.runs import Runs


@dataclass(frozen=True, kw_only=True)
class ProposedRun:
    """A run worth training.

    Attributes
    ----------
    n_params, n_tokens, weights, seed
        What to train; the seed is one that no recorded run of the same size and mixture has.
    flops
        What it costs.
    regret_after
        Expected regret once this run and those before it are known, nats: simulated after the last run, up to there
        falling as the first-order criterion does; None where there is no mixture to choose.
    criterion_after
        What is then left of the criterion that the runs were chosen by; None for 'random'.
    row
        Row of the candidates table it comes from, or None.
    unique
        Tokens that exist of each source, for laws that count repetition.
    """

    n_params: float
    n_tokens: float
    weights: dict[str, float]
    seed: int
    flops: float
    regret_after: float | None
    criterion_after: float | None
    row: int | None = None
    unique: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """The next runs, in the order in which to train them.

    Attributes
    ----------
    runs
        The runs.
    expected_regret_now
        Loss that the choice of mixture gives away at the target, on average over what the fit does not know,
        nats, and over targets by their shares; None where there is no mixture to choose. Simulated, as is that after
        all runs: see `lawkit.design.foresight`.
    regret_errors
        Monte Carlo standard errors of expected regret 'now' and 'after' all runs, and of what they have 'saved',
        which is known better as the same truths are behind both; None where a warning says that expected regret is
        to first order, and where there is none.
    regret_misfit
        What the law's own error may make the choice give away beside, now, nats: see `lawkit.design.misfit`. None
        where there is no mixture to choose.
    criterion_now
        The criterion of `method` before any of the runs; None for 'random'.
    efficiency
        What the runs save of tr(W Sigma), over a proven upper bound on what any runs among the candidates could
        save of it within the same budget and number (of the criterion where there is no regret), so it is at least
        as efficient as it says.
    method, budget, spent
        What they were chosen by, flops allowed and flops used.
    stopped
        Why there are no more runs.
    mixture
        The mixture now thought best at the target.
    n_candidates
        How many runs there were to choose from.
    warnings
        What to know before training them.
    """

    runs: tuple[ProposedRun, ...]
    expected_regret_now: float | None
    regret_errors: dict[str, float] | None
    regret_misfit: float | None
    criterion_now: float | None
    efficiency: float
    method: str
    budget: float
    spent: float
    stopped: str
    mixture: dict[str, float] | None
    n_candidates: int
    sources: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The object that `lawkit propose-runs --json` prints."""
        return {
            "runs": [
                {
                    "n_params": r.n_params,
                    "n_tokens": r.n_tokens,
                    "weights": dict(r.weights),
                    "seed": r.seed,
                    "flops": r.flops,
                    "regret_after": r.regret_after,
                    "criterion_after": r.criterion_after,
                    "row": r.row,
                }
                for r in self.runs
            ],
            "expected_regret_now": self.expected_regret_now,
            "regret_errors": self.regret_errors,
            "regret_misfit": self.regret_misfit,
            "criterion_now": self.criterion_now,
            "efficiency": self.efficiency,
            "method": self.method,
            "budget": self.budget,
            "spent": self.spent,
            "stopped": self.stopped,
            "mixture": self.mixture,
            "n_candidates": self.n_candidates,
            "warnings": list(self.warnings),
        }

    def to_runs(self) -> Runs:
        """The runs as a runs table without losses, to fill in or to hand back as candidates."""
        n = len(self.runs)
        table = [[r.weights[s] for s in self.sources] for r in self.runs]
        unique = [[(r.unique or {}).get(s, math.nan) for s in self.sources] for r in self.runs]
        return Runs(
            sources=self.sources,
            domains=(),
            n_params=np.array([r.n_params for r in self.runs]),
            n_tokens=np.array([r.n_tokens for r in self.runs]),
            weights=np.array(table).reshape(n, len(self.sources)),
            losses=np.empty((n, 0)),
            unique=np.array(unique) if any(r.unique for r in self.runs) else None,
            flops=np.array([r.flops for r in self.runs]),
            seed=np.array([r.seed for r in self.runs]),
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `to_runs` as CSV, Parquet or JSON lines, by the suffix of `path`."""
        self.to_runs().write(path)
