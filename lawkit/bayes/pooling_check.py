"""What partial pooling does to coverage: tables are simulated from the fit, and fitted with and without it.

The truth is not known, so there are worlds of two kinds. In those from the separate fits the domains differ as these
do: more than in truth, as each fit also errs by its own noise, and just where its runs say little. In those from the
pooled fit they are draws of its posterior, and differ as it takes them to. Coverage is to be expected in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from lawkit.bayes._proposal import Normal
from lawkit.bayes.laplace import _resample
from lawkit.bayes.pooling import Centre, Pooling, centre, pool
from lawkit.bayes.spec import GroupDraws, Spec
from lawkit.fitting.draws import NoiseModel
from lawkit.fitting.prepare import distinct

#: Nominal coverage, and how far below it pooled bands may fall before a warning.
LEVEL, SHORT = 0.9, 0.05
#: Times the largest compute of any run.
BEYOND = 10.0
#: Worlds of a kind, at least and at most; the fits of a domain of few runs that are affordable, and how many numbers
#: (losses x unknowns) make another domain as dear as one more of these.
_WORLDS, _FITS, _NUMBERS = (4, 40), 60, 2500
#: Settings of the table at which bands are looked at, and draws that make one.
_POINTS, _DRAWS = 12, 400
#: Log losses beyond these bounds are all alike.
_FAR = 1e3

ARMS = ("unpooled", "pooled")
WHERE, KINDS = ("inside", "beyond"), ("parameter", "predictive")


def check(
    described: Sequence[Spec],
    specs: Sequence[Spec],
    pooling: Pooling,
    model: NoiseModel,
    seed: int = 0,
    worlds: int | None = None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Coverage in worlds of both kinds, and what is to be said of it.

    Parameters
    ----------
    described, specs, pooling
        The posteriors before and after `lawkit.bayes.pooling.pooled`, and the prior that it found.
    model
        What their noise depends on.
    seed
        The same seed gives the same worlds to the bit.
    worlds
        How many of each kind; by default as many as take a few seconds, 4 at least and 40 at most.

    Returns
    -------
    dict
        As `simulated_coverage` in worlds from the separate fits, and under 'as_pooled' in those from the pooled fit.
    warnings
        One where the pooled bands cover less of the true losses beyond the runs (at them, where no size varies) than
        `LEVEL` - `SHORT`, and less than bands of separate fits by more than chance.
    """
    if worlds is None:
        dearness = 1 + described[0].log_losses.size * (len(described[0].start) + 2) / _NUMBERS
        worlds = int(np.clip(round(_FITS / (len(described) * dearness)), *_WORLDS))
    own = [posterior.draws(u[None]) for posterior, u, _ in map(centre, described)]
    drawn = [_draws(centre(spec), np.random.default_rng([seed, g])) for g, spec in enumerate(specs)]
    found = simulated_coverage(described, pooling, own, model, worlds, seed)
    found["as_pooled"] = simulated_coverage(described, pooling, drawn, model, worlds, seed + 1)
    where = "beyond" if found["pooled"]["beyond"] else "inside"
    shares = found["pooled"], found["unpooled"], found["as_pooled"]["pooled"]
    reached, apart, alike = (share[where]["parameter"] for share in shares)
    if reached >= LEVEL - SHORT or apart - reached <= 2 * found["standard_error"][where]["parameter"]:
        return found, ()
    place = f"at {BEYOND:g} times the largest compute" if where == "beyond" else "at the runs' own settings"
    return found, (
        f"pooling may cost coverage here: in {worlds} tables simulated from the separate fits of the domains, pooled "
        f"{LEVEL:.0%} bands held {reached:.0%} of the true losses {place}, and those of separate fits {apart:.0%} (in "
        f"{worlds} tables from the pooled fit, pooled bands held {alike:.0%}): leave pooling out unless the domains "
        "are known to be alike",
    )


