"""One estimation: a law, the runs, an objective; out come parameters, their covariance and how the search went."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from lawkit.errors import FitError
from lawkit.fitting.solver import LeastSquares, Target, minimise, residuals, tame
from lawkit.fitting.starts import starting_points
from lawkit.laws._average import Average
from lawkit.laws._function import Inputs
from lawkit.laws._law import Law, Objective, PriorContext
from lawkit.runs import Runs

#: Starts whose cost is within this of the best, relatively, count as having reached it.
SAME_OPTIMUM = 1e-6
#: So do those whose relative residuals are about this small: tables give losses to fewer digits than that.
EXACT = 1e-6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A fitted law. G groups: one a domain, or one for all domains of a coupled law.

    Attributes
    ----------
    domains
        The E domains in the order of all arrays.
    own
        (E,) index of the source of the same name, -1 for none.
    recorded
        Which of 'n_params' and 'n_tokens' the runs have; the law was fitted as if the other were 1 for all.
    n_ref, d_ref
        Geometric means of n_params and n_tokens over the runs (1 where absent).
    z, covariance
        (G, P) unconstrained parameters, the mode of the objective under its own sigma or threshold; and (G, P, P)
        their Gauss-Newton covariance under the noise estimated from the residuals. See `posterior`.
    noise
        (E,) standard deviation of the log residuals of a run of weight 1.
    cost
        (G,) the minimised objective.
    starts_at_optimum
        (G,) fraction of starts that ended at the best cost.
    hessian
        (G, P, P), for diagnostics: not the Hessian but the matrix J'WJ (plus the prior precision) that bounds half of
        it, J being the slopes of the residuals, and W the weights by which Huber's function is majorised
        (a residual beyond the threshold counts as threshold/residual); the laws' own curvature is left out.
    """

    law: Law
    objective: Objective
    domains: tuple[str, ...]
    own: np.ndarray
    recorded: frozenset[str]
    n_ref: float
    d_ref: float
    z: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray
    cost: np.ndarray
    starts_at_optimum: np.ndarray
    hessian: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """(G, E/G) own sources by group."""
        return self.own[None, :] if self.law.coupled else self.own[:, None]

    def inputs(
        self,
        weights: np.ndarray,
        n_params: np.ndarray | float | None = None,
        n_tokens: np.ndarray | float | None = None,
        unique: np.ndarray | None = None,
    ) -> Inputs:
        """Rows (n,) at which this law may be evaluated; `unique` is (n, K).

        A size that the fitted runs do not record cannot be told from theirs: whatever is given is not used.
        """
        n = len(weights)
        n_params = n_params if "n_params" in self.recorded else None
        n_tokens = n_tokens if "n_tokens" in self.recorded else None
        return Inputs(
            n_params=np.full(n, self.n_ref)
            if n_params is None
            else np.broadcast_to(np.asarray(n_params, float), n),
            n_tokens=np.full(n, self.d_ref)
            if n_tokens is None
            else np.broadcast_to(np.asarray(n_tokens, float), n),
            weights=np.asarray(weights, float),
            own=self.groups,
            unique=total_unique(np.asarray(weights), unique),
            n_ref=self.n_ref,
            d_ref=self.d_ref,
        )

    def losses(self, x: Inputs) -> np.ndarray:
        """Predicted losses (n, E)."""
        value = self.law.function.value(self.z, x)
        return value[0] if self.law.coupled else value[:, :, 0].T

    def parameter_jacobian(self, x: Inputs) -> np.ndarray:
        """Derivatives (n, E, P) of each loss by the parameters of its own group."""
        _, slope = self.law.function.jacobian(self.z, x)
        return slope[0] if self.law.coupled else np.swapaxes(slope[:, :, 0], 0, 1)

    def covariance_of(self, domain: int) -> np.ndarray:
        """(P, P) covariance of the parameters that predict domain number `domain`."""
        return self.covariance[0 if self.law.coupled else domain]


