"""Proposals where the truth is known, and how long they take.

1. Calibration: studies are simulated from a first fit on. The truth of each is one that the fit allows, and not one of
   those behind the prediction; the runs that regret proposes get losses by it, the law is fitted once more by
   `estimate`, and a mixture chosen by that fit. Printed for each cell: the reduction of expected regret that proposals
   predict, over the mean reduction under the truths, with a standard error by resampling whole first tables. Then the
   same with the truth that made the first table, by the fitted law and by another, where nothing says that it holds.
2. Misfit: what first fits expect to be given away, with the law's own error and without, over what is given away under
   the truth that made the table, by the fitted law and by another.
3. Efficiency: 50 random instances; what the batch saves over the convex bound on what any batch can save.
4. Speed: 16 runs from 100,000 generated candidates.

    python tests/benchmarks/bench_proposals.py [calibration] [beyond] [misfit] [efficiency] [speed]
"""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

import lawkit
from lawkit.design import candidates as generated
from lawkit.design._goals import Goals
from lawkit.design.batch import Limits, greedy
from lawkit.design.candidates import Candidates
from lawkit.design.foresight import Foresight
from lawkit.design.misfit import misfit_regret
from lawkit.design.relaxation import least
from lawkit.design.value import Posterior, Slopes, decision_among
from lawkit.fitting import Fit
from lawkit.fitting.estimate import estimate
from lawkit.mixture.smooth import minimise
from lawkit.mixture.target import Target
from lawkit.runs import Runs

GOAL: dict[str, Any] = {"n_params": 1e9, "n_tokens": 3e10}
SOURCES = ("web", "code", "math", "books")
NOISE = 4e-3
COLUMNS = ("n_params", "n_tokens", "weights", "losses")


def first_runs(seed: int, n: int, domains: int = 2, noise: float = NOISE, kind: str = "transfer") -> Runs:
    """Runs of four sources by a law of the `kind`, with noise."""
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.ones(4), n)
    n_params, n_tokens = rng.choice([5e7, 1e8, 2e8], n), rng.choice([1e9, 3e9, 9e9], n)
    losses = Truth(rng, domains, kind)(n_params, n_tokens, h)
    return Runs(
        sources=SOURCES,
        domains=SOURCES[:domains],
        n_params=n_params,
        n_tokens=n_tokens,
        weights=h,
        losses=losses * np.exp(noise * rng.normal(size=(n, domains))),
    )


class Truth:
    """What makes tables: a transfer law, or exponentials of the mixture, with parameters drawn by `rng`."""

    def __init__(self, rng: np.random.Generator, domains: int, kind: str) -> None:
        self.kind = kind
        self.lends, self.tokens = np.swapaxes(
            [[rng.uniform(0.1, 0.6, 4) + np.eye(4)[e] for _ in range(2)] for e in range(domains)], 0, 1
        )

    def __call__(self, n_params: Any, n_tokens: Any, h: np.ndarray) -> np.ndarray:
        """Losses (n, E)."""
        out = []
        for e, (lends, tokens) in enumerate(zip(self.lends, self.tokens, strict=True)):
            size, data = (np.asarray(n_params) / 1e8) ** -0.3, (np.asarray(n_tokens) / 3e9) ** -0.35
            if self.kind == "transfer":
                q, k = ((w * h**0.6).sum(1) ** (1 / 0.6) for w in (lends, tokens))
                out.append(1.5 + 0.1 * e + (size * q**-0.3 + data * k**-0.35) ** 0.7)
            else:
                floor = 1.2 * np.exp(h @ (0.3 - lends) / 2)
                out.append(floor + 0.4 * size * np.exp(h @ lends) + 0.4 * data * np.exp(1 - h @ tokens))
        return np.array(out).T


def first_truth(seed: int, n: int, kind: str = "transfer") -> Truth:
    """What made `first_runs` of two domains."""
    rng = np.random.default_rng(seed)
    for draw in (lambda: rng.dirichlet(np.ones(4), n), lambda: rng.choice(3, n), lambda: rng.choice(3, n)):
        draw()
    return Truth(rng, 2, kind)