def simulated_coverage(
    described: Sequence[Spec],
    pooling: Pooling,
    truth: Sequence[GroupDraws],
    model: NoiseModel,
    worlds: int = 40,
    seed: int = 0,
) -> dict[str, Any]:
    """Coverage of the 90% bands of domains fitted apart and pooled, over simulated tables.

    A table has the losses that the truth gives for the runs' settings, with noise of its size and tails. Rows that
    share their error are simulated as independent ones that say as much.

    Parameters
    ----------
    described
        The G posteriors that are not pooled.
    pooling
        What `lawkit.bayes.pooling.pooled` made of them; it is made anew in each world.
    truth
        Of each domain, one draw for all worlds, or as many or more as worlds.
    model
        What the noise depends on.
    worlds
        How many tables, at least two.
    seed
        The same seed gives the same tables to the bit.

    Returns
    -------
    dict
        'unpooled' and 'pooled': {'inside', 'beyond'}, each {'parameter', 'predictive'}: the share of true losses in the
        bands that the parameters make, and of new noisy losses in the predictive ones; inside at settings of the table,
        and beyond at 10 times the largest compute (None where no size varies). In the same form, 'standard_error' of
        the difference between the two, and 'width_ratio', the median of pooled width over unpooled width. 'level' and
        'worlds'.
    """
    rng = np.random.default_rng(seed)
    places = _places(described, model)
    runs = [_independent(spec) for spec in described]
    hits: dict[Any, list[np.ndarray]] = {key: [] for key in product(ARMS, places, KINDS)}
    widths: dict[Any, list[np.ndarray]] = {key: [] for key in hits}
    for number in range(worlds):
        true = [_one(draws, number * len(draws.z) // worlds) for draws in truth]
        world = [
            replace(
                spec, start=t.z[0], start_noise=t.noise[0],
                log_losses=np.where(spec.live, (_losses(spec, t) + _noise(spec, t, rng)).T, 0.0),
            )
            for spec, t in zip(runs, true, strict=True)
        ]  # fmt: skip
        targets = {}
        for where, at in places.items():
            expected = [_losses(a, t)[0] for a, t in zip(at, true, strict=True)]
            noisy = [e + _noise(a, t, rng)[0] for e, a, t in zip(expected, at, true, strict=True)]
            targets |= {(where, "parameter"): np.stack(expected), (where, "predictive"): np.stack(noisy)}
        apart = [centre(spec, t) for spec, t in zip(world, true, strict=True)]
        _, _, shared = pool(world, pooling, true)
        numbers = int(rng.integers(2**31))
        for arm, centres in (("unpooled", apart), ("pooled", shared)):
            for key, (low, high) in _bands(centres, places, numbers).items():
                hits[arm, *key].append(((targets[key] >= low) & (targets[key] <= high)).mean(1))
                widths[arm, *key].append(high - low)

    def told(number: Callable[[Any], Any]) -> dict[str, Any]:
        return {w: {k: float(number((w, k))) for k in KINDS} if w in places else None for w in WHERE}

    def error(key: Any) -> float:
        # Of what pooling changes, over worlds: what their domains share in a world errs together.
        change = np.mean(np.subtract(hits["pooled", *key], hits["unpooled", *key]), 1)
        return float(change.std(ddof=1) / np.sqrt(worlds))

    return {
        "unpooled": told(lambda key: np.mean(hits["unpooled", *key])),
        "pooled": told(lambda key: np.mean(hits["pooled", *key])),
        "standard_error": told(error),
        "width_ratio": told(
            lambda key: np.median(np.divide(widths["pooled", *key], widths["unpooled", *key]))
        ),
        "level": LEVEL,
        "worlds": worlds,
    }


def _bands(
    centres: Sequence[Centre], places: dict[str, list[Spec]], seed: int
) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """Ends (G, p) of the bands of each kind at each place."""
    ends: dict[Any, list[np.ndarray]] = {key: [] for key in product(places, KINDS)}
    for g, at in enumerate(centres):
        rng = np.random.default_rng([seed, g])
        draws = _draws(at, rng)
        for where, points in places.items():
            losses = _losses(points[g], draws)
            for kind, values in zip(KINDS, (losses, losses + _noise(points[g], draws, rng)), strict=True):
                ends[where, kind].append(np.quantile(values, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0))
    return {key: tuple(np.stack(found, 1)) for key, found in ends.items()}


def _draws(at: Centre, rng: np.random.Generator) -> GroupDraws:
    """Draws of a posterior, made as those of `lawkit.bayes.laplace.laplace` are."""
    posterior, u, _ = at
    return posterior.draws(_resample(posterior, Normal(u, posterior.hessian(u)), _DRAWS, rng)[0])


def _one(draws: GroupDraws, which: int) -> GroupDraws:
    """One of the draws."""
    return GroupDraws(
        z=draws.z[[which]], noise=draws.noise[[which]], nu=draws.nu[[which]], eta=draws.eta[[which]]
    )


def _losses(spec: Spec, draws: GroupDraws) -> np.ndarray:
    """(S, n) log losses of a domain under S draws."""
    with np.errstate(all="ignore"):
        out = np.log(spec.law.function.value(draws.z, spec.inputs)[:, :, 0])
    return np.clip(np.where(np.isnan(out), -_FAR, out), -_FAR, _FAR)


def _noise(spec: Spec, draws: GroupDraws, rng: np.random.Generator) -> np.ndarray:
    """(S, n) noise of a domain's log losses under S draws."""
    scale = spec.spread[:, 0] * draws.noise * np.exp(draws.eta[:, 0] @ spec.covariates.T)
    return scale * rng.standard_t(np.broadcast_to(draws.nu, scale.shape))


# ---- runs and points --------------------------------------------------------------------------------------


def _independent(spec: Spec) -> Spec:
    """The same runs, each with an error of its own, larger by as much as it counted for less."""
    counts = np.where(spec.live, spec.counts, 1.0)
    return replace(spec, spread=spec.spread / np.sqrt(counts), counts=spec.live.astype(float))


def _places(described: Sequence[Spec], model: NoiseModel) -> dict[str, list[Spec]]:
    """Where bands are looked at: 'inside' and, if a size varies, 'beyond', as runs of each domain without losses.

    Inside are some settings of the table, from the cheapest to the dearest. Beyond are their mixtures at `BEYOND` times
    the largest compute, with the noise of the run with the most tokens: a longer one is not taken to be more exact.
    """
    x = described[0].inputs
    compute = x.n_params * x.n_tokens
    order = np.argsort(compute, kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, _POINTS).astype(int))]

    def put(like: np.ndarray, **inputs: Any) -> list[Spec]:
        at = replace(x.rows(rows), **inputs)
        columns = model.columns(at.n_params, at.weights)
        return [
            replace(s, inputs=replace(at, own=s.inputs.own), spread=s.spread[like], covariates=columns)
            for s in described
        ]

    found = {"inside": put(rows)}
    vary = [name for name in ("n_params", "n_tokens") if distinct(getattr(x, name)) > 1]
    if vary:
        columns = [v[rows].reshape(len(rows), -1) for v in (x.weights, x.unique) if v is not None]
        rows = rows[np.sort(np.unique(np.concatenate(columns, 1), axis=0, return_index=True)[1])]
        top, grown = order[-1], BEYOND ** (1 / len(vary))
        sizes = {name: np.full(len(rows), getattr(x, name)[top] * grown) for name in vary}
        found["beyond"] = put(np.full(len(rows), x.n_tokens.argmax()), **sizes)
    return found
