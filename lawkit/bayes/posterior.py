"""From a point fit to draws of its posterior: group by group, and member by member where the law is an average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from lawkit.bayes.spec import GroupDraws, Spec, specs
from lawkit.errors import DrawsError, FitError
from lawkit.fitting.draws import Draws, Noise, NoiseModel
from lawkit.fitting.estimate import Estimate, parts
from lawkit.fitting.posterior import posterior as gauss_newton
from lawkit.fitting.prepare import prepare
from lawkit.laws._average import members
from lawkit.runs import Runs

PosteriorKind = Literal["laplace", "nuts"]

#: Draws of Laplace's approximation, and of each of four chains.
LAPLACE_DRAWS, CHAIN_DRAWS = 4000, 1000
#: Draws are thinned to keep at most this many numbers, though never to fewer than `_LEAST`.
_MOST_NUMBERS, _LEAST = 2_000_000, 1000

#: Draws of one spec, and its trace where the sampler made one.
_Sample = tuple[GroupDraws, Any]


def posterior(
    runs: Runs,
    e: Estimate,
    kind: PosteriorKind,
    *,
    noise: Noise = "constant",
    pool: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Draws, Any]:
    """Draws of the posterior that `lawkit.bayes.spec` describes.

    Parameters
    ----------
    runs, e
        The runs and the point fit to them.
    kind
        'laplace' (numpy, importance-weighted) or 'nuts' (PyMC).
    noise
        What the noise may depend on beside the domain.
    pool
        Let the domains share a prior that is estimated from all of them, see `lawkit.bayes.pooling`; its simulated
        coverage is then in the diagnostics as 'pooling'.
    seed
        The same seed gives the same draws.
    progress
        Show NUTS at work, on a terminal.

    Returns
    -------
    Draws
    trace
        For ArviZ, see `lawkit.bayes._arviz`; None where ArviZ is not installed.

    Raises
    ------
    FitError
        If the table is too small for a posterior, the prior excludes it, or the sampler is missing or fails.

    Notes
    -----
    The members of an average are fitted apart, and so are their posteriors. Members that saw the same noise err
    together: their draws are paired by rank of what they say of the dearest runs, as if they erred alike there, which
    is the widest that the average can be.
    """
    model = NoiseModel.of(runs, noise)
    law = e.law
    each: list[list[GroupDraws]] = []
    of_members: list[list[Spec]] = []
    described: list[Spec] = []
    traces: list[Any] = []
    checks: list[dict[str, Any]] = []
    short: list[str] = []
    for number, (member, z) in enumerate(zip(members(law), parts(law, e.z, len(runs.sources)), strict=True)):
        ready = prepare(runs, member, e.objective, e.min_weight)
        assert z is not None
        described = specs(runs, ready, z, gauss_newton(ready.problem, z)[0], model)
        if pool:
            described, pooling, notes = _pooled(described, model, seed + number)
            checks.append(pooling)
            short += notes
        found = _sampled(described, kind, seed + 1000 * number, progress)
        each.append([draws for draws, _ in found])
        of_members.append(described)
        traces = [trace for _, trace in found]
    if len(each) > 1:
        ready = prepare(runs, law, e.objective, e.min_weight)
        described = specs(runs, ready, e.z, e.noise, model)
        groups = [
            _averaged(spec, [m[g] for m in of_members], [m[g] for m in each])
            for g, spec in enumerate(described)
        ]
        traces = [None] * len(groups)
    else:
        groups = each[0]
    least = min(len(g.z) for g in groups)
    draws = _draws(kind, groups, described, least, model)
    if checks:  # members of an average are pooled one by one: the one that covers least is told
        told = min(checks, key=lambda c: _beyond(c["coverage"]["pooled"]))
        draws = replace(
            draws,
            diagnostics={**draws.diagnostics, "pooling": told},
            warnings=(*draws.warnings, *dict.fromkeys(short)),
        )
    return draws, _trace(described, groups, traces, least)


def _pooled(
    described: list[Spec], model: NoiseModel, seed: int
) -> tuple[list[Spec], dict[str, Any], tuple[str, ...]]:
    """The posteriors under a prior that the domains share, what it is, and what the simulated check says of it."""
    from lawkit.bayes.pooling import pooled
    from lawkit.bayes.pooling_check import check

    shared, pooling = pooled(described)
    found, notes = check(described, shared, pooling, model, seed)
    return shared, {**pooling.to_dict(), "coverage": found}, notes


def _beyond(covered: dict[str, Any]) -> float:
    """Coverage of the true losses beyond the runs; inside them where no size varies."""
    return float((covered["beyond"] or covered["inside"])["parameter"])


def _sampled(described: Sequence[Spec], kind: PosteriorKind, seed: int, progress: bool) -> list[_Sample]:
    """Each group's draws. Ctrl-C leaves Laplace's approximation in place of the groups that NUTS has not reached."""
    from lawkit.bayes.laplace import laplace

    def approximated(spec: Spec, g: int) -> _Sample:
        return laplace(spec, LAPLACE_DRAWS, seed + g), None

    def sampled(spec: Spec, g: int) -> _Sample:
        from lawkit.bayes.sample import nuts, wanting

        first = nuts(spec, CHAIN_DRAWS, seed=seed + g, progress=progress)
        found = first[0].diagnostics
        if found["interrupted"] or not wanting(found):
            return first
        # Once more, slower: the model is compiled by now. Of two that are wanting, the one whose chains agree better.
        try:
            again = nuts(
                spec,
                2 * CHAIN_DRAWS,
                tune=2 * CHAIN_DRAWS,
                seed=seed + g,
                progress=progress,
                target_accept=0.98,
            )
        except (KeyboardInterrupt, DrawsError):
            return first
        return again if again[0].diagnostics["max_rhat"] <= found["max_rhat"] else first

    way: Callable[[Spec, int], _Sample] = sampled if kind == "nuts" else approximated
    out: list[_Sample] = []
    for g, spec in enumerate(described):
        try:
            out.append(way(spec, g))
            stopped = bool(out[-1][0].diagnostics.get("interrupted"))
        except (KeyboardInterrupt, DrawsError):
            if kind != "nuts" or not out:
                raise
            stopped = True  # before there was enough of this group
        if stopped and (left := described[len(out) :]):
            names = ", ".join(s.name for s in left)
            note = f"sampling was interrupted: {names} have Laplace's approximation instead of NUTS"
            draws, trace = out[-1]
            out[-1] = replace(draws, warnings=(*draws.warnings, note)), trace
            out += [approximated(s, len(out) + i) for i, s in enumerate(left)]
            break
    return out


def _averaged(spec: Spec, described: Sequence[Spec], each: Sequence[GroupDraws]) -> GroupDraws:
    """One group of an average: its members' draws side by side, paired by rank of their losses at the dearest runs.

    The noise is that of the average at the point fit, uncertain as that of the first member is.
    """
    least = min(len(m.z) for m in each)
    x = spec.inputs
    compute = x.n_params * x.n_tokens
    dearest = x.rows(np.flatnonzero(compute >= np.quantile(compute, 0.9)))
    order = []
    for part, member in zip(described, each, strict=True):
        said = part.law.function.value(member.z[:least], dearest)
        order.append(np.argsort(np.nan_to_num(said.mean((1, 2)), nan=np.inf), kind="stable"))
    rank = np.argsort(order[0])  # the first member's draws stay in their order
    first = each[0]
    uncertain = first.noise[:least] / np.exp(np.log(first.noise[:least]).mean(0))
    return GroupDraws(
        z=np.concatenate([m.z[o[rank]] for m, o in zip(each, order, strict=True)], 1),
        noise=spec.start_noise * uncertain, nu=first.nu[:least], eta=first.eta[:least],
        diagnostics=_worst([m.diagnostics for m in each]),
        warnings=tuple(dict.fromkeys(w for m in each for w in m.warnings)),
    )  # fmt: skip


def _draws(
    kind: PosteriorKind, groups: list[GroupDraws], described: list[Spec], least: int, model: NoiseModel
) -> Draws:
    size = len(groups) * groups[0].z.shape[1]
    kept = min(least, max(_LEAST, _MOST_NUMBERS // size))
    which = np.linspace(0, least - 1, kept).astype(int)
    by_domain = {spec.name: g.diagnostics for spec, g in zip(described, groups, strict=True)}
    return Draws(
        kind=kind,
        z=np.stack([g.z[which] for g in groups], 1),
        noise=np.concatenate([g.noise[which] for g in groups], 1),
        nu=np.concatenate([g.nu[which] for g in groups], 1),
        eta=np.concatenate([g.eta[which] for g in groups], 1),
        noise_model=model,
        diagnostics={**_worst(list(by_domain.values())), "groups": by_domain},
        warnings=tuple(dict.fromkeys(w for g in groups for w in g.warnings)),
    )


#: How the diagnostics of several posteriors are told as one.
_TOLD = {
    "max_rhat": max, "min_ess_bulk": min, "min_ess_tail": min, "divergences": sum, "pareto_k": max,
    "seconds": sum, "cpu_seconds": sum, "chains": min, "draws": min, "tune": min, "steps_per_draw": max,
    "interrupted": any,
}  # fmt: skip


def _worst(each: list[dict[str, Any]]) -> dict[str, Any]:
    """One set of diagnostics for several posteriors: the worst of each, sums of counts and of seconds."""
    out: dict[str, Any] = {}
    for name in each[0]:
        values = [d[name] for d in each if name in d]
        out[name] = _TOLD[name](values) if name in _TOLD else values[0]
    return out


def _trace(described: list[Spec], groups: list[GroupDraws], traces: list[Any], least: int) -> Any:
    from lawkit.bayes import _arviz

    try:
        _arviz.arviz()
    except FitError:
        return None
    made = [
        _arviz.from_draws(
            spec,
            GroupDraws(z=g.z[:least], noise=g.noise[:least], nu=g.nu[:least], eta=g.eta[:least]),
        )
        if trace is None
        else trace
        for spec, g, trace in zip(described, groups, traces, strict=True)
    ]
    return _arviz.combine(made)