def fitted(runs: Runs, warm: np.ndarray | None = None, law: str = "transfer-plain") -> Fit:
    """A fit that starts where another ended."""
    chosen = lawkit.laws.get(law)
    found, _ = estimate(runs, chosen, chosen.objective, starts=2, warm=warm)
    return Fit(runs=runs, estimate=found, train={}, domain_train={})


#: First tables of a cell (most of those that choose from a list have nothing at stake), and truths of each.
TABLES, TRUTHS = {"list": 30, "simplex": 10}, 20
#: Law, kind of its tables, and the first runs and noises of its cells.
CELLS = (
    ("transfer-plain", "transfer", (12, 40), (2e-3, 4e-3, 8e-3)),
    ("transfer", "transfer", (12, 40), (4e-3,)),
    ("exponential-scale", "exponential", (40,), (4e-3,)),
)


class Study:
    """A first fit, what is proposed, and what a truth then makes of it."""

    def __init__(self, seed: int, n: int, noise: float, law: str, kind: str, listed: bool) -> None:
        self.seed, self.law = seed, law
        self.fit = fitted(first_runs(seed, n, noise=noise, kind=kind), law=law)
        among = replace(first_runs(1000 + seed, 40), losses=np.full((40, 2), np.nan)) if listed else None
        self.goal = Goals.build(
            self.fit, {**GOAL, "bounds": None, "target": None}, (), None, 4.0, among, 1, seed
        ).first
        self.found = lawkit.propose_runs(
            self.fit, **GOAL, budget=3e19, n=6, choices=among, tolerance=0.0, seed=seed
        )
        self.new = self.found.to_runs()

    def choice(self, fit: Fit) -> np.ndarray:
        """(K,) the mixture that a fit says is best."""
        at, goal = Target(fit, **GOAL), self.goal
        assert goal.choice is not None
        assert goal.problem is not None
        if goal.choice.among is not None:
            return goal.choice.among[(at.losses(goal.choice.among) @ goal.target).argmin()]
        start = goal.problem.interior(goal.choice.h, depth=0.05)
        return minimise(at.derivatives(goal.target), goal.problem, start).h

    def refitted(self, losses: np.ndarray) -> np.ndarray:
        """(K,) the mixture chosen once the proposed runs have losses (6, 2)."""
        fresh = replace(self.new, domains=self.fit.runs.domains, losses=losses)
        joint: dict[str, Any] = {
            c: np.concatenate([getattr(self.fit.runs, c), getattr(fresh, c)]) for c in COLUMNS
        }
        runs = Runs(sources=SOURCES, domains=fresh.domains, **joint)
        return self.choice(fitted(runs, self.fit.z, self.law))

    @property
    def predicted(self) -> tuple[float, float]:
        """Expected regret before the runs, and what they save of it."""
        now, after = self.found.expected_regret_now, self.found.runs[-1].regret_after
        assert now is not None
        assert after is not None
        return now, now - after

    def allowed(self) -> tuple[float, float]:
        """Mean over truths that the fit allows: regret before the runs, and what they saved of it.

        What is simulated for the same truths is a control variate: refits are made for a few of them only.
        """
        ahead = Foresight(self.fit, [self.goal], seed=self.seed + 7000)
        columns: dict[str, Any] = {c: getattr(self.new, c) for c in COLUMNS[:3]}
        pool = Candidates(**columns, flops=np.ones(len(self.new)))
        assert self.goal.choice is not None
        simulated, saved = ahead.before - ahead.after(pool), []
        for z, losses in zip(ahead.z[:TRUTHS], ahead.outcomes(pool)[:TRUTHS], strict=True):
            h = np.stack([self.goal.choice.h, self.refitted(losses)])
            now, then = Target(self.fit, **GOAL).with_parameters(z).losses(h) @ self.goal.target
            saved.append(now - then)
        return float(ahead.before.mean()), float(np.mean(saved - simulated[:TRUTHS]) + simulated.mean())

    def actual(self, truth: Truth, noise: float) -> tuple[float, float]:
        """The same under the truth that made the first table, mean over the noise of the new runs."""
        losses = truth(self.new.n_params, self.new.n_tokens, self.new.weights)
        rng = np.random.default_rng(self.seed + 8000)
        assert self.goal.choice is not None
        among = self.goal.choice.among
        assert among is not None
        best = truth(GOAL["n_params"], GOAL["n_tokens"], among) @ self.goal.target
        told = []
        for _ in range(4):
            then = self.refitted(losses * np.exp(noise * rng.normal(size=losses.shape)))
            pair = truth(GOAL["n_params"], GOAL["n_tokens"], np.stack([self.goal.choice.h, then]))
            now, later = pair @ self.goal.target
            told.append((now - np.min(best), now - later))
        return tuple(np.mean(told, 0))


