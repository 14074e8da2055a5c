"""One evaluation of a law at many parameter vectors and rows, and the chain rule through its sums.

Shapes: B parameter vectors, n rows, E domains (1 unless the law is coupled), K sources, Y variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp

from lawkit.errors import LawError
from lawkit.laws._codegen import Code, Node

if TYPE_CHECKING:
    from lawkit.laws._function import LawFunction


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Rows at which a law is evaluated.

    Attributes
    ----------
    n_params, n_tokens
        (n,) as in the runs table (ones where it has no such column).
    weights
        (n, K) mixture weights, or (B, n, K): other mixtures for each parameter vector.
    own
        (B, E) or (1, E) index of each domain's own source, -1 for none.
    unique
        (n,) unique tokens of all sources in use; None where unknown.
    n_ref, d_ref
        Geometric means that belong to the fitted parameters.
    """

    n_params: np.ndarray
    n_tokens: np.ndarray
    weights: np.ndarray
    own: np.ndarray
    unique: np.ndarray | None = None
    n_ref: float = 1.0
    d_ref: float = 1.0

    def rows(self, which: slice | np.ndarray) -> Inputs:
        """Some of the rows, for all parameter vectors."""
        parts = {k: getattr(self, k)[which] for k in ("n_params", "n_tokens", "weights")}
        unique = None if self.unique is None else self.unique[which]
        return Inputs(**{**self.__dict__, **parts, "unique": unique})

    def take(self, groups: np.ndarray) -> Inputs:
        """The same rows for a subset of the B parameter vectors."""
        if len(self.own) == 1:
            return self
        return Inputs(**{**self.__dict__, "own": self.own[groups]})


