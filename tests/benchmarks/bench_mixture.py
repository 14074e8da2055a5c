"""Processor time and gap of optimize_mixture by number of sources, and beside it the usual searches.

Run: OMP_NUM_THREADS=1 python tests/benchmarks/bench_mixture.py
"""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from lawkit import optimize_mixture

_SPEC = importlib.util.spec_from_file_location("mixtures", Path(__file__).parent.parent / "test_mixture.py")
assert _SPEC is not None
assert _SPEC.loader is not None
mixtures = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(mixtures)

SCALE = mixtures.SCALE


def timed(call: Callable[[], Any], repeat: int = 3) -> tuple[Any, float]:
    """Last result and the least processor time in seconds."""
    times, out = [], None
    for _ in range(repeat):
        start = time.process_time()
        out = call()
        times.append(time.process_time() - start)
    return out, min(times)


def report(law, K, limits, result, seconds):
    """One line of the table."""
    print(f"{law:<20}{K:>8}{limits:>8}{seconds * 1e3:>9.1f}{result.optimality_gap:>10.1e}")


def growth():
    """By number of sources, 8 domains."""
    print(f"{'law':<20}{'sources':>8}{'limits':>8}{'ms':>9}{'gap':>10}")
    for law in ("transfer", "additive", "exponential-scale"):
        for K in (7, 30, 100, 300):
            fit = mixtures.random_fit(law, K, 8, 0)
            both: tuple[dict[str, Any], ...] = ({}, {"bounds": {"s0": (0.1, 1), "s1": (0, 0.001)}})
            for limits in both:
                result, seconds = timed(lambda a=(fit, limits): optimize_mixture(a[0], **SCALE, **a[1]))
                report(law, K, len(limits.get("bounds", ())), result, seconds)
    result, seconds = timed(lambda: optimize_mixture(mixtures.published_fit(), n_params=1300, n_tokens=30))
    report("capacity", 7, 0, result, seconds)
    print(f"  its objective on the published parameters: {result.objective:.9f}")


def rivals():
    """Dirichlet draws and softmax restarts on the same fits: excess loss and time ratio."""
    print(f"\n{'law':<16}{'sources':>8}  {'way':<24}{'excess nats':>12}{'time ratio':>12}")
    for law, K in (("transfer", 7), ("transfer", 30), ("additive", 7), ("exponential-scale", 30)):
        fit = mixtures.random_fit(law, K, 8, 1)
        result, seconds = timed(lambda fit=fit: optimize_mixture(fit, **SCALE))

        def draws(fit=fit, K=K):
            h = np.random.default_rng(0).dirichlet(np.ones(K), size=100_000)
            return min(fit.losses(*SCALE.values(), part).mean(axis=1).min() for part in np.array_split(h, 50))

        def restarts(fit=fit, K=K):
            def loss(z):
                e = np.exp(z - z.max())
                return mixtures.objective(fit, e / e.sum(), **SCALE)

            rng = np.random.default_rng(0)
            return min(minimize(loss, rng.normal(size=K), method="L-BFGS-B").fun for _ in range(5))

        for name, way in (("100k Dirichlet draws", draws), ("5 softmax restarts", restarts)):
            found, took = timed(way, repeat=1)
            print(f"{law:<16}{K:>8}  {name:<24}{found - result.objective:>12.2e}{took / seconds:>12.0f}")


if __name__ == "__main__":
    growth()
    rivals()