def _ratio(predicted: np.ndarray, realised: np.ndarray) -> tuple[float, float]:
    """Ratio of the means, and its standard error by resampling tables."""
    which = np.random.default_rng(0).integers(len(predicted), size=(2000, len(predicted)))
    with np.errstate(all="ignore"):  # all the regret may be in one table
        ratios = predicted[which].mean(1) / realised[which].mean(1)
    low, high = np.nanquantile(ratios, [0.16, 0.84])
    return float(predicted.mean() / realised.mean()), float(0.5 * (high - low))


def _report(name: str, predicted: np.ndarray, realised: np.ndarray, began: float) -> None:
    """Both are (tables, 2): regret before, and saved."""
    saved, now = (_ratio(predicted[:, i], realised[:, i]) for i in (1, 0))
    print(
        f"{name}: predicted to save {predicted[:, 1].mean():.2e} of {predicted[:, 0].mean():.2e}, did save "
        f"{realised[:, 1].mean():.2e} of {realised[:, 0].mean():.2e}: ratio {saved[0]:.2f} +- {saved[1]:.2f} (before: "
        f"{now[0]:.2f} +- {now[1]:.2f}), {time.process_time() - began:.0f} s",
        flush=True,
    )


def calibration() -> None:
    """Truths that the first fit allows."""
    for law, kind, sizes, noises in CELLS:
        for n, noise, choice in product(sizes, noises, TABLES):
            calibrated(law, kind, n, noise, choice)


def calibrated(law: str, kind: str, n: int, noise: float, choice: str) -> None:
    """One cell."""
    generated.MOST, began = 2000, time.process_time()
    studies = [Study(s, n, noise, law, kind, choice == "list") for s in range(TABLES[choice])]
    _report(
        f"{law}, {n} runs, noise {noise:g}, {choice}",
        np.array([s.predicted for s in studies]),
        np.array([s.allowed() for s in studies]),
        began,
    )


def beyond() -> None:
    """The truth that made the first table, among a list: by the fitted law, and by another."""
    generated.MOST = 2000
    for kind in ("transfer", "exponential"):
        for n in (12, 40):
            began = time.process_time()
            studies = [Study(s, n, NOISE, "transfer-plain", kind, True) for s in range(30)]
            _report(
                f"tables by a {kind} law, fitted by transfer-plain, {n} runs, noise {NOISE:g}",
                np.array([s.predicted for s in studies]),
                np.array([s.actual(first_truth(s.seed, n, kind), NOISE) for s in studies]),
                began,
            )


