"""What can be wrong with a fit that its residuals do not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sympy as sp

from lawkit.fitting.estimate import Estimate
from lawkit.fitting.posterior import posterior
from lawkit.fitting.prepare import Prepared, distinct, rows_text, some
from lawkit.fitting.solver import LeastSquares, Target, minimise, tame
from lawkit.io.checks import check_runs
from lawkit.laws._law import D, Law, N
from lawkit.runs import Runs

#: In laws of more parameters idle directions are not looked for, which would take longer than the fit.
_WIDE = 400
#: A change of an exponent by this many standard errors is no chance.
INFLUENTIAL = 4.0


@dataclass(frozen=True)
class Moved:
    """An exponent, and what it would be without some rows."""

    rows: list[int]
    parameter: str
    value: float
    without: float


def diagnose(runs: Runs, e: Estimate, ready: Prepared, starts: int) -> tuple[dict[str, Any], list[str]]:
    """Numbers for the fit folder, and warnings for its reader.

    Looks at: starts that missed the best optimum, parameters at the edge of their range, the condition number,
    runs that move an exponent by themselves, fewer than three scales, and sizes that move together.
    """
    law = e.law
    warnings: list[str] = []
    names = ["all domains"] if law.coupled else list(e.domains)
    missed = [n for n, f in zip(names, e.starts_at_optimum, strict=True) if f < 0.5]
    if missed and starts > 1:
        # Few of the starts agreeing means that the best of them may not be the best there is.
        warnings.append(
            f"under half of {starts} starts reached the best objective for {some(missed)}: the optimum may be local"
        )
    edges = [
        f"{p} ({n})" for n, z in zip(names, e.z, strict=True) for p in _at_edge(law, z, len(runs.sources))
    ]
    if edges:
        warnings.append(f"at the edge of their range: {some(edges)}; the runs do not determine them")
    condition = [_condition(runs, e, g) for g in range(len(e.z))]
    loose = [(n, c) for n, c in zip(names, condition, strict=True) if c > 1e10]
    if loose:
        worst = max(c for _, c in loose)
        flat = "not curved at all" if np.isinf(worst) else f"condition number {worst:.0e}"
        warnings.append(
            f"the runs leave some direction of the parameters of {some([n for n, _ in loose])} undetermined ({flat})"
        )
    influential = (
        {} if law.coupled or ready.problem.target.prior_root is not None else _influence(runs, e, ready)
    )
    for domain, found in influential.items():
        moved = "; ".join(
            f"without {rows_text(m.rows, 12)} {m.parameter} is {m.without:.3g}, not {m.value:.3g}"
            for m in found
        )
        warnings.append(f"few runs carry much of the fit of {domain}: {moved}; see whether they belong")
    warnings += _few_sizes(runs, law)
    warnings += _of_the_table(runs, e)
    return {
        "condition_number": [c if np.isfinite(c) else None for c in condition],
        "influential": {d: [asdict(m) for m in v] for d, v in influential.items()},
    }, warnings


def _at_edge(law: Law, z: np.ndarray, n_sources: int) -> list[str]:
    where = law.layout(n_sources)
    out = []
    for p in law.parameters:
        part = z[where[p.name]]
        limit = {"positive": 12.0, "unit": 7.0, "real": np.inf}[p.support]  # e^12, or odds of 1000 to 1
        if (np.abs(part) > limit).any() and not p.per_source:
            out.append(p.name)
    return out


def _condition(runs: Runs, e: Estimate, group: int) -> float:
    """Condition number of what the runs and priors say of a group's parameters; infinite where it is beyond rounding.

    Directions that change no prediction whatever the parameters are (a number added to all t of the exponential law
    and taken off log k) are left out: nothing depends on them.
    """
    hessian = e.hessian[group]
    scale = np.sqrt(np.maximum(np.diag(hessian), 1e-300))
    scaled = hessian / scale / scale[:, None]
    found = _ratio(scaled)
    if found <= 1e10 or len(hessian) > _WIDE:
        return found
    idle = _idle(runs, e, group) * scale[:, None]
    if not idle.size:
        return found
    rest = np.linalg.qr(idle, mode="complete")[0][:, idle.shape[1] :]
    return _ratio(rest.T @ scaled @ rest)


def _ratio(matrix: np.ndarray) -> float:
    values = np.linalg.eigvalsh(matrix)
    # What is left of 0 after rounding says nothing.
    return float(values[-1] / values[0]) if values[0] > 1e-15 * values[-1] else np.inf


def _idle(runs: Runs, e: Estimate, group: int) -> np.ndarray:
    """(P, R) directions of the parameters in which the law is constant.

    Judged at random mixtures and sizes, and at parameters of ordinary size near the fitted ones: at the edge of their
    range a law may be flat in a direction that it is not flat in elsewhere, which is worth a warning.
    """
    n = e.z.shape[1] + 10
    rng = np.random.default_rng(0)

    def around(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        return np.exp(rng.uniform(np.log(values.min() / 10), np.log(values.max() * 10), n))

    K = len(runs.sources)
    weights = rng.dirichlet(np.ones(K), n) if K else np.zeros((n, 0))
    unique = None
    if "unique" in e.law.columns and runs.unique is not None:
        unique = np.nanmax(runs.unique) * rng.uniform(0.01, 1.0, (n, K))
    x = e.inputs(weights, around(runs.n_params), around(runs.n_tokens), unique)
    ordinary = np.clip(e.z[group], -3.0, 3.0) + rng.normal(0, 0.3, e.z.shape[1])
    _, slope = e.law.function.jacobian(ordinary[None], x.take(np.array([group])))
    rows = tame(slope).reshape(-1, e.z.shape[1])
    size = np.sqrt((rows**2).sum(0))
    size[size == 0] = 1.0
    _, values, directions = np.linalg.svd(rows / size, full_matrices=False)
    return (directions[values <= 1e-10 * values[0]] / size).T


def exponents(law: Law) -> list[str]:
    """Scalar parameters in the exponent of a power of the model size or of the tokens."""
    powers = [power for power in law.loss.atoms(sp.Pow) if power.base.has(N, D)]
    names = {symbol.name for power in powers for symbol in power.exp.free_symbols}
    return [p.name for p in law.parameters if p.name in names and not p.per_source]


def _influence(runs: Runs, e: Estimate, ready: Prepared) -> dict[str, list[Moved]]:
    """By domain, the few runs without which an exponent would be another.

    For each exponent and direction the runs with the largest one-step influence, about sqrt(n)/3 of them, are left out
    together and the law is fitted again: runs that pull together hide each other from any measure that takes
    them one by one. What counts is the change in standard errors of the fit without them, whose noise they no
    longer inflate; on simulated tables without outliers the largest change stays below the threshold
    (tests/test_fitting.py).
    """
    law, problem = e.law, ready.problem
    where = law.layout(len(runs.sources))
    names = exponents(law)
    target = problem.target
    live = target.cell_weights[:, :, 0] > 0
    if not names or live.sum(1).min() < 2 * ready.size + 2:
        return {}
    pulls = problem.pulls(e.z)
    rankings, of = [], []  # ranked rows of a candidate, and its (group, column, name)
    for g in range(len(e.z)):
        step = pulls[g] @ np.linalg.pinv(
            e.hessian[g], hermitian=True
        )  # (n, P): how each run moves each parameter
        most = max(1, round(np.sqrt(live[g].sum()) / 3))
        for name in names:
            column = where[name].start
            for sign in (1.0, -1.0):
                rankings.append(np.argsort(-sign * step[:, column], kind="stable")[:most])
                of.append((g, column, name))
    shift, spread = _without(problem, e.z, [g for g, _, _ in of], rankings)
    out: dict[str, list[Moved]] = {}
    for i, (g, column, name) in enumerate(of):
        now = e.z[g, column]
        if not _matters(shift[i, column], spread[i, column]):
            continue
        # As few of them as leave the others without weight: those move it by under a quarter of a standard error.
        prefixes = [rankings[i][: k + 1] for k in range(len(rankings[i]))]
        parts, _ = _without(problem, e.z, [g] * len(prefixes), prefixes)
        enough = int(np.argmax(np.abs(parts[:, column] - shift[i, column]) <= 0.25 * spread[i, column]))
        rows = np.sort(runs.rows[prefixes[enough]])
        found = Moved(rows.tolist(), name, float(np.exp(now)), float(np.exp(now - parts[enough, column])))
        if all(set(found.rows) != set(other.rows) for other in out.get(e.domains[g], [])):
            out.setdefault(e.domains[g], []).append(found)
    return out


def _matters(shift: float, standard_error: float) -> bool:
    return abs(shift) > INFLUENTIAL * standard_error and abs(shift) > 0.05


def _without(
    problem: LeastSquares, z: np.ndarray, groups: Sequence[int], left_out: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Fits again without rows: (B, P) changes z - z without them, and standard errors of the latter."""
    target, at = problem.target, np.asarray(groups)
    weights = target.cell_weights[at].copy()
    for i, rows in enumerate(left_out):
        weights[i, rows] = 0.0
    smaller = LeastSquares(
        problem.function, problem.inputs.take(at), Target(target.losses[at], weights), problem.objective
    )
    again, _ = minimise(smaller, z[at], np.arange(len(at)), max_iterations=40, tolerance=1e-6)
    _, covariance = posterior(smaller, again)
    return z[at] - again, np.sqrt(np.einsum("bpp->bp", covariance))


def _of_the_table(runs: Runs, e: Estimate) -> list[str]:
    """What the checks of a table say that spoils this fit, where the table was not read from a file that they saw."""
    codes = {"constant": {f"loss_{d}" for d in e.domains}, "collinear": e.law.columns}
    return [
        finding.message
        for finding in check_runs(runs)
        if set(finding.columns) <= codes.get(finding.code, set()) and finding.message not in runs.warnings
    ]


def _few_sizes(runs: Runs, law: Law) -> list[str]:
    warnings = []
    for column in ("n_params", "n_tokens"):
        values = getattr(runs, column)
        if column not in law.columns:
            continue
        count = 0 if values is None else distinct(values)
        if count < 3:
            what = [
                f"there is no column {column}",
                f"{column} takes one value only",
                f"{column} takes two values only",
            ]
            warnings.append(
                f"{what[count]}: how the loss falls with it rests on the law and its priors, not on the runs"
            )
    return warnings