def usable_domains(law: Law, runs: Runs) -> tuple[list[int], list[str]]:
    """Indices of the domains that `law` can be fitted to, in its order, and warnings about the others.

    Raises
    ------
    FitError
        If none is left, or a coupled law lacks a source among the domains.
    """
    if not law.needs_own_source:
        return list(range(len(runs.domains))), []
    if law.coupled:
        missing = [s for s in runs.sources if s not in runs.domains]
        if missing:
            raise FitError(
                f"law {law.name!r} needs every source to be an evaluation domain as well; the table has no column "
                f"loss_{missing[0]}"
                + (f" (nor {len(missing) - 1} more)" if missing[1:] else "")
                + ": choose another law"
            )
        keep = [runs.domains.index(s) for s in runs.sources]
    else:
        keep = [i for i, d in enumerate(runs.domains) if d in runs.sources]
    if runs.domains and not keep:
        raise FitError(
            f"law {law.name!r} needs domains that are sources; none of {', '.join(runs.domains)} is one of the sources "
            f"{', '.join(runs.sources) or '(none)'}: choose another law"
        )
    left = [d for i, d in enumerate(runs.domains) if i not in keep]
    return keep, [
        f"domain {d!r} is not a source; law {law.name!r} cannot be fitted to it, so it is left out"
        for d in left
    ]


def check_values(runs: Runs) -> None:
    """Refuses numbers that no law can be fitted to; tables that were read from a file never hold them.

    Raises
    ------
    FitError
        Naming the column, the row and the value.
    """
    if not len(runs):
        raise FitError("the runs table is empty: nothing to fit")
    if not runs.domains:
        raise FitError("the runs table has no loss_<domain> column: nothing to fit")
    columns: list[tuple[str, np.ndarray | None, float]] = [
        ("n_params", runs.n_params, 0),
        ("n_tokens", runs.n_tokens, 0),
    ]
    columns += [
        (f"loss_{d}", np.where(np.isnan(v), 1.0, v), 0)
        for d, v in zip(runs.domains, runs.losses.T, strict=True)
    ]
    columns += [(f"weight_{s}", v, -1e-300) for s, v in zip(runs.sources, runs.weights.T, strict=True)]
    for name, values, above in columns:
        if values is not None and (bad := ~((values > above) & np.isfinite(values))).any():
            row = int(np.argmax(bad))
            what = "positive and finite" if above == 0 else "finite and not negative"
            raise FitError(
                f"{name} must be {what}, got {values[row]!r} in {rows_text(runs.rows[bad])}: correct or remove it"
            )


