"""A law as a PyTensor graph, generated from its expression; needs PyTensor (`pip install 'lawkit[bayes]'`)."""

# PyTensor re-exports its names without saying so.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import sympy as sp

from lawkit.errors import LawError
from lawkit.laws._codegen import _PRINTER, Code, Node
from lawkit.laws._function import Inputs
from lawkit.laws._law import Law

#: Symbols, and the logarithms that stand for them, that differ between runs of one mixture.
_SCALES = frozenset(f"{log}{name}" for name in "NDU" for log in ("", "log_"))

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


def log_loss(law: Law, z: TensorVariable, inputs: Inputs) -> Any:
    """The logarithm of `loss`; of the smallest normal number where a law falls to zero and below."""
    import pytensor.tensor as pt

    return pt.log(pt.maximum(loss(law, z, inputs), np.finfo(float).tiny))


def loss(law: Law, z: TensorVariable, inputs: Inputs) -> Any:
    """Losses (n, m) of n runs on m domains.

    Parameters
    ----------
    law
        Any law. The graph of one with an implicit quantity is a single `lawkit.bayes.op.LawOp`.
    z
        (P,) parameters on the unconstrained scale.
    inputs
        The runs, with `own` (1, m).

    Raises
    ------
    LawError
        If the law needs domains that are sources, and one is not.
    """
    import pytensor.tensor as pt

    if law.implicit is not None:
        from lawkit.bayes.op import LawOp

        return cast(Any, LawOp(law, inputs)(z))[0]
    if law.needs_own_source and (inputs.own < 0).any():
        raise LawError(f"law {law.name!r} needs every domain to be one of the sources")
    node = law.function._loss
    outer, inner = _values(law, node, z, inputs)
    # Checkpoints and model sizes share mixtures: a sum over sources that knows no scale is made once a mixture.
    mixtures, which = np.unique(inputs.weights, axis=0, return_inverse=True)
    once = {**inner, "h@j": np.maximum(mixtures, law.weight_floor)}
    n, K = inputs.weights.shape
    for symbol, code in zip(node.sum_symbols, node.inner, strict=True):
        shared = len(mixtures) < n and not {s.name for s in code.expr.free_symbols} & _SCALES
        summand = pt.as_tensor_variable(_apply(code, once if shared else inner))
        total = pt.broadcast_to(summand, (len(mixtures) if shared else n, K)).sum(1)
        outer[symbol.name] = (total[which] if shared else total)[:, None]
    value = pt.as_tensor_variable(_apply(node.outer, outer))
    return pt.broadcast_to(value, (n, inputs.own.shape[1]))


def _values(law: Law, node: Node, z: TensorVariable, x: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the symbols outside and inside of sums stand for: arrays (n or 1, m or 1), and (n or 1, K or 1).

    As `lawkit.laws._evaluation.Evaluation` has them, for one parameter vector.
    """
    where = law.layout(x.weights.shape[1])
    h, own = np.maximum(x.weights, law.weight_floor), x.own[0]
    # numpy's scalars, as PyTensor takes Python's for single precision where they fit.
    outer: dict[str, Any] = {
        "N": x.n_params[:, None], "D": x.n_tokens[:, None],
        "N_ref": np.float64(x.n_ref), "D_ref": np.float64(x.d_ref), "K": np.float64(x.weights.shape[1]),
    }  # fmt: skip
    if x.unique is not None:
        outer["U"] = x.unique[:, None]
    for p in law.parameters:
        if not p.per_source:
            outer["z_" + p.name] = z[where[p.name].start]
    inner = dict(outer)
    for name, (base, index) in node.elements.items():
        if index == "j":
            inner[name] = h if base == "h" else z[where[base]]
        elif index == "own":
            outer[name] = h[:, own] if base == "h" else z[where[base]][own]
        else:
            outer[name] = h[:, [int(index)]]
    return outer, inner


def _apply(code: Code, values: Mapping[str, Any]) -> Any:
    """The code's expression at the values, in PyTensor's functions."""
    (expr,), arguments, logs = code.with_logs([code.expr])
    # PyTensor takes the logarithm of a small integer, also for the derivative of 6**z, to single precision.
    expr = expr.replace(
        lambda e: e.is_Pow and e.base.is_number and not e.exp.is_number,
        lambda e: sp.exp(e.exp * sp.log(e.base)),
    ).replace(lambda e: isinstance(e, sp.log) and e.is_number, lambda e: e.evalf(20))
    known = {symbol: np.log(values[x.name]) for x, symbol in logs.items()}
    f = sp.lambdify(arguments, expr, modules=[functions()], printer=_PRINTER, cse=True)
    return f(*[known[a] if a in known else values[a.name] for a in arguments])


@functools.cache
def functions() -> dict[str, Any]:
    """PyTensor's functions by the names that generated code uses."""
    import pytensor.tensor as pt

    names = (
        "exp",
        "log",
        "sqrt",
        "abs",
        "sign",
        "sin",
        "cos",
        "tan",
        "sinh",
        "cosh",
        "tanh",
        "log1p",
        "expm1",
    )
    return {
        **{name: getattr(pt, name) for name in names},
        "pi": np.pi,
        "_Larger": pt.maximum,
        "_Smaller": pt.minimum,
    }
