"""NUTS by nutpie or by PyMC: from a `Spec` to plain arrays of draws."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lawkit.bayes import _arviz
from lawkit.bayes._axes import Axes, bends, level_runs, sheared
from lawkit.bayes.density import LogPosterior
from lawkit.bayes.model import build, data
from lawkit.bayes.spec import Spec
from lawkit.errors import DrawsError

#: Chains start this many times as far from the posterior's mode as the normal with its curvature lies.
_SPREAD = 1.0
#: A chain that was cut off is worth keeping with so many draws.
FEWEST = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampled:
    """What a sampler returned.

    Attributes
    ----------
    values
        Of the model's free variables, each (chains, draws, ...).
    diverging, n_steps
        (chains, draws).
    sampler
        Its name and version.
    interrupted
        Whether it was cut off; then chains and draws may be fewer than were asked for.
    """

    values: dict[str, np.ndarray]
    diverging: np.ndarray
    n_steps: np.ndarray
    sampler: str
    interrupted: bool = False


def sample(
    spec: Spec,
    around: Axes,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    target_accept: float,
    progress: bool,
) -> Sampled:
    """By nutpie where it is installed, else by PyMC; the other arguments as `lawkit.bayes.sample.nuts`.

    Raises
    ------
    ImportError
        If PyMC is not installed.
    DrawsError
        If it is interrupted before there is enough to keep.
    """
    _arviz.arviz()  # before PyMC imports it, and lets its notices through
    import pymc  # noqa: F401, nutpie without it is of no use

    try:
        import nutpie  # noqa: F401
    except ImportError:
        by = by_pymc
    else:
        by = by_nutpie
    return by(spec, around, draws, tune, chains, seed, target_accept, progress)


def recorded(spec: Spec) -> tuple[str, ...]:
    """Names of the model's variables whose draws are kept."""
    return ("u", "log_noise", "noise_nu", *(["noise_slope"] if spec.covariates.shape[1] else []))


def starts(spec: Spec, around: Axes) -> Callable[[int], dict[str, np.ndarray]]:
    """A function that draws a starting point of the free variables from a seed, around the posterior's mode."""
    posterior, few = LogPosterior(spec), level_runs(spec)

    def level(u: np.ndarray) -> float:
        return float(np.log(spec.law.function.value((spec.prior_mean + around.root @ u)[None], few)).mean())

    def draw(seed: int) -> dict[str, np.ndarray]:
        away = _SPREAD * np.random.default_rng(seed).standard_normal(posterior.size)
        at = posterior.draws((around.centre + around.spread @ away)[None])
        u = np.linalg.solve(around.root, at.z[0] - spec.prior_mean)
        return {
            **({"v": sheared(u, level, vars(around), 1)} if bends(spec) else {"u": u}),
            "log_noise": np.log(at.noise[0]),
            "noise_nu": at.nu[0],
            **({"noise_slope": at.eta[0]} if spec.covariates.shape[1] else {}),
        }

    return draw


# ---- nutpie -----------------------------------------------------------------------------------------------

#: The last model that was compiled, and what it was compiled for: domains of one fit differ in their data only.
_compiled: tuple[Any, Any] | None = None


def by_nutpie(
    spec: Spec,
    around: Axes,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    target_accept: float,
    progress: bool,
) -> Sampled:
    """NUTS by nutpie. Its diagonal mass matrix does: the axes already take the correlations at the mode away."""
    import nutpie

    with _quietly():
        compiled = _compile(spec, around)
        running = nutpie.sample(
            compiled, draws=draws, tune=tune, chains=chains, seed=seed, target_accept=target_accept,
            save_warmup=False, progress_bar=progress, blocking=False,
        )  # fmt: skip
        interrupted = False
        try:
            trace = running.wait()
        except KeyboardInterrupt:
            interrupted, trace = True, running.abort()
    posterior, stats = trace["posterior"], trace["sample_stats"]
    names = recorded(spec)
    values = {name: np.asarray(posterior[name].values, float) for name in names}
    # Chains that were cut off are filled up with NaN.
    done = np.isfinite(values["u"]).all(-1).sum(1)
    kept, length = _complete(done, draws, interrupted)
    return Sampled(
        values={name: v[kept, :length] for name, v in values.items()},
        diverging=stats["diverging"].values[kept, :length].astype(bool),
        n_steps=stats["n_steps"].values[kept, :length].astype(int),
        sampler=f"nutpie {nutpie.__version__}",
        interrupted=interrupted,
    )