def check_columns(law: Law, runs: Runs) -> None:
    """Refuses a law whose columns the table lacks.

    Raises
    ------
    FitError
        Naming the column.
    """
    if "weights" in law.columns and not runs.sources:
        raise FitError(
            f"law {law.name!r} needs mixture weights; the table has no weight_<source> column: "
            "choose a law of scale only"
        )
    if "unique" in law.columns and runs.unique is None:
        raise FitError(
            f"law {law.name!r} needs the tokens that exist of each source; the table has no unique_<source> column"
        )
    for column in ("n_params", "n_tokens"):
        # A mixture law may be fitted to runs of one scale; a law of scale only may not.
        if column in law.columns and getattr(runs, column) is None and "weights" not in law.columns:
            raise FitError(f"law {law.name!r} needs the column {column}, which the table does not have")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A law and runs, ready to be fitted: what `prepare` makes of them.

    Attributes
    ----------
    problem
        The objective, for G groups.
    context
        What priors and starts depend on.
    domains, own, recorded, n_ref, d_ref
        As in `Estimate`.
    size
        Number of parameters P of a group.
    warnings
        What was left out, and priors that had to stand in for runs.
    """

    law: Law
    problem: LeastSquares
    context: PriorContext
    domains: tuple[str, ...]
    own: np.ndarray
    recorded: frozenset[str]
    n_ref: float
    d_ref: float
    size: int
    warnings: list[str]


def prepare(runs: Runs, law: Law, objective: Objective, min_weight: float = 0.0) -> Prepared:
    """Turns runs into the objective that is minimised.

    Raises
    ------
    FitError
        If the table lacks what the law needs, or has fewer losses than parameters (and the law no priors).
    """
    check_columns(law, runs)
    keep, warnings = usable_domains(law, runs)
    domains = tuple(runs.domains[i] for i in keep)
    own = np.array([runs.sources.index(d) if d in runs.sources else -1 for d in domains])
    groups = own[None, :] if law.coupled else own[:, None]
    scale = [np.ones(len(runs)) if v is None else v for v in (runs.n_params, runs.n_tokens)]
    n_ref, d_ref = (float(np.exp(np.log(v).mean())) for v in scale)
    recorded = recorded_sizes(runs)
    unique = total_unique(runs.weights, runs.unique)
    if "unique" in law.columns and unique is not None and np.isnan(unique).any():
        raise FitError(
            f"law {law.name!r} needs the tokens that exist of every source in use; unique_<source> is empty in "
            f"{rows_text(runs.rows[np.isnan(unique)])}: fill it in, or choose another law"
        )
    x = Inputs(
        n_params=scale[0],
        n_tokens=scale[1],
        weights=runs.weights,
        own=groups,
        unique=unique,
        n_ref=n_ref,
        d_ref=d_ref,
    )
    masked = np.isnan(runs.losses[:, keep]) | ~fitted_cells(runs, own, min_weight)
    losses = np.where(masked, 1.0, runs.losses[:, keep])
    size = law.n_parameters(len(runs.sources))
    has_priors = objective.sigma is not None and any(p.prior for p in law.parameters)
    warnings += _check_size(law, size, domains, masked, has_priors)
    omega = scale[1] ** objective.token_power
    cells = np.where(masked, 0.0, (omega / omega.mean())[:, None])
    lowest = np.where(masked, np.inf, losses).min(0)
    context = PriorContext(
        lowest_loss=lowest[None] if law.coupled else lowest[:, None],
        own=groups,
        n_sources=len(runs.sources),
        n_model_sizes=distinct(scale[0]),
        n_scales=len(np.unique(np.column_stack([same_size(v) for v in scale]), axis=0)),
    )
    mean = root = None
    if has_priors:
        mean, covariance = law.prior(context)
        root = np.linalg.inv(np.linalg.cholesky(covariance))
    stack = (lambda a: a[None]) if law.coupled else (lambda a: a.T[:, :, None])
    problem = LeastSquares(law.function, x, Target(stack(losses), stack(cells), mean, root), objective)
    return Prepared(
        law=law, problem=problem, context=context, domains=domains, own=own, recorded=recorded, n_ref=n_ref,
        d_ref=d_ref, size=size, warnings=warnings,
    )  # fmt: skip


def recorded_sizes(runs: Runs) -> frozenset[str]:
    """Which of 'n_params' and 'n_tokens' the runs have."""
    return frozenset(c for c in ("n_params", "n_tokens") if getattr(runs, c) is not None)


def fitted_cells(runs: Runs, own: np.ndarray, min_weight: float) -> np.ndarray:
    """(n, E) cells whose own source has at least `min_weight`; all where a domain (`own` -1) has no own source."""
    out = np.ones((len(runs), len(own)), bool)
    if min_weight > 0 and runs.sources:
        out[:, own >= 0] = runs.weights[:, own[own >= 0]] >= min_weight
    return out


def total_unique(weights: np.ndarray, unique: np.ndarray | None) -> np.ndarray | None:
    """(n,) tokens that exist of all sources in use, from (n, K) by source; NaN where one of them is not known."""
    return None if unique is None else np.where(weights > 0, unique, 0.0).sum(1)


def estimate(
    runs: Runs,
    law: Law,
    objective: Objective,
    min_weight: float = 0.0,
    seed: int = 0,
    starts: int | None = None,
) -> tuple[Estimate, Prepared]:
    """Fits `law` to `runs`; also returns what was fitted.

    Raises
    ------
    FitError
        As `prepare`, and if no start leads anywhere.
    """
    ready = prepare(runs, law, objective, min_weight)
    if isinstance(law, Average):
        return _average(
            ready,
            law,
            objective,
            [estimate(runs, m, objective, min_weight, seed, starts)[0] for m in law.members],
        )
    problem, domains, size = ready.problem, ready.domains, ready.size
    count = law.starts if starts is None else starts
    first = starting_points(problem, law, ready.context, count, seed)
    each = np.arange(len(first))
    z, cost = minimise(problem, first.reshape(-1, size), np.repeat(each, count))
    z, cost = z.reshape(-1, count, size), cost.reshape(-1, count)
    best = np.argmin(cost, 1)
    if not np.isfinite(cost[each, best]).all():
        bad = [domains[i] for i in np.flatnonzero(~np.isfinite(cost[each, best]))]
        raise FitError(
            f"law {law.name!r} gave no finite loss from any of {count} starts for {', '.join(bad)}: choose another law"
        )
    z, low = z[each, best], cost[each, best]
    # Losses without noise come from formulas, not from training: how near 0 a start got is then no matter.
    agree = (cost <= low[:, None] * (1 + SAME_OPTIMUM) + problem.cost_of(EXACT)[:, None]).mean(1)
    _, _, hessian = problem.expansion(z, each, False)
    noise, covariance = posterior(problem, z)
    return Estimate(
        law=law, objective=objective, domains=domains, own=ready.own, recorded=ready.recorded,
        n_ref=ready.n_ref, d_ref=ready.d_ref, z=z, covariance=covariance, noise=noise, cost=low,
        starts_at_optimum=agree, hessian=hessian,
    ), ready  # fmt: skip


def _average(
    ready: Prepared, law: Average, objective: Objective, members: list[Estimate]
) -> tuple[Estimate, Prepared]:
    """The mean of members that were fitted one by one: their parameters side by side, noise that of the mean.

    Members that saw the same noise err together. With C a member's covariance and J the slopes of its log losses in
    units of the noise, the noise that all saw makes their parameters covary by C_a J_a' J_b C_b.
    """
    from scipy.linalg import block_diag

    z = np.concatenate([m.z for m in members], 1)
    noise = posterior(ready.problem, z)[0]

    def side_by_side(name: str) -> np.ndarray:
        return np.stack(
            [block_diag(*parts) for parts in zip(*[getattr(m, name) for m in members], strict=True)]
        )

    covariance = side_by_side("covariance")
    moves = [m.covariance @ np.swapaxes(_standard_slopes(ready.problem, m), 1, 2) for m in members]
    ends = np.cumsum([0, *[m.z.shape[1] for m in members]])
    for a, b in permutations(range(len(members)), 2):
        covariance[:, ends[a] : ends[a + 1], ends[b] : ends[b + 1]] = moves[a] @ np.swapaxes(moves[b], 1, 2)
    return Estimate(
        law=law, objective=objective, domains=ready.domains, own=ready.own, recorded=ready.recorded,
        n_ref=ready.n_ref, d_ref=ready.d_ref, z=z, covariance=covariance, noise=noise,
        cost=ready.problem.cost(z, np.arange(len(z))),
        starts_at_optimum=np.min([m.starts_at_optimum for m in members], 0), hessian=side_by_side("hessian"),
    ), ready  # fmt: skip


def _standard_slopes(problem: LeastSquares, e: Estimate) -> np.ndarray:
    """(G, n x E, P) slopes of log losses by the parameters, in units of the noise; 0 for masked cells."""
    value, slope = e.law.function.jacobian(e.z, problem.inputs.take(np.arange(len(e.z))))
    weight = np.sqrt(_mean_one(problem.target)) / e.noise.reshape(len(e.z), 1, -1)
    with np.errstate(all="ignore"):
        return tame(slope / value[..., None] * weight[..., None]).reshape(len(e.z), -1, e.z.shape[1])


def _check_size(
    law: Law, size: int, domains: tuple[str, ...], masked: np.ndarray, has_priors: bool
) -> list[str]:
    counts = (~masked).sum(0)
    if empty := [d for d, c in zip(domains, counts, strict=True) if c == 0]:
        which = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if empty[5:] else "")
        raise FitError(
            f"no loss to fit of {'domains' if empty[1:] else 'domain'} {which}: leave "
            f"{'them' if empty[1:] else 'it'} out with --domain, or add runs that have {'them' if empty[1:] else 'it'}"
        )
    found = [(", ".join(domains), counts.sum())] if law.coupled else list(zip(domains, counts, strict=True))
    few = [(domain, int(count)) for domain, count in found if count < size]
    if not few:
        return []
    named = [f"{count} {'loss' if count == 1 else 'losses'} of {domain}" for domain, count in few]
    which = ", ".join(named[:5]) + (f" and as few of {len(few) - 5} more" if named[5:] else "")
    text = f"{which} for {size} parameters of law {law.name!r}"
    if not has_priors:
        raise FitError(f"{text}: add runs or choose a law with fewer parameters (`lawkit laws` lists them)")
    return [f"{text}: where the runs are silent its priors speak"]


def posterior(problem: LeastSquares, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noise (G x E,) of the log residuals at z (G, P), and the Gauss-Newton covariance (G, P, P) that it implies.

    Weights say how much a run counts, on average 1; the noise is that of a run of weight 1. The covariance is that of
    normal log residuals with this noise, and the priors. z was found under the objective instead: its fixed
    sigma, or Huber's threshold. So it is not quite the mode of the posterior that the covariance describes: a sigma
    that is larger than the noise leaves z nearer to the priors.
    """
    target, size = problem.target, z.shape[1]
    value, slope = problem.function.jacobian(z, problem.inputs.take(np.arange(len(z))))
    live = target.cell_weights > 0
    with np.errstate(all="ignore"):
        # Linear laws may fall to zero and below, where only the relative residual has a meaning.
        sound = value > 0.1 * target.losses
        residual = np.where(sound, residuals(value, target.losses, "huber"), value / target.losses - 1.0)
        log_residual = np.where(live, residual, 0.0)
        divisor = np.where(sound, value, target.losses)[..., None]
        jac = tame(np.where(live[..., None], slope / divisor, 0.0)).reshape(len(z), -1, size)
    w = _mean_one(target)
    spread = (w * log_residual**2).sum(1) / live.sum(1)  # (G, E)
    precision = (
        np.zeros((size, size)) if target.prior_root is None else target.prior_root.T @ target.prior_root
    )
    noise, covariance = np.empty_like(spread), np.empty((len(z), size, size))
    for g in range(len(z)):
        count = live[g].sum()
        noise[g] = np.sqrt(spread[g]) + 1e-12
        for _ in range(3):  # noise and the number of parameters that the runs determine depend on each other
            rows = jac[g] * (np.sqrt(w[g]) / noise[g]).reshape(-1, 1)
            information = rows.T @ rows
            covariance[g] = _inverse(information + precision)
            used = float(np.clip(np.trace(covariance[g] @ information), 0.0, count - 1.0))
            # Floors: a perfect fit has no noise, and a tenth of the cells always counts as informing it.
            noise[g] = np.maximum(np.sqrt(spread[g] / max(1.0 - used / count, 0.1)), 1e-12)
    return noise.ravel(), covariance


