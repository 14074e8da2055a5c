"""Proposals where the truth is known, and how long they take.

1. Calibration: 200 simulated studies. The truth of each is a draw of the posterior of a first fit; the runs that
   regret proposes are simulated under it and the law is fitted again. Printed: the reduction of expected regret that
   the proposal predicts, over the mean reduction of regret under the truths, with its standard error.
2. Efficiency: 50 random instances; what the batch saves over the convex bound on what any batch can save.
3. Speed: 16 runs from 100,000 generated candidates.

    python tests/benchmarks/bench_proposals.py [calibration] [efficiency] [speed]
"""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

import lawkit
from lawkit.design import candidates as generated
from lawkit.design.batch import Limits, greedy
from lawkit.design.candidates import Candidates
from lawkit.design.relaxation import least
from lawkit.design.value import Posterior, Slopes, decision_among
from lawkit.fitting import Fit
from lawkit.fitting.estimate import estimate
from lawkit.mixture.target import Target
from lawkit.runs import Runs

GOAL: dict[str, Any] = {"n_params": 1e9, "n_tokens": 3e10}
SOURCES = ("web", "code", "math", "books")
NOISE = 4e-3
COLUMNS = ("n_params", "n_tokens", "weights", "losses")


def first_runs(seed: int, n: int, domains: int = 2, noise: float = NOISE) -> Runs:
    """Runs of four sources by a transfer law, with noise."""
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.ones(4), n)
    n_params, n_tokens = rng.choice([5e7, 1e8, 2e8], n), rng.choice([1e9, 3e9, 9e9], n)
    losses = []
    for e in range(domains):
        lends = rng.uniform(0.1, 0.6, 4) + np.eye(4)[e]
        tokens = rng.uniform(0.1, 0.6, 4) + np.eye(4)[e]
        q, k = ((w * h**0.6).sum(1) ** (1 / 0.6) for w in (lends, tokens))
        losses.append(1.5 + 0.1 * e + ((n_params / 1e8 * q) ** -0.3 + (n_tokens / 3e9 * k) ** -0.35) ** 0.7)
    return Runs(
        sources=SOURCES,
        domains=SOURCES[:domains],
        n_params=n_params,
        n_tokens=n_tokens,
        weights=h,
        losses=np.array(losses).T * np.exp(noise * rng.normal(size=(n, domains))),
    )


def fitted(runs: Runs, warm: np.ndarray | None = None) -> Fit:
    """A fit of the cheap law that starts where another ended."""
    law = lawkit.laws.get("transfer-plain")
    found, _ = estimate(runs, law, law.objective, starts=2, warm=warm)
    return Fit(runs=runs, estimate=found, train={}, domain_train={})


def calibration() -> None:
    """At a noise of half the residual that the objective of transfer laws reckons with, and at all of it."""
    for noise in (NOISE, 2 * NOISE):
        _calibrated(noise)


def _calibrated(noise: float, bases: int = 10, truths: int = 20) -> None:
    """Predicted over realised reduction of regret."""
    predicted, expected, before, after = [], [], [], []
    for base in range(bases):
        fit = fitted(first_runs(base, 24, noise=noise))
        choices = replace(first_runs(1000 + base, 40), losses=np.full((40, 2), np.nan))
        found = lawkit.propose_runs(fit, **GOAL, budget=3e19, n=6, choices=choices, tolerance=0.0, seed=base)
        assert found.expected_regret_now is not None
        assert found.runs[-1].regret_after is not None
        expected.append(found.expected_regret_now)
        predicted.append(found.expected_regret_now - found.runs[-1].regret_after)
        new = found.to_runs()
        at, mean = Target(fit, **GOAL), np.full(2, 0.5)
        h = choices.weights
        now = int((fit.losses(GOAL["n_params"], GOAL["n_tokens"], h) @ mean).argmin())
        rng = np.random.default_rng(base)
        for z in fit.draw(truths, seed=base):
            truth = at.with_parameters(z)
            real = truth.losses(h) @ mean
            assert new.n_tokens is not None
            clean = truth.fit.losses(new.n_params, new.n_tokens, new.weights)
            shock = fit.noise_at(new.n_tokens) * rng.normal(size=clean.shape)
            fresh = replace(
                new, domains=fit.runs.domains, losses=clean * np.exp(shock), seed=None, flops=None
            )
            joint: dict[str, Any] = {
                c: np.concatenate([getattr(fit.runs, c), getattr(fresh, c)]) for c in COLUMNS
            }
            joined = Runs(
                sources=SOURCES, domains=fresh.domains,
                **joint,
            )  # fmt: skip
            then = int((fitted(joined, fit.z).losses(GOAL["n_params"], GOAL["n_tokens"], h) @ mean).argmin())
            before.append(real[now] - real.min())
            after.append(real[then] - real.min())
    saved = np.array(before) - np.array(after)
    error = saved.std() / np.sqrt(len(saved))
    print(
        f"calibration over {len(saved)} studies, noise {noise:g}: predicted reduction {np.mean(predicted):.2e} of "
        f"{np.mean(expected):.2e} nats, realised {saved.mean():.2e} +- {error:.1e} of {np.mean(before):.2e}: ratio "
        f"{np.mean(predicted) / saved.mean():.2f}",
        flush=True,
    )


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
    parts = {f.__name__: f for f in (calibration, efficiency, speed)}
    for part in sys.argv[1:] or parts:
        parts[part]()
