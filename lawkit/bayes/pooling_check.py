"""What partial pooling costs in coverage: tables are simulated from the fit, and fitted with and without it.

The worlds' domains have the parameters of the fit that does not pool, so they are not what the shared prior takes them
for, draws of itself, but as different as the runs make them look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lawkit.bayes._importance import affordable_power, pareto_smoothed, resampled
from lawkit.bayes._proposal import Normal
from lawkit.bayes.density import LogPosterior
from lawkit.bayes.pooling import Pooling, centre, pool
from lawkit.bayes.spec import GroupDraws, Spec
from lawkit.errors import FitError
from lawkit.fitting.draws import NoiseModel
from lawkit.fitting.prepare import distinct
from lawkit.laws._function import Inputs

#: Nominal coverage, and how far below it the pooled bands beyond the runs may fall before a warning.
LEVEL, SHORT = 0.9, 0.05
#: Times the largest compute of any run.
BEYOND = 10.0
#: Settings of the table at which bands are looked at, draws that make one, and their worth at least.
_POINTS, _DRAWS, _WORTH = 12, 400, 100


@dataclass(frozen=True)
class _Points:
    """Where bands are looked at: inputs, covariates of the noise (p, C), and its spread there by domain (p, G)."""

    inputs: Inputs
    covariates: np.ndarray
    spread: np.ndarray


def simulated_coverage(
    described: Sequence[Spec], pooling: Pooling, model: NoiseModel, worlds: int = 40, seed: int = 0
) -> dict[str, Any]:
    """Coverage of the 90% bands of domains fitted apart and pooled, over tables simulated from the fit.

    Each world's losses are those of the domains' own posterior modes at the runs' settings, with noise of the size and
    tails found there. Rows that share their error are simulated as independent ones that say as much.

    Parameters
    ----------
    described
        The posteriors that are not pooled.
    pooling
        What `pooled` made of them; it is made anew in each world.
    model
        What their noise depends on.
    worlds
        How many tables.
    seed
        The same seed gives the same tables to the bit.

    Returns
    -------
    dict
        'unpooled' and 'pooled': {'inside': .., 'beyond': ..}, each {'parameter', 'predictive'}, the share of true losses
        in the bands that the parameters make and of new noisy losses in the predictive ones; inside at the runs' own
        settings, and beyond at 10 times the largest compute (None where no size varies). 'standard_error' of the pooled
        shares, in the same form. 'width_ratio': mean width of pooled bands over that of the others, likewise. 'level',
        and how many 'worlds' there were.

    Raises
    ------
    FitError
        If no world can be fitted.
    """
    rng = np.random.default_rng(seed)
    truth = [p.draws(u[None]) for p, u, _ in (centre(spec) for spec in described)]
    quiet = [_independent(spec) for spec in described]
    places = {"inside": _inside(described, model), "beyond": _beyond(described, model)}
    places = {name: p for name, p in places.items() if p is not None}
    expected = {name: _log_losses(described, truth, p.inputs) for name, p in places.items()}
    at_runs = _log_losses(described, truth, described[0].inputs)
    hits: dict[tuple[str, str, str], list[np.ndarray]] = {}
    widths: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(worlds):
        world = []
        for g, (spec, true) in enumerate(zip(quiet, truth, strict=True)):
            noise = _noise(true, spec.spread[:, 0], spec.covariates, rng)
            log_losses = np.where(spec.live, (at_runs[:, g] + noise)[:, None], 0.0)
            world.append(replace(spec, log_losses=log_losses, start=true.z[0], start_noise=true.noise[0]))
        new = {
            name: expected[name]
            + np.stack([_noise(t, p.spread[:, g], p.covariates, rng) for g, t in enumerate(truth)], 1)
            for name, p in places.items()
        }
        numbers = int(rng.integers(2**31))
        shared, _, near = pool(world, pooling, truth)
        for arm, specs, at in (("unpooled", world, truth), ("pooled", shared, near)):
            bands = _bands(specs, at, places, numbers)
            for name in places:
                for kind, target in (("parameter", expected[name]), ("predictive", new[name])):
                    low, high = bands[name, kind]
                    key = arm, name, kind
                    hits.setdefault(key, []).append(((target >= low) & (target <= high)).mean(0))
                    widths.setdefault(key, []).append(high - low)

    def table(number: Any) -> dict[str, Any]:
        kinds = ("parameter", "predictive")
        return {
            name: {kind: float(number(name, kind)) for kind in kinds} if name in places else None
            for name in ("inside", "beyond")
        }

    def share(arm: str) -> dict[str, Any]:
        return table(lambda *key: np.mean(hits[arm, *key]))

    return {
        "unpooled": share("unpooled"),
        "pooled": share("pooled"),
        # Points of one domain in one world err together.
        "standard_error": table(
            lambda *key: np.std(hits["pooled", *key]) / np.sqrt(worlds * len(described))
        ),
        "width_ratio": table(
            lambda *key: np.median(np.divide(widths["pooled", *key], widths["unpooled", *key]))
        ),
        "level": LEVEL,
        "worlds": worlds,
    }

def _bands(specs, truth, places, seed):
    out = {}
    ends = {}
    for g, (spec, true) in enumerate(zip(specs, truth, strict=True)):
        posterior, u, _ = centre(spec, true)
        rng = np.random.default_rng([seed, g])
        draws = _draws(posterior, u, rng)
        for name, p in places.items():
            with np.errstate(all="ignore"):
                log = np.log(spec.law.function.value(draws.z, replace(p.inputs, own=spec.inputs.own))[:, :, 0])
            log = np.clip(np.where(np.isnan(log), -1e3, log), -1e3, 1e3)
            new = log + _noise(draws, p.spread[:, g], p.covariates, rng)
            for kind, v in (("parameter", log), ("predictive", new)):
                ends.setdefault((name, kind), []).append(np.quantile(v, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0))
    return {k: np.moveaxis(np.stack(v, 2), 0, 0) for k, v in ends.items()}

MODE = "weights"
def _draws(posterior, u, rng):
    if MODE == "laplace":
        from lawkit.bayes.laplace import _resample
        return posterior.draws(_resample(posterior, Normal(u, posterior.hessian(u)), _DRAWS, rng)[0])
    drawn, log_density = Normal(u, posterior.hessian(u)).sample(rng.standard_normal((_DRAWS, len(u))))
    if MODE == "normal":
        return posterior.draws(drawn)
    ratios = posterior.value(drawn) - log_density
    log_weights, _ = pareto_smoothed(ratios)
    power = affordable_power(log_weights, _WORTH)
    return posterior.draws(drawn[resampled(power * log_weights, _DRAWS, rng)])


def _independent(spec: Spec) -> Spec:
    """The same runs, each with an error of its own, larger by as much as it counted for less."""
    counts = np.where(spec.live, spec.counts, 1.0)
    return replace(spec, spread=spec.spread / np.sqrt(counts), counts=spec.live.astype(float))


def _noise(draws: GroupDraws, spread: np.ndarray, covariates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of log losses (S, p) under each of S draws, (p,) under one; spread (p,), covariates (p, C)."""
    scale = spread * draws.noise * np.exp(draws.eta[:, 0] @ covariates.T)
    out = scale * rng.standard_t(np.broadcast_to(draws.nu, scale.shape))
    return out[0] if len(out) == 1 else out