def _mean_one(target: Target) -> np.ndarray:
    """Cell weights (G, n, E) with mean 1 over the cells of each domain that are not masked.

    A domain whose runs are missing where weights are small must not count as informed by more runs than it has.
    """
    live = target.cell_weights > 0
    return target.cell_weights * (live.sum(1) / target.cell_weights.sum(1))[:, None]


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of a positive semidefinite matrix; directions it says nothing about get a variance of 100 at most."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return (vectors / np.maximum(values, 1e-2)) @ vectors.T


def rows_text(rows: np.ndarray | list[int], most: int = 5) -> str:
    """'row 3', or 'rows 3, 7 and 2 more', for messages."""
    named = ", ".join(str(r) for r in rows[:most])
    return (
        ("rows " if len(rows) > 1 else "row ")
        + named
        + (f" and {len(rows) - most} more" if len(rows) > most else "")
    )


def distinct(values: np.ndarray) -> int:
    """How many values differ by more than 2%."""
    return int(same_size(values).max() + 1) if len(values) else 0


def same_size(values: np.ndarray) -> np.ndarray:
    """(n,) which of the sizes that differ by more than 2% each value is, counted from 0 in increasing order."""
    order = np.argsort(values)
    out = np.empty(len(values), int)
    out[order] = np.r_[0, np.cumsum(np.diff(np.log(values[order])) > 0.02)][: len(values)]
    return out
