"""Mixtures: gaps on random instances, growth with sources and draws, and the usual searches beside.

Run: OMP_NUM_THREADS=1 python tests/benchmarks/bench_mixture.py [instances|growth|rivals] [how many] [laws]

instances  random fits of every law, 2 to 30 sources, half of them under limits: the largest optimality gap, and how far
           the best of 50 multi-starts is above the answer (below it would be a failure).
growth     processor time by sources, and by draws under CVaR.
rivals     100,000 Dirichlet draws (as olmix searches) and softmax with scipy's basin-hopping (as the authors of the
           capacity law do), written anew: excess loss, and time as a multiple of ours.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import basinhopping

from lawkit import optimize_mixture
from lawkit.errors import OptimizeError
from lawkit.mixture.problem import MixtureProblem
from lawkit.mixture.smooth import minimise_many, starting_mixtures
from lawkit.mixture.solve import solve
from lawkit.mixture.target import Target

_SPEC = importlib.util.spec_from_file_location("mixtures", Path(__file__).parent.parent / "test_mixture.py")
assert _SPEC is not None
assert _SPEC.loader is not None
mixtures = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(mixtures)

SCALE = mixtures.SCALE
LAWS = (
    "transfer",
    "transfer-plain",
    "transfer-linear",
    "exponential",
    "exponential-scale",
    "additive",
    "linear",
    "capacity",
)


def timed(call: Callable[[], Any], repeat: int = 3) -> tuple[Any, float]:
    """Last result and the least processor time in seconds."""
    times, out = [], None
    for _ in range(repeat):
        start = time.process_time()
        out = call()
        times.append(time.process_time() - start)
    return out, min(times)


def capacity_fit(K: int, rng: np.random.Generator) -> Any:
    """A random fit of the capacity law with parameters like the published ones."""
    b = rng.uniform(0.2, 1.5, K)
    values = {
        "b": b, "c": rng.uniform(0.5, 2, K) * 100**b, "A": rng.uniform(0.5, 2, K), "a": rng.uniform(0.2, 1, K),
        "E": rng.uniform(1, 2, K), "H": 5.0,
    }  # fmt: skip
    return mixtures.make_fit("capacity", values, mixtures.names(K), mixtures.names(K), (500, 1300), (10, 30))


def limits_of(sources: tuple[str, ...], rng: np.random.Generator, least: float = 0.0) -> dict[str, Any]:
    """Random limits that a mixture keeps whose weights are no less than `least`."""
    K = len(sources)
    h = least + (1 - K * least) * rng.dirichlet(np.ones(K))
    bounds = {
        s: (h[j] * rng.uniform(0, 0.9), min(1.0, h[j] * rng.uniform(1.1, 3)))
        for j, s in enumerate(sources)
        if rng.random() < 0.4
    }
    if K < 4:
        return {"bounds": bounds}
    members = [s for s in sources if rng.random() < 0.4][: K - 1] or [sources[0], sources[1]]
    total = sum(h[sources.index(s)] for s in members)
    return {"bounds": bounds, "groups": {"g": {"sources": members, "upper": min(0.99, total * 1.1)}}}


def best_of_starts(at: Target, problem: MixtureProblem, count: int = 50) -> float:
    """Least loss of local searches from the middle, near each corner and random mixtures, all at once."""
    polytope = problem.polytope.inner()
    starts = starting_mixtures(polytope, count, 0)[: len(problem.sources) + 1]
    starts += starting_mixtures(polytope, count, 0)[len(starts) - count :]
    evaluate = at.derivatives_of(np.tile(at.fit.z, (len(starts), 1, 1)), problem.target)
    return min(s.objective for s in minimise_many(evaluate, polytope, starts, barrier=1e-4))


def instances(count: int = 200) -> None:
    """Gaps, and the best of 50 starts."""
    print(
        f"{'law':<20}{'solved':>8}{'global':>8}{'largest gap':>13}{'median ms':>11}{'starts: least excess':>22}"
    )
    for law in [a for a in sys.argv if a in LAWS] or LAWS:
        rng = np.random.default_rng(0)
        gaps, times, excess, proven, failed = [], [], [], 0, 0
        for i in range(count):
            K, E = int(rng.integers(2, 31)), int(rng.integers(1, 9))
            fit = capacity_fit(K, rng) if law == "capacity" else mixtures.random_fit(law, K, E, 1000 + i)
            n, d = (1300.0, 30.0) if law == "capacity" else SCALE.values()
            limits = limits_of(fit.sources, rng, 2e-4 if law == "capacity" else 0.0) if i % 2 else {}
            at = Target(fit, n, d)
            problem = MixtureProblem.build(fit.sources, fit.domains, n_tokens=d, **limits).raised(at.floor)
            start = time.process_time()
            try:
                found = solve(at, problem)
            except OptimizeError:
                failed += 1
                continue
            times.append(time.process_time() - start)
            gaps.append(found.gap)
            proven += found.certificate == "global"
            excess.append(best_of_starts(at, problem) - found.objective)
        print(
            f"{law:<20}{len(gaps):>8}{proven:>8}{max(gaps):>13.1e}{1e3 * np.median(times):>11.1f}"
            f"{min(excess, default=np.nan):>22.1e}" + (f"  refused: {failed}" if failed else ""),
            flush=True,
        )


def growth(_: int = 0) -> None:
    """By number of sources, 8 domains; and by draws, 7 sources."""
    print(f"{'law':<20}{'sources':>8}{'limits':>8}{'ms':>9}{'gap':>10}")
    for law in ("transfer", "additive", "exponential-scale"):
        for K in (7, 30, 100, 300):
            fit = mixtures.random_fit(law, K, 8, 0)
            group = {"g": {"sources": list(fit.sources[: K // 2]), "upper": 0.3}}
            for limits in ({}, {"bounds": {"s0": (0.1, 1), "s1": (0, 0.001)}, "groups": group}):
                result, seconds = timed(lambda a=(fit, limits): optimize_mixture(a[0], **SCALE, **a[1]), 2)
                print(
                    f"{law:<20}{K:>8}{len(limits):>8}{seconds * 1e3:>9.1f}{result.optimality_gap:>10.1e}",
                    flush=True,
                )
    result, seconds = timed(lambda: optimize_mixture(mixtures.published_fit(), n_params=1300, n_tokens=30))
    print(f"{'capacity':<20}{7:>8}{0:>8}{seconds * 1e3:>9.1f}{result.optimality_gap:>10.1e}")
    print(f"\n{'law':<20}{'sources':>8}{'draws':>8}{'risk':>10}{'s':>9}{'gap':>10}")
    for law, K in (("transfer", 7), ("transfer", 30), ("exponential-scale", 7)):
        fit = mixtures.random_fit(law, K, 8, 0)
        G, P = fit.estimate.z.shape
        fit = replace(fit, estimate=replace(fit.estimate, covariance=np.tile(0.01 * np.eye(P), (G, 1, 1))))
        at, problem = Target(fit, *SCALE.values()), MixtureProblem.build(fit.sources, fit.domains)
        for draws in (50, 200, 1000):
            for risk in (("mean", 0.0), ("cvar", 0.9)):
                z = fit.draw(draws, 0)
                found, seconds = timed(lambda a=(at, problem, z, risk): solve(a[0], a[1], 0, a[2], a[3]), 1)
                print(f"{law:<20}{K:>8}{draws:>8}{risk[0]:>10}{seconds:>9.2f}{found.gap:>10.1e}", flush=True)


def rivals(_: int = 0) -> None:
    """The same fits by the usual ways."""
    print(f"\n{'law':<20}{'sources':>8}  {'way':<24}{'excess nats':>12}{'time ratio':>12}")
    cases = [(law, K) for law in ("transfer", "additive", "exponential-scale") for K in (7, 30)] + [
        ("capacity", 7)
    ]
    for law, K in cases:
        fit = mixtures.published_fit() if law == "capacity" else mixtures.random_fit(law, K, 8, 1)
        n, d = (1300.0, 30.0) if law == "capacity" else SCALE.values()
        at, problem = Target(fit, n, d), MixtureProblem.build(fit.sources, fit.domains)
        result, seconds = timed(lambda a=(at, problem): solve(*a))

        def draws(fit=fit, K=K, n=n, d=d):
            h = np.random.default_rng(0).dirichlet(np.ones(K), size=100_000)
            return min(fit.losses(n, d, part).mean(axis=1).min() for part in np.array_split(h, 50))

        def hopping(fit=fit, K=K, n=n, d=d):
            def loss(z):
                e = np.exp(z - z.max())
                return float(fit.losses(n, d, (e / e.sum())[None]).mean())

            return basinhopping(
                loss,
                np.zeros(K),
                niter=20,
                rng=np.random.default_rng(0),
                minimizer_kwargs={"method": "L-BFGS-B"},
            ).fun

        for name, way in (("100k Dirichlet draws", draws), ("softmax, 20 basin hops", hopping)):
            found, took = timed(way, repeat=1)
            line = f"{law:<20}{K:>8}  {name:<24}{found - result.objective:>12.2e}{took / seconds:>12.0f}"
            print(line, flush=True)


if __name__ == "__main__":
    parts = {"instances": instances, "growth": growth, "rivals": rivals}
    chosen = [a for a in sys.argv[1:] if a in parts] or list(parts)
    numbers = [int(a) for a in sys.argv[1:] if a.isdigit()]
    for part in chosen:
        parts[part](*numbers[:1])