def misfit(tables: int = 20) -> None:
    """What a first fit expects of its choice, and what that gives away under the truth that made the table."""
    for kind, n, choice in product(("transfer", "exponential"), (12, 40), TABLES):
        told = []
        for seed in range(tables):
            fit, truth = fitted(first_runs(seed, n, kind=kind)), first_truth(seed, n, kind)
            among = replace(first_runs(1000 + seed, 40), losses=np.full((40, 2), np.nan))
            goals = Goals.build(
                fit, {**GOAL, "bounds": None, "target": None}, (), None, 4.0,
                among if choice == "list" else None, 1, seed,
            )  # fmt: skip
            goal = goals.first
            assert goal.h is not None
            assert goal.choice is not None
            now = float(truth(**GOAL, h=goal.h[None])[0] @ goal.target)
            if choice == "list":
                least = (truth(**GOAL, h=among.weights) @ goal.target).min()
            else:
                least = min(now, _least(truth, goal.target, goal.h))
            right = max(
                Posterior.of(fit).trace(goal.choice.factor), Foresight(fit, goals.of[0], seed).before.mean()
            )
            told.append((now - least, right, right + (misfit_regret(goals.of[0], seed) or 0.0)))
        given, *expected = np.transpose(told)
        said = [
            f"{e.mean():.1e} (median ratio {np.median((e + 1e-6) / (given + 1e-6)):.2f}), ten times too little on "
            f"{(given > 10 * e + 1e-6).sum()}"
            for e in expected
        ]
        print(
            f"tables by a {kind} law, fitted by transfer-plain, {n} runs, {choice}: {given.mean():.1e} given away; "
            f"expected if the law is right {said[0]}; with its own error {said[1]} of {tables}",
            flush=True,
        )


def _least(truth: Truth, target: np.ndarray, h: np.ndarray) -> float:
    """The least target loss of any mixture."""
    from scipy.optimize import minimize as search
    from scipy.special import softmax

    def loss(u: np.ndarray) -> float:
        return float(truth(**GOAL, h=softmax(u)[None])[0] @ target)

    starts = (h, np.full(4, 0.25), *np.eye(4))
    return min(search(loss, np.log(start + 1e-3), method="L-BFGS-B").fun for start in starts)


def efficiency(count: int = 50) -> None:
    """Batch over bound on random instances."""
    out = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        fit = fitted(first_runs(seed, int(rng.integers(12, 40))))
        n = 400
        n_params, n_tokens = rng.choice([2e7, 5e7, 1e8, 2e8, 4e8], n), rng.choice([1e9, 3e9, 9e9], n)
        pool = Candidates(
            n_params=n_params, n_tokens=n_tokens, weights=rng.dirichlet(np.full(4, 0.7), n),
            flops=6 * n_params * n_tokens, once=bool(seed % 2),
        )  # fmt: skip
        choice = decision_among(Target(fit, **GOAL), np.full(2, 0.5), rng.dirichlet(np.ones(4), 64), seed)
        posterior, slopes = Posterior.of(fit), Slopes(fit, pool)
        limits = Limits(budget=float(10 ** rng.uniform(18.3, 19.7)), number=int(rng.integers(4, 20)))
        batch = greedy(pool, slopes, posterior, choice.factor, limits)
        start = posterior.trace(choice.factor)
        bound = least(pool, slopes, posterior, choice.factor, limits, batch.picks)
        out.append((start - batch.value) / (start - bound))
    worst = np.sort(out)
    print(
        f"efficiency on {count} instances: median {np.median(out):.3f}, lowest {worst[:3].round(3).tolist()}, "
        f"{int((worst >= 0.9).sum())} of {count} at least .9"
    )


def speed() -> None:
    """CPU of 16 runs from 100,000 candidates."""
    runs = first_runs(0, 60, domains=4)
    fit = lawkit.fit(runs, law="transfer", holdout="none", starts=1)
    lawkit.propose_runs(fit, n_params=7e9, n_tokens=1e12, budget=1e20, n=1)  # compiles
    generated.MOST = 100_000
    for method in ("regret", "d-optimal", "grid"):
        begun = time.process_time()
        found = lawkit.propose_runs(fit, n_params=7e9, n_tokens=1e12, budget=1e20, n=16, method=method)
        print(
            f"{method}: 16 runs from {found.n_candidates} candidates in {time.process_time() - begun:.1f} s of CPU, "
            f"efficiency at least {found.efficiency:.3f}"
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parts = {f.__name__: f for f in (calibration, beyond, misfit, efficiency, speed)}
    for part in sys.argv[1:] or parts:
        parts[part]()
