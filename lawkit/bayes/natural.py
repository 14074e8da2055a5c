"""Parameters as people know them: natural values of many draws at once, and names in models and traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp

from lawkit.bayes.spec import Spec
from lawkit.laws._codegen import _NAMESPACE, _PRINTER
from lawkit.laws._law import D_ref, Law, N_ref

#: Names of our own in `lawkit.bayes.model` and of the dimensions of traces.
_TAKEN = frozenset(
    (
        *("u", "v", "noise", "log_noise", "noise_nu", "noise_slope", "log_loss", "log_losses", "log_spread"),
        *("counts", "prior_mean", "prior_sd", "prior_root", "chain", "draw", "obs_id", "domain", "source"),
        "covariate",
    )
)


def natural(
    law: Law,
    z: Any,
    n_ref: float,
    d_ref: float,
    n_sources: int,
    functions: Mapping[str, Any] = _NAMESPACE,
) -> dict[str, Any]:
    """Natural values of the fitted parameters, as `Law.natural` for one vector.

    Parameters
    ----------
    law, n_sources
        The law, and the length of its vectors.
    z
        (..., P) on the unconstrained scale: an array, or a tensor variable (P,).
    n_ref, d_ref
        The reference scales that belong to z.
    functions
        What exp, log and the rest of the names in generated code are.

    Returns
    -------
    dict
        By the parameter's name (...) or, for vectors, (..., K); parameters that are held are left out.

    Examples
    --------
    >>> from lawkit import laws
    >>> natural(laws.get("chinchilla-data"), np.log([[1.5, 0.2, 0.5]]), 1.0, 1e10, 0)["B"]
    array([20000.])
    """
    where = law.layout(n_sources)
    transforms = {
        "positive": functions["exp"],
        "real": lambda v: v,
        "unit": lambda v: 1 / (1 + functions["exp"](-v)),
    }
    # Scalars keep a last axis of one until the end, so that they stand beside vectors in a factor.
    values = {p.name: transforms[p.support](z[..., where[p.name]]) for p in law.parameters}
    for name, factor in law.references.items():
        labels = {item: sp.Symbol(item.base.label.name) for item in factor.atoms(sp.Indexed)}
        plain = factor.xreplace(labels)
        names = sorted(plain.free_symbols, key=str)
        given = {**values, N_ref.name: np.float64(n_ref), D_ref.name: np.float64(d_ref)}
        f = sp.lambdify(names, plain, modules=[dict(functions)], printer=_PRINTER)
        values[name] = values[name] * f(*[given[s.name] for s in names])
    return {p.name: values[p.name] if p.per_source else values[p.name][..., 0] for p in law.parameters}


def variable_name(parameter: str) -> str:
    """The name of a law's parameter in models and traces: its own, with _ added where that is taken."""
    return parameter + "_" if parameter in _TAKEN else parameter


def coordinates(spec: Spec) -> dict[str, Any]:
    """Labels of the dimensions in models and traces: rows of the table, domains, sources, covariates of the noise."""
    n, n_sources = spec.inputs.weights.shape
    return {
        "obs_id": spec.rows if len(spec.rows) == n else np.arange(1, n + 1),
        "domain": list(spec.domains),
        "source": list(spec.sources) if len(spec.sources) == n_sources else np.arange(n_sources),
        "covariate": np.arange(spec.covariates.shape[1]),
    }
