"""What can be wrong with a fit that its residuals do not show."""

from __future__ import annotations

from typing import Any

import numpy as np

from lawkit.fitting.estimate import Estimate, distinct
from lawkit.laws._law import Law
from lawkit.runs import Runs


def diagnose(runs: Runs, e: Estimate, starts: int) -> tuple[dict[str, Any], list[str]]:
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
        warnings.append(f"under half of {starts} starts reached the best objective for {_some(missed)}: the optimum may be local")
    edges = [f"{p} ({n})" for n, z in zip(names, e.z, strict=True) for p in _at_edge(law, z, len(runs.sources))]
    if edges:
        warnings.append(f"at the edge of their range: {_some(edges)}; the runs do not determine them")
    condition = [_condition(h) for h in e.hessian]
    loose = [n for n, c in zip(names, condition, strict=True) if c > 1e10]
    if loose:
        warnings.append(f"the runs leave some direction of the parameters of {_some(loose)} undetermined (condition number {max(condition):.0e})")
    influential = {} if law.coupled or any(p.prior for p in law.parameters) else _influence(runs, e)
    for domain, rows in influential.items():
        moved = ", ".join(f"row {row} moves {name} by {shift:+.2g}" for row, name, shift in rows[:5])
        warnings.append(f"single runs carry much of the fit of {domain}: {moved}")
    warnings += _scales(runs, law)
    return {"condition_number": condition, "influential": {d: [list(r) for r in v] for d, v in influential.items()}}, warnings


def _some(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _at_edge(law: Law, z: np.ndarray, n_sources: int) -> list[str]:
    where = law.layout(n_sources)
    out = []
    for p in law.parameters:
        part = z[where[p.name]]
        limit = {"positive": 12.0, "unit": 7.0, "real": np.inf}[p.support]  # e^12, or odds of 1000 to 1
        if (np.abs(part) > limit).any() and not p.per_source:
            out.append(p.name)
    return out


def _condition(hessian: np.ndarray) -> float:
    scale = np.sqrt(np.maximum(np.diag(hessian), 1e-300))
    values = np.linalg.eigvalsh(hessian / scale / scale[:, None])
    return float(values[-1] / max(values[0], 1e-300))


def _influence(runs: Runs, e: Estimate) -> dict[str, list[tuple[int, str, float]]]:
    """Runs whose removal would move a scale exponent by more than two standard errors (one-step estimate).

    Per domain: (row, exponent, change when the run is there), the largest first.
    """
    law = e.law
    where = law.layout(len(runs.sources))
    exponents = [p for p in law.parameters if p.name in ("alpha", "beta") and not p.per_source]
    if not exponents:
        return {}
    x = e.inputs(runs.weights, runs.n_params, runs.n_tokens, runs.unique)
    predicted, slope = e.losses(x), e.parameter_jacobian(x)
    out: dict[str, list[tuple[int, str, float]]] = {}
    for i, domain in enumerate(e.domains):
        y = runs.losses[:, runs.domains.index(domain)]
        live = ~np.isnan(y)
        jac = slope[live, i] / predicted[live, i, None]
        r = np.log(y[live] / predicted[live, i])
        weight = np.ones_like(r)
        if e.objective.kind == "huber":
            weight = np.minimum(1.0, e.objective.delta / np.maximum(np.abs(r), 1e-300))
        inverse = np.linalg.pinv((jac.T * weight) @ jac)
        leverage = np.einsum("np,pq,nq->n", jac, inverse, jac) * weight
        shift = (inverse @ (jac * (weight * r / np.maximum(1 - leverage, 1e-3))[:, None]).T).T
        sd = np.sqrt(np.diag(e.covariance_of(i)))
        found = []
        for p in exponents:
            at = where[p.name].start
            value = np.exp(e.z[i, at])
            for row in np.flatnonzero(np.abs(shift[:, at]) > 2 * sd[at]):
                found.append((int(runs.rows[live][row]), p.name, float(value * -np.expm1(-shift[row, at]))))
        if found:
            out[domain] = sorted(found, key=lambda f: -abs(f[2]))
    return out


def _scales(runs: Runs, law: Law) -> list[str]:
    warnings = []
    logs = []
    for column in ("n_params", "n_tokens"):
        values = getattr(runs, column)
        if column not in law.columns or values is None:
            continue
        count = distinct(values)
        if count < 3:
            exact = "one value" if count == 1 else "two values"
            warnings.append(f"{column} takes {exact} only: how the loss falls with it rests on the law and its priors, not on the runs")
        if count > 1:
            logs.append(np.log(values))
    if len(logs) == 2 and len(runs) > 2:
        together = float(np.corrcoef(*logs)[0, 1])
        if abs(together) > 0.95:
            warnings.append(f"n_params and n_tokens move together (correlation of logs {together:.3f}): their effects cannot be told apart")
    return warnings