class Evaluation:
    """One evaluation: the values of all symbols, and where each variable's derivative goes."""

    def __init__(
        self,
        function: LawFunction,
        z: np.ndarray,
        x: Inputs,
        wrt: tuple[str, ...] = (),
        only: frozenset[str] | None = None,
    ):
        law = function.law
        self._only = only
        n, self.n_sources = x.weights.shape[-2:]
        self.shape = (len(z), n, x.own.shape[1])
        if law.needs_own_source and (x.own < 0).any():
            raise LawError(f"law {law.name!r} needs every domain to be one of the sources")
        self._where = law.layout(self.n_sources)
        self._own = np.broadcast_to(x.own, (len(z), x.own.shape[1]))
        self._z = z
        h = np.maximum(x.weights if x.weights.ndim == 3 else x.weights[None], law.weight_floor)
        outer: dict[str, Any] = {
            "N": x.n_params[:, None], "D": x.n_tokens[:, None], "N_ref": x.n_ref, "D_ref": x.d_ref,
            "K": float(self.n_sources),
        }  # fmt: skip
        if x.unique is not None:
            outer["U"] = x.unique[:, None]
        for p in law.parameters:
            if not p.per_source:
                outer["z_" + p.name] = z[:, self._where[p.name]][:, :, None]
        self._outer = outer
        self._inner = dict(outer)
        self._kinds = function._loss.elements
        for name, (base, index) in self._kinds.items():
            if index == "j":
                self._inner[name] = h if base == "h" else z[:, None, self._where[base]]
            elif index == "own":
                self._outer[name] = (
                    np.take_along_axis(h, self._own[:, None, :], 2)
                    if base == "h"
                    else np.take_along_axis(z[:, self._where[base]], self._own, 1)[:, None, :]
                )
            elif base == "h":
                self._outer[name] = h[..., [int(index)]]
            else:
                raise LawError(f"law {law.name!r} indexes parameter {base!r} by a number")
        size = law.n_parameters(self.n_sources)
        self._params_at = 0 if "params" in wrt else None
        self._weights_at = (size if "params" in wrt else 0) if "weights" in wrt else None
        self.width = (
            size * ("params" in wrt) + self.n_sources * ("weights" in wrt) + (law.implicit is not None)
        )
        self._implicit_name = law.implicit.symbol.name if law.implicit else None
        self._sums: dict[int, list[np.ndarray]] = {}
        self._equation = function._equation
        if law.implicit is not None:
            function._solve(self)

    def set_implicit(self, value: np.ndarray) -> None:
        """Use `value` (B, n, 1) for the implicit quantity."""
        assert self._implicit_name is not None
        self._outer[self._implicit_name] = self._inner[self._implicit_name] = value
        self._sums.clear()

    # ---- values -----------------------------------------------------------------------------------------

    def _sum_values(self, node: Node) -> None:
        if id(node) not in self._sums:
            shape = (*self.shape[:2], self.n_sources)
            self._sums[id(node)] = [
                np.broadcast_to(code.value(self._inner), shape).sum(-1)[..., None] for code in node.inner
            ]
        for symbol, value in zip(node.sum_symbols, self._sums[id(node)], strict=True):
            self._outer[symbol.name] = value

    def value(self, node: Node) -> np.ndarray:
        self._sum_values(node)
        return node.outer.value(self._outer)

    def equation_slope(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """Value of the equation and its derivative in the implicit quantity, (B, n, 1) each."""
        shape = (*self.shape[:2], self.n_sources)
        wanted = frozenset([str(self._implicit_name), *[s.name for s in node.sum_symbols]])
        sums, sum_slopes = [], []
        for code in node.inner:
            by, gradient = code.gradient(wanted)
            each = [np.broadcast_to(v, shape).sum(-1)[..., None] for v in gradient(self._inner)]
            sums.append(each[0])
            sum_slopes.append(each[1] if by else 0.0)
        self._sums[id(node)] = sums
        self._outer.update({symbol.name: v for symbol, v in zip(node.sum_symbols, sums, strict=True)})
        by, gradient = node.outer.gradient(wanted)
        level, *parts = gradient(self._outer)
        slopes = dict(zip([v.name for v in by], parts, strict=True))
        total = slopes.get(str(self._implicit_name), 0.0)
        for symbol, inner in zip(node.sum_symbols, sum_slopes, strict=True):
            total = total + slopes.get(symbol.name, 0.0) * inner
        return np.broadcast_to(level, (*self.shape[:2], 1)), total

    # ---- where derivatives go ---------------------------------------------------------------------------

    def _column(self, name: str) -> int | slice | np.ndarray | None:
        """Target of a variable: a column, a slice over sources, an index (B, E) for own elements, or None."""
        if name == self._implicit_name:
            return self.width - 1
        if name.startswith("z_"):
            asked = self._params_at is not None and (self._only is None or name[2:] in self._only)
            return self._where[name[2:]].start if asked else None
        base, index = self._kinds[name]
        if base == "h":
            if self._weights_at is None:
                return None
            start = self._weights_at
        elif self._params_at is None or (self._only is not None and base not in self._only):
            return None
        else:
            start = self._where[base].start
        if index == "j":
            return slice(start, start + self.n_sources)
        return start + self._own if index == "own" else start + int(index)

    def _wanted(self, code: Code, sums: Sequence[sp.Symbol] = ()) -> frozenset[str]:
        """The variables of `code` that some asked-for derivative passes through."""
        names = {s.name for s in sums}
        return frozenset(
            v.name for v in code.variables if v.name in names or self._column(v.name) is not None
        )

    def _add_first(self, out: np.ndarray, name: str, part: Any) -> None:
        """Adds a derivative by an outside variable to (B, n, E, Y)."""
        at = self._column(name)
        if isinstance(at, np.ndarray):
            b, e = np.ogrid[: self.shape[0], : self.shape[2]]
            out[b, :, e, at] += np.swapaxes(np.broadcast_to(part, self.shape), 1, 2)
        else:
            out[..., at] += part

    def _add_second(self, out: np.ndarray, names: tuple[str, str], part: Any) -> None:
        columns = [self._column(n) for n in names]
        b, e = np.ogrid[: self.shape[0], : self.shape[2]]
        moved = np.swapaxes(np.broadcast_to(part, self.shape), 1, 2)
        out[b, :, e, columns[0], columns[1]] += moved
        if names[0] != names[1]:
            out[b, :, e, columns[1], columns[0]] += moved

    def _sum_parts(self, code: Code) -> list[tuple[Any, np.ndarray]]:
        """Derivatives of one sum as (columns, values): a slice with (B, n, K), or a column with (B, n, 1)."""
        shape = (*self.shape[:2], self.n_sources)
        by, gradient = code.gradient(self._wanted(code))
        out = []
        for variable, part in zip(by, gradient(self._inner)[1:], strict=True):
            at = self._column(variable.name)
            part = np.broadcast_to(part, shape)
            if isinstance(at, slice):
                out.append((at, part))
            else:
                out.append((slice(at, at + 1), part.sum(-1, keepdims=True)))  # type: ignore[operator]
        return out

    def _sum_first(self, code: Code) -> np.ndarray:
        """Derivatives (B, n, Y) of one sum."""
        out = np.zeros((*self.shape[:2], self.width))
        for at, part in self._sum_parts(code):
            out[..., at] += part
        return out

    def _sum_second(self, code: Code) -> np.ndarray:
        shape = (*self.shape[:2], self.n_sources)
        out = np.zeros((*self.shape[:2], self.width, self.width))
        pairs, hessian = code.hessian(self._wanted(code))
        for (a, b), part in zip(pairs, hessian(self._inner) if pairs else [], strict=True):
            at = [self._column(a.name), self._column(b.name)]
            each = np.broadcast_to(part, shape)
            # Two elements of the same source meet on a diagonal; a scalar meets a vector in a row.
            index = [np.arange(c.start, c.stop) if isinstance(c, slice) else c for c in at]
            if not any(isinstance(c, slice) for c in at):
                each = each.sum(-1)
            out[:, :, index[0], index[1]] += each
            if a != b:
                out[:, :, index[1], index[0]] += each
        return out

    # ---- derivatives ------------------------------------------------------------------------------------

    def first(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """Value and derivatives by all variables, the implicit one last."""
        self._sum_values(node)
        by, gradient = node.outer.gradient(self._wanted(node.outer, node.sum_symbols))
        value, *parts = gradient(self._outer)
        by_sum = dict(zip(node.sum_symbols, node.inner, strict=True))
        out = np.zeros((*self.shape, self.width))
        for variable, part in zip(by, parts, strict=True):
            if variable in by_sum:
                # Only the columns that the sum depends on: in wide laws they are few.
                factor = np.broadcast_to(part, self.shape)[..., None]
                for at, inner in self._sum_parts(by_sum[variable]):
                    out[..., at] += factor * inner[:, :, None, :]
            else:
                self._add_first(out, variable.name, part)
        return np.array(np.broadcast_to(value, self.shape)), out

    def second(self, node: Node) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value, first and second derivatives by all variables, the implicit one last."""
        value, first = self.first(node)
        wanted = self._wanted(node.outer, node.sum_symbols)
        by, gradient = node.outer.gradient(wanted)
        sums = {
            symbol.name: (self._sum_first(code), self._sum_second(code))
            for symbol, code in zip(node.sum_symbols, node.inner, strict=True)
        }
        out = np.zeros((*self.shape, self.width, self.width))
        for variable, part in zip(by, gradient(self._outer)[1:], strict=True):
            if variable.name in sums:
                out += np.broadcast_to(part, self.shape)[..., None, None] * sums[variable.name][1][:, :, None]
        pairs, hessian = node.outer.hessian(wanted)
        for (a, b), part in zip(pairs, hessian(self._outer) if pairs else [], strict=True):
            if a.name not in sums and b.name not in sums:
                self._add_second(out, (a.name, b.name), part)
                continue
            rows = [self._direction(v.name, sums) for v in (a, b)]
            both = rows[0][..., :, None] * rows[1][..., None, :]
            if a != b:
                both = both + np.swapaxes(both, -1, -2)
            out += np.broadcast_to(part, self.shape)[..., None, None] * both
        return value, first, out

    def summed_second(self, node: Node, multipliers: np.ndarray) -> np.ndarray:
        """Second derivatives (B, Y, Y), summed over (n, E) with `multipliers`; one domain where there are sums.

        The (B, n, E, Y, Y) array of `second` is never built: most of its entries are zero or alike.
        """
        self._sum_values(node)
        out = np.zeros((self.shape[0], self.width, self.width))
        wanted = self._wanted(node.outer, node.sum_symbols)
        by, gradient = node.outer.gradient(wanted)
        slopes = dict(zip([v.name for v in by], gradient(self._outer)[1:], strict=True))
        sums = {}
        for symbol, code in zip(node.sum_symbols, node.inner, strict=True):
            sums[symbol.name] = self._sum_parts(code)
            self._add_summed_curvature(out, code, (slopes[symbol.name] * multipliers)[..., 0])
        pairs, hessian = node.outer.hessian(wanted)
        for (a, b), part in zip(pairs, hessian(self._outer) if pairs else [], strict=True):
            if a.name not in sums and b.name not in sums:
                self._add_summed(out, a.name, b.name, (part * multipliers).sum(1))
                continue
            weight = (part * multipliers)[..., 0, None]
            for at, left in self._parts(a.name, sums):
                for to, right in self._parts(b.name, sums):
                    block = (
                        np.swapaxes(np.broadcast_to(left * weight, (*weight.shape[:2], left.shape[2])), 1, 2)
                        @ right
                    )
                    out[:, at, to] += block
                    if a != b:
                        out[:, to, at] += np.swapaxes(block, 1, 2)
        return out

    def _parts(
        self, name: str, sums: dict[str, list[tuple[Any, np.ndarray]]]
    ) -> list[tuple[Any, np.ndarray]]:
        """Derivatives of an outside variable as in `_sum_parts`: its sum's, or 1 in its own column."""
        if name in sums:
            return sums[name]
        at = self._column(name)
        assert isinstance(at, int)
        return [(slice(at, at + 1), np.ones((*self.shape[:2], 1)))]

    def _add_summed(self, out: np.ndarray, a: str, b: str, total: np.ndarray) -> None:
        """Adds second derivatives (B, E) by two outside variables."""
        at = [self._column(name) for name in (a, b)]
        if isinstance(at[0], int) and isinstance(at[1], int):
            out[:, at[0], at[1]] += total.sum(1)
            if a != b:
                out[:, at[1], at[0]] += total.sum(1)
            return
        # An element of a vector, taken at a domain's own source: its column differs by domain.
        index = [np.broadcast_to(np.asarray(c), total.shape) for c in at]
        batch = np.broadcast_to(np.arange(len(total))[:, None], total.shape)
        np.add.at(out, (batch, index[0], index[1]), total)
        if a != b:
            np.add.at(out, (batch, index[1], index[0]), total)

    def _add_summed_curvature(self, out: np.ndarray, code: Code, weight: np.ndarray) -> None:
        """Adds the second derivatives of one sum, summed over rows with `weight` (B, n)."""
        shape = (*self.shape[:2], self.n_sources)
        pairs, hessian = code.hessian(self._wanted(code))
        for (a, b), part in zip(pairs, hessian(self._inner) if pairs else [], strict=True):
            total = (np.broadcast_to(part, shape) * weight[..., None]).sum(1)  # (B, K)
            at = [self._column(v.name) for v in (a, b)]
            index = [np.arange(c.start, c.stop) if isinstance(c, slice) else c for c in at]
            if not any(isinstance(c, slice) for c in at):
                total = total.sum(1)
            out[:, index[0], index[1]] += total
            if a != b:
                out[:, index[1], index[0]] += total

    def _direction(self, name: str, sums: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Derivative (B, n or 1, E, Y) of one outside variable by all variables."""
        if name in sums:
            return sums[name][0][:, :, None, :]
        out = np.zeros((*self.shape, self.width))
        self._add_first(out, name, 1.0)
        return out

    def implicit_slope(self) -> np.ndarray:
        """Derivative (B, n, 1, Y-1) of the implicit quantity by the other variables."""
        assert self._equation is not None
        phi = self.first(self._equation)[1][:, :, :1]  # the same for all domains
        # Where the equation does not depend on it (every source of a capacity law at its floor), nor does the loss.
        return np.where(phi[..., -1:] != 0, -phi[..., :-1] / phi[..., -1:], 0.0)
