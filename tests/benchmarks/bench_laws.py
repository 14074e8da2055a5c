"""How long laws take to compile and to evaluate: `python tests/benchmarks/bench_laws.py`.

Compile times are of a fresh process, one law after the other, in seconds of CPU: value, first and second derivatives
by all parameters and weights. They must not grow with the number of sources, because sums stay sums.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from lawkit import laws
from lawkit.laws._function import Inputs, LawFunction
from lawkit.laws._law import Law


def inputs(law: Law, n_sources: int, rows: int) -> tuple[np.ndarray, Inputs]:
    """One parameter vector near the middle of its ranges, and random rows."""
    rng = np.random.default_rng(0)
    z = np.zeros((1, law.n_parameters(n_sources)))
    for p in law.parameters:
        part = law.layout(n_sources)[p.name]
        z[:, part] = p.prior.mean if p.prior else np.mean(law.unconstrained_range(p))
    n_tokens = 10 ** rng.uniform(9.5, 11.5, rows)
    return z, Inputs(
        n_params=10 ** rng.uniform(8, 10, rows),
        n_tokens=n_tokens,
        unique=n_tokens * 10 ** rng.uniform(-1.5, 0.5, rows),
        weights=rng.dirichlet(np.ones(n_sources), rows),
        own=np.arange(n_sources)[None, :1] if not law.coupled else np.arange(n_sources)[None],
        n_ref=1e9,
        d_ref=3e10,
    )


def compile_times(name: str, n_sources: int) -> tuple[float, float, float]:
    """CPU seconds to the first value, first gradient and first Hessian by the weights, in a fresh process."""
    code = f"from bench_laws import _first_times; print(*_first_times({name!r}, {n_sources}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=__file__.rsplit("/", 1)[0],
        capture_output=True,
        text=True,
        check=True,
    )
    value, gradient, hessian = (float(t) for t in done.stdout.split())
    return value, gradient, hessian


def _first_times(name: str, n_sources: int) -> list[float]:
    law = laws.get(name)
    z, x = inputs(law, n_sources, 1)
    start = time.process_time()
    function = LawFunction(law)
    function.value(z, x)
    times = [time.process_time() - start]
    for call, wrt in (
        (function.jacobian, ("params", "weights")),
        (function.hessian, ("weights",)),
    ):
        start = time.process_time()
        call(z, x, wrt)
        times.append(time.process_time() - start)
    return times


def main() -> None:
    """Print the tables."""
    print(f"{'law':20}{'value':>8}{'first':>8}{'second':>8}   300 sources against 2: total, ratio")
    for name in laws.names():
        law = laws.get(name)
        with_weights = "weights" in law.columns
        few = compile_times(name, 2)
        line = f"{name:20}" + "".join(f"{t:8.2f}" for t in few)
        if with_weights and not law.coupled:
            many = compile_times(name, 300)
            line += f"   {sum(many):6.2f} s, {sum(many) / sum(few):.2f}"
        print(line)
    print("\nevaluation, 1,000 rows, milliseconds: value, gradient by all parameters")
    for name in laws.names():
        law = laws.get(name)
        z, x = inputs(law, 7, 1000)
        law.function.value(z, x)
        law.function.jacobian(z, x)
        times = []
        for call in (law.function.value, law.function.jacobian):
            start = time.perf_counter()
            for _ in range(5):
                call(z, x)
            times.append((time.perf_counter() - start) / 5)
        print(f"{name:20}" + "".join(f"{1e3 * t:8.2f}" for t in times))


if __name__ == "__main__":
    main()