def _log_losses(described: Sequence[Spec], at: Sequence[GroupDraws], x: Inputs) -> np.ndarray:
    """(p, G) of each domain under its own parameters."""
    each = [s.law.function.value(d.z, replace(x, own=s.inputs.own))[0, :, 0] for s, d in zip(described, at, strict=True)]
    with np.errstate(all="ignore"):
        return np.log(np.stack(each, 1))


def _inside(described: Sequence[Spec], model: NoiseModel) -> _Points:
    """Settings of the table, from the cheapest to the dearest."""
    x = described[0].inputs
    order = np.argsort(x.n_params * x.n_tokens, kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, _POINTS).astype(int))]
    return _at(described, x.rows(rows), rows, model)


def _beyond(described: Sequence[Spec], model: NoiseModel) -> _Points | None:
    """Their mixtures, each once, at `BEYOND` times the largest compute; None where no size varies."""
    x = described[0].inputs
    vary = [name for name in ("n_params", "n_tokens") if distinct(getattr(x, name)) > 1]
    if not vary:
        return None
    top = int(np.argmax(x.n_params * x.n_tokens))
    order = np.argsort(x.n_params * x.n_tokens, kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, _POINTS).astype(int))]
    uses = [getattr(x.rows(rows), c) for c in ("weights", "unique") if c in described[0].law.columns]
    if uses:
        rows = rows[np.unique(np.column_stack(uses), axis=0, return_index=True)[1]]
    else:
        rows = rows[:1]
    grow = BEYOND ** (1 / len(vary))
    sizes = {
        name: np.full(len(rows), getattr(x, name)[top] * (grow if name in vary else 1.0))
        for name in ("n_params", "n_tokens")
    }
    # Of the run with the most tokens: a longer one is not taken to be more exact.
    longest = np.full(len(rows), int(np.argmax(x.n_tokens)))
    return _at(described, replace(x.rows(rows), **sizes), longest, model)


def _at(described: Sequence[Spec], x: Inputs, like: np.ndarray, model: NoiseModel) -> _Points:
    spread = np.stack([s.spread[like, 0] for s in described], 1)
    return _Points(x, model.columns(x.n_params, x.weights), spread)