def _compile(spec: Spec, around: Axes) -> Any:
    """The compiled model of `spec`; compiled anew only if the last one differs in more than its data."""
    global _compiled
    import nutpie

    given = data(spec, around)
    key = (spec.law, _fixed_part(spec), tuple((name, v.shape) for name, v in given.items()))
    if _compiled is None or _compiled[0] != key:
        model = build(spec, around)
        compiled = nutpie.compile_pymc_model(model, var_names=list(recorded(spec)))
        order = [model.values_to_rvs[v].name for v in model.value_vars]
        _compiled = key, (compiled, order)
    compiled, order = _compiled[1]
    draw = starts(spec, around)

    def start(seed: int) -> np.ndarray:
        point = draw(seed)
        point["noise_nu"] = np.log(point["noise_nu"])  # sampled as its logarithm
        return np.concatenate([point[name].ravel() for name in order])

    return dataclasses.replace(compiled.with_data(**given), initial_point_func=start)


def _fixed_part(spec: Spec) -> tuple[Any, ...]:
    """What a compiled model holds as constants, comparable."""
    x = spec.inputs
    own = x.own if spec.law.needs_own_source else np.zeros((1, spec.log_losses.shape[1]))
    arrays = [
        x.n_params,
        x.n_tokens,
        x.weights,
        own,
        spec.covariates,
        *([] if x.unique is None else [x.unique]),
    ]
    return x.n_ref, x.d_ref, *[(a.shape, a.tobytes()) for a in arrays]


# ---- PyMC -------------------------------------------------------------------------------------------------


def by_pymc(
    spec: Spec,
    around: Axes,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    target_accept: float,
    progress: bool,
) -> Sampled:
    """NUTS by PyMC."""
    model = build(spec, around)
    import pymc as pm

    seeds = np.random.SeedSequence(seed).generate_state(2 * chains)
    draw = starts(spec, around)
    with model, _quietly():
        try:
            trace = pm.sample(
                draws=draws, tune=tune, chains=chains, random_seed=[int(s) for s in seeds[:chains]],
                initvals=[draw(int(s)) for s in seeds[chains:]], init="adapt_diag", nuts_sampler="pymc",
                target_accept=target_accept, progressbar=progress, compute_convergence_checks=False,
                return_inferencedata=False, var_names=list(recorded(spec)),
            )  # fmt: skip
        except ValueError as error:
            if "Not enough samples" not in str(error):
                raise
            raise DrawsError(_too_short(0), interrupted=True) from None
    found = [trace.get_values(name, combine=False, squeeze=False) for name in recorded(spec)]
    # PyMC takes Ctrl-C for the wish to end with what there is.
    done = np.array([len(v) for v in found[0]])
    interrupted = len(done) < chains or bool(done.min() < draws)
    kept, length = _complete(done, draws, interrupted)
    some = [i for i, keep in enumerate(kept) if keep]

    def stack(parts: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.asarray(parts[i])[:length] for i in some])

    def stat(name: str) -> np.ndarray:
        return stack(trace.get_sampler_stats(name, combine=False, squeeze=False)).reshape(len(some), length)

    return Sampled(
        values={name: stack(v) for name, v in zip(recorded(spec), found, strict=True)},
        diverging=stat("diverging").astype(bool),
        n_steps=stat("tree_size").astype(int),
        sampler=f"PyMC {pm.__version__}",
        interrupted=interrupted,
    )


# ---- both -------------------------------------------------------------------------------------------------


def _complete(done: np.ndarray, draws: int, interrupted: bool) -> tuple[np.ndarray, int]:
    """Which chains (chains,) to keep given their draws `done`, and how many draws of each.

    Raises
    ------
    DrawsError
        If none is long enough.
    """
    kept = done >= (min(FEWEST, draws) if interrupted else draws)
    if not kept.any():
        raise DrawsError(_too_short(int(done.max(initial=0))), interrupted=True)
    return kept, int(done[kept].min())


def _too_short(draws: int) -> str:
    return (
        f"interrupted with {draws} draws of the posterior's longest chain, too few to keep ({FEWEST} are needed); "
        "fit again, or with --posterior laplace if time is short"
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the notices of PyMC, PyTensor and numba: what matters is said in lawkit's own words."""
    loggers = [logging.getLogger(name) for name in ("pymc", "pytensor")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
