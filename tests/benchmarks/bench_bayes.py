"""Chinchilla's posterior on its published points: NUTS in our coordinates and in A and B, and Laplace's way.

    LAWKIT_DATASETS=... OMP_NUM_THREADS=1 python tests/benchmarks/bench_bayes.py [--chains 4] [--draws 1000]

All in this one process, NUTS by the same sampler (nutpie, target_accept .9) with four chains of 1,000 draws after
1,000 of tuning. `naive` writes the law as E + A / N^alpha + B / D^beta with log-normal priors on A and B, N and D as
they are; it is sampled as ours is, with nutpie's own diagonal mass matrix, and once more with its low-rank one, which
learns the correlations that our coordinates take away. Times are CPU seconds of this process and its threads: the
first run with compiling, and a second one with another seed (the low-rank one is warm from the start).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lawkit import laws
from lawkit.bayes import _arviz
from lawkit.bayes.laplace import laplace
from lawkit.bayes.natural import natural
from lawkit.bayes.sample import nuts
from lawkit.bayes.spec import Spec, specs
from lawkit.fitting.draws import NoiseModel
from lawkit.fitting.estimate import estimate
from published import chinchilla

SHOWN = ("alpha", "beta", "E")


def naive(spec: Spec) -> Any:
    """The same data under the obvious model, as scripts write it."""
    import pymc as pm

    n, d = spec.inputs.n_params, spec.inputs.n_tokens
    with pm.Model() as model:
        A, B = pm.LogNormal("A", 6.0, 3.0), pm.LogNormal("B", 6.0, 3.0)
        E = pm.LogNormal("E", 0.5, 0.5)
        alpha, beta = (pm.LogNormal(name, np.log(0.35), 0.5) for name in ("alpha", "beta"))
        mean = pm.math.log(E + A * n**-alpha + B * d**-beta)
        sigma, nu = pm.LogNormal("sigma", np.log(0.01), 1.0), pm.Gamma("nu", 2.0, 0.1)
        pm.StudentT("y", nu=nu, mu=mean, sigma=sigma, observed=spec.log_losses[:, 0])
    return model


def timed(run: Any) -> tuple[Any, float]:
    """What it returns, and CPU seconds."""
    start = time.process_time()
    out = run()
    return out, time.process_time() - start


def main() -> None:
    """Run all three and print moments, diagnostics and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    folder = os.environ.get("LAWKIT_DATASETS")
    if not folder:
        sys.exit("set LAWKIT_DATASETS to the folder of the published tables")
    warnings.simplefilter("ignore")
    runs, law = chinchilla(Path(folder), 5), laws.get("chinchilla")
    e, ready = estimate(runs, law, law.objective)
    (spec,) = specs(runs, ready, e.z, e.noise, NoiseModel())

    def moments(z: np.ndarray) -> dict[str, tuple[float, float]]:
        values = natural(law, z, spec.inputs.n_ref, spec.inputs.d_ref, 0)
        return {name: (float(values[name].mean()), float(values[name].std())) for name in SHOWN}

    def say(
        name: str, found: dict[str, tuple[float, float]], first: float, warm: float, more: str = ""
    ) -> None:
        told = ", ".join(f"{k} {m:.4f} +- {s:.4f}" for k, (m, s) in found.items())
        print(f"{name:8s} {told}; CPU s {first:.2f} first, {warm:.2f} warm{more}", flush=True)

    def ours(seed: int) -> Any:
        return nuts(spec, options.draws, chains=options.chains, seed=seed, progress=False)

    (drawn, _), first = timed(lambda: ours(1))
    (again, _), warm = timed(lambda: ours(2))
    d = again.diagnostics
    reference = moments(np.concatenate([drawn.z, again.z]))
    say(
        "ours", moments(again.z), first, warm,
        f"; R-hat {d['max_rhat']:.4f}, ESS bulk {d['min_ess_bulk']:.0f} tail {d['min_ess_tail']:.0f}, "
        f"divergences {d['divergences']}, {d['sampler']}",
    )  # fmt: skip

    import nutpie

    compiled, compiling = timed(lambda: nutpie.compile_pymc_model(naive(spec)))
    low_rank = (
        {"adaptation": "low_rank"}
        if "adaptation" in nutpie.sample.__code__.co_varnames
        else {"low_rank_modified_mass_matrix": True}
    )

    def obvious(seed: int, **adaptation: Any) -> Any:
        return nutpie.sample(
            compiled, draws=options.draws, tune=1000, chains=options.chains, seed=seed, target_accept=0.9,
            progress_bar=False, **adaptation,
        )  # fmt: skip

    def tell_naive(name: str, trace: Any, first: float, warm: float) -> float:
        """Effective draws of the worst parameter."""
        posterior = trace["posterior"]
        found = _arviz.convergence(
            np.stack([posterior[k].values for k in ("A", "B", "E", "alpha", "beta", "sigma", "nu")], -1)
        )
        told = {k: posterior[k].values for k in SHOWN}
        say(
            name, {k: (float(v.mean()), float(v.std())) for k, v in told.items()}, first, warm,
            f"; R-hat {found.rhat.max():.4f}, ESS bulk {found.ess_bulk.min():.0f}, divergences "
            f"{int(trace['sample_stats']['diverging'].values.sum())}",
        )  # fmt: skip
        return float(found.ess_bulk.min())

    _, first_naive = timed(lambda: obvious(1))
    trace, warm_naive = timed(lambda: obvious(2))
    ess_naive = tell_naive("naive", trace, compiling + first_naive, warm_naive)
    trace, warm_low_rank = timed(lambda: obvious(2, **low_rank))
    ess_low_rank = tell_naive("low rank", trace, warm_low_rank, warm_low_rank)

    approximated, first_laplace = timed(lambda: laplace(spec, 4000, 1))
    approximated, warm_laplace = timed(lambda: laplace(spec, 4000, 2))
    say(
        "laplace",
        moments(approximated.z),
        first_laplace,
        warm_laplace,
        f"; {approximated.diagnostics['pareto_k']:.2f} Pareto k",
    )
    off = max(abs(m - reference[k][0]) / reference[k][1] for k, (m, _) in moments(approximated.z).items())
    ess = d["min_ess_bulk"]
    print(f"warm, ours over naive: {warm / warm_naive:.3f}; Laplace over ours: {warm_laplace / warm:.3f}")
    print(
        f"warm, per effective draw: {warm / ess / (warm_naive / ess_naive):.3f}; over naive with a low-rank matrix: "
        f"{warm / warm_low_rank:.2f}, per effective draw {warm / ess / (warm_low_rank / ess_low_rank):.3f}"
    )
    print(f"Laplace's means are at most {off:.2f} posterior standard deviations off")


if __name__ == "__main__":
    main()
