"""Numeric code generated from a law's expression: values, exact gradients, exact Hessians.

Sums over sources are cut out of the expression and become numbers of their own: with
L = F(parameters, S_1 .. S_m) and S_k = sum_j f_k(parameters, v_j, h_j), first and second derivatives of L follow
from those of F and of the summands f_k by the chain rule, elementwise in j. So the code is as long for 300
sources as for two. A quantity s defined by Phi(s, ...) = 0 is one more variable, eliminated by the implicit
function theorem: s_y = -Phi_y / Phi_s, and once more for second derivatives.

Shapes: B parameter vectors at once, n rows, E domains (1 unless the law is coupled), K sources, Y variables.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp
from sympy.tensor.indexed import Indexed

from lawkit.errors import LawError

if TYPE_CHECKING:
    from lawkit.laws._law import Law


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Rows at which a law is evaluated.

    Attributes
    ----------
    n_params, n_tokens
        (n,) as in the runs table (ones where it has no such column).
    weights
        (n, K) mixture weights.
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

    def take(self, groups: np.ndarray) -> Inputs:
        """The same rows for a subset of the B parameter vectors."""
        if len(self.own) == 1:
            return self
        return Inputs(**{**self.__dict__, "own": self.own[groups]})


class _Code:
    """One expression in named variables; value, gradient and Hessian compiled when first asked for."""

    def __init__(self, expr: sp.Expr, variables: Sequence[sp.Symbol], constants: Sequence[sp.Symbol]):
        self.expr = expr
        self.variables = [v for v in variables if expr.has(v)]
        self._arguments = [*self.variables, *[c for c in constants if expr.has(c)]]
        self._firsts: dict[sp.Symbol, sp.Expr] = {}
        self._gradients: dict[frozenset[str], Any] = {}
        self._hessians: dict[frozenset[str], Any] = {}
        self._logs = {c: sp.Symbol(f"log_{c.name}", real=True) for c in [*self.variables, *constants] if c.is_positive}

    @functools.cached_property
    def value(self) -> Callable[[dict], np.ndarray]:
        f = self._compile([self.expr])
        return lambda env: f(env)[0]

    def gradient(self, wanted: frozenset[str]) -> tuple[list[sp.Symbol], Callable[[dict], list]]:
        """The wanted variables, and a function for the value and its first derivatives by them."""
        if wanted not in self._gradients:
            by = [v for v in self.variables if v.name in wanted]
            self._gradients[wanted] = by, self._compile([self.expr, *[self._first(v) for v in by]])
        return self._gradients[wanted]

    def hessian(self, wanted: frozenset[str]) -> tuple[list[tuple[sp.Symbol, sp.Symbol]], Callable[[dict], list]]:
        """Pairs of wanted variables (each once, the zero ones left out), and their second derivatives."""
        if wanted not in self._hessians:
            by = [v for v in self.variables if v.name in wanted]
            found = {}
            for i, a in enumerate(by):
                for b in by[: i + 1]:
                    second = sp.diff(self._first(a), b)
                    if second != 0:
                        found[a, b] = second
            self._hessians[wanted] = list(found), self._compile(list(found.values()))
        return self._hessians[wanted]

    def _first(self, variable: sp.Symbol) -> sp.Expr:
        if variable not in self._firsts:
            self._firsts[variable] = sp.diff(self.expr, variable)
        return self._firsts[variable]

    def _compile(self, exprs: list[sp.Expr]) -> Callable[[dict], list]:
        # x**p with a symbolic p costs several times exp(p*log(x)), and the logarithms are shared.
        def log_of(product: sp.Expr) -> sp.Expr | None:
            factors = sp.Mul.make_args(product)
            return sp.Add(*[self._logs[f] for f in factors]) if all(f in self._logs for f in factors) else None

        shared = {}
        for e in set().union(*(e.atoms(sp.Pow, sp.log) for e in exprs)):
            if isinstance(e, sp.log) and (log := log_of(e.args[0])) is not None:
                shared[e] = log
            elif isinstance(e, sp.Pow) and not e.exp.is_number and (log := log_of(e.base)) is not None:
                shared[e] = sp.exp(e.exp * log)
        rewritten = [e.xreplace(shared) for e in exprs]
        logs = {x: s for x, s in self._logs.items() if any(e.has(s) for e in rewritten)}
        raw = sp.lambdify([*self._arguments, *logs.values()], rewritten, modules=_NUMPY, cse=True)
        arguments = [a.name for a in self._arguments]
        log_arguments = [x.name for x in logs]

        def run(env: dict) -> list:
            for name in log_arguments:
                if (key := "log " + name) not in env:
                    env[key] = np.log(env[name])
            return raw(*[env[a] for a in arguments], *[env["log " + a] for a in log_arguments])

        return run


class _Step(sp.Function):
    """1 for a positive argument, 0 for a negative one, 1/2 at zero; its derivative is taken to be zero."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.S.Zero


class _Larger(sp.Function):
    """The larger of two numbers: sympy's Max without its comparisons, which take seconds in a long expression."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        a, b = self.args
        return _Step(a - b) if argindex == 1 else _Step(b - a)

    def _eval_is_positive(self) -> bool | None:
        return True if any(a.is_positive for a in self.args) else None

    def _eval_is_extended_real(self) -> bool:
        return True


class _Smaller(sp.Function):
    """The smaller of two numbers."""

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        a, b = self.args
        return _Step(b - a) if argindex == 1 else _Step(a - b)

    def _eval_is_positive(self) -> bool | None:
        return True if all(a.is_positive for a in self.args) else None

    def _eval_is_extended_real(self) -> bool:
        return True


def _plain_extrema(expr: sp.Expr) -> sp.Expr:
    """Max and Min replaced by functions of two arguments that stay as they are written."""
    expr = expr.replace(sp.Max, lambda *a: functools.reduce(lambda x, y: _Larger(x, y), a))
    return expr.replace(sp.Min, lambda *a: functools.reduce(lambda x, y: _Smaller(x, y), a))


_NUMPY = [
    {"_Larger": np.maximum, "_Smaller": np.minimum, "_Step": lambda x: np.heaviside(x, 0.5)},
    "numpy",
]


class _Node:
    """A law-level expression: its sums cut out, each sum's summand compiled apart."""

    def __init__(self, expr: sp.Expr, symbols: _Symbols):
        expr = symbols.in_unconstrained(_plain_extrema(expr))
        sums = sorted(expr.atoms(sp.Sum), key=sp.default_sort_key)
        if any(s.function.has(sp.Sum) for s in sums):
            raise LawError(f"law {symbols.law.name!r} has a sum inside a sum, which is not supported")
        self.sum_symbols = [sp.Symbol(f"S_{k}", real=True) for k in range(len(sums))]
        outer = expr.xreplace(dict(zip(sums, self.sum_symbols, strict=True)))
        outer, outside = symbols.elements(outer)
        scalars = symbols.variables
        self.outside = outside
        self.outer = _Code(outer, [*scalars, *outside, *self.sum_symbols], symbols.constants)
        self.inner: list[_Code] = []
        for s in sums:
            summand, inside = symbols.elements(s.function)
            self.inner.append(_Code(summand, [*scalars, *inside], symbols.constants))
        self.elements = symbols.element_kinds


class _Symbols:
    """Names: unconstrained parameters, elements of vectors, inputs."""

    def __init__(self, law: Law):
        from lawkit.laws import _law

        self.law = law
        self.constants = [_law.N, _law.D, _law.U, _law.N_ref, _law.D_ref, _law.K]
        self.element_kinds: dict[str, tuple[str, str | int]] = {}  # symbol name -> (vector or 'h', 'j' | 'own' | index)
        self.scalar = {p.name: sp.Symbol(f"z_{p.name}", real=True) for p in law.parameters if not p.per_source}
        self.variables = list(self.scalar.values())
        if law.implicit is not None:
            self.variables.append(law.implicit.symbol)
        self._supports = {p.name: p.support for p in law.parameters}

    def _natural(self, name: str, z: sp.Symbol) -> sp.Expr:
        support = self._supports[name]
        return {"positive": sp.exp(z), "real": z, "unit": 1 / (1 + sp.exp(-z))}[support]

    def in_unconstrained(self, expr: sp.Expr) -> sp.Expr:
        """Scalar parameters replaced by their transforms (reference factors included)."""
        law = self.law
        symbols = {p.name: law._symbol(p) for p in law.parameters if not p.per_source}
        replacement = {symbol: self._natural(name, self.scalar[name]) for name, symbol in symbols.items()}
        for name, factor in law.references.items():
            if name in symbols:  # those of vectors are applied to their elements
                replacement[symbols[name]] *= factor.subs(replacement)
        return expr.subs(replacement)

    def elements(self, expr: sp.Expr) -> tuple[sp.Expr, list[sp.Symbol]]:
        """Indexed elements replaced by plain symbols (transformed for parameters); also those symbols."""
        found: dict[sp.Symbol, None] = {}
        items = sorted(expr.atoms(Indexed), key=sp.default_sort_key)
        replaced = expr.xreplace({item: self._element(item.base.label.name, item.indices[0], found) for item in items})
        # Logarithms of products of transforms, log(exp(z) * h), become sums.
        return replaced.replace(sp.log, lambda *a: sp.expand_log(sp.log(*a))), list(found)

    def _element(self, base: str, index: sp.Expr, found: dict[sp.Symbol, None]) -> sp.Expr:
        """One element as an expression in plain symbols, which are added to `found`."""
        from lawkit.laws import _law

        where: str | int = "j" if index == _law.j else "own" if index == _law.own else int(index)
        symbol = sp.Symbol(f"{base}@{where}", **({"positive": True} if base == "h" else {"real": True}))
        self.element_kinds[symbol.name] = (base, where)
        found[symbol] = None
        if base == "h":
            return symbol
        factor = self.law.references.get(base, sp.S.One)
        # The factor may name other vectors, as [j]: they are taken at the same index.
        others = {item: self._element(item.base.label.name, index, found) for item in factor.atoms(Indexed)}
        return self._natural(base, symbol) * self.in_unconstrained(factor.xreplace(others))


class LawFunction:
    """Evaluates a law for many parameter vectors and rows at once. See `Law.function`.

    `wrt` is a tuple out of 'params' (the unconstrained vector, P columns) and 'weights' (K columns), in
    that order; Y is the total.
    """

    def __init__(self, law: Law):
        self.law = law
        symbols = _Symbols(law)
        self._loss = _Node(law.loss, symbols)
        self._equation = _Node(law.implicit.equation, symbols) if law.implicit else None
        self._bracket: list[_Node] = []
        if law.implicit:
            self._bracket = [_Node(sp.sympify(b), symbols) for b in (law.implicit.lower, law.implicit.upper)]

    # ---- public -----------------------------------------------------------------------------------------

    def value(self, z: np.ndarray, x: Inputs) -> np.ndarray:
        """Losses (B, n, E)."""
        with np.errstate(all="ignore"):
            state = _State(self, z, x)
            return np.array(np.broadcast_to(state.value(self._loss), state.shape))

    def jacobian(
        self, z: np.ndarray, x: Inputs, wrt: tuple[str, ...] = ("params",), only: frozenset[str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Losses (B, n, E) and first derivatives (B, n, E, Y); columns of parameters not in `only` stay 0."""
        with np.errstate(all="ignore"):
            state = _State(self, z, x, wrt, only)
            value, first = state.first(self._loss)
            if self._equation is not None:
                first = first[..., :-1] + first[..., -1:] * state.implicit_slope()
            return value, first

    def hessian(
        self, z: np.ndarray, x: Inputs, wrt: tuple[str, ...] = ("weights",)
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Losses (B, n, E), first (B, n, E, Y) and second derivatives (B, n, E, Y, Y)."""
        with np.errstate(all="ignore"):
            state = _State(self, z, x, wrt)
            value, first, second = state.second(self._loss)
            if self._equation is None:
                return value, first, second
            _, phi, phi2 = state.second(self._equation)
            slope = state.implicit_slope()
            curve = -_eliminate(phi2, slope) / phi[..., -1, None, None]
            second = _eliminate(second, slope) + first[..., -1, None, None] * curve
            return value, first[..., :-1] + first[..., -1:] * slope, second

    @property
    def cheap_curvature(self) -> bool:
        """Whether `curvature` does without second derivatives row by row."""
        own = any(where == "own" for _, where in self._loss.elements.values())
        return self._equation is None and (not self._loss.inner or not (own or self.law.coupled))

    def curvature(self, z: np.ndarray, x: Inputs, multipliers: np.ndarray) -> np.ndarray:
        """Second derivatives by the parameters, summed over rows and domains with `multipliers` (B, n, E): (B, P, P)."""
        with np.errstate(all="ignore"):
            if self.cheap_curvature:
                return _State(self, z, x, ("params",)).summed_second(self._loss, multipliers)
            second = self.hessian(z, x, ("params",))[2]
            return np.einsum("bne,bnepq->bpq", multipliers, second)

    # ---- the implicit quantity --------------------------------------------------------------------------

    def _solve(self, state: _State) -> np.ndarray:
        """Root of the defining equation per (B, n): Newton, safeguarded by bisection."""
        assert self._equation is not None
        shape = (*state.shape[:2], 1)
        low, high = (np.array(np.broadcast_to(state.value(b, implicit=False), shape)) for b in self._bracket)
        # From the lower end: there Newton never oversteps where the equation is convex and falling.
        at = low
        state.set_implicit(at)
        value, slope = state.equation_slope(self._equation)
        falling = value > 0
        for _ in range(100):
            newton = at - value / slope
            new = np.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
            # Newton squares the error: after a step this small the root is exact.
            moving = np.abs(new - at) > 1e-9 * np.maximum(1.0, np.abs(new))
            at = new
            state.set_implicit(at)
            if not moving.any():
                break
            value, slope = state.equation_slope(self._equation)
            above = (value > 0) != falling
            high, low = np.where(above, at, high), np.where(above, low, at)
        return at


def _eliminate(second: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Second derivatives in (y, s) reduced to y along s(y), without the term in s_yy."""
    cross = second[..., :-1, -1]
    mixed = cross[..., :, None] * slope[..., None, :]
    outer = slope[..., :, None] * slope[..., None, :]
    return second[..., :-1, :-1] + mixed + np.swapaxes(mixed, -1, -2) + second[..., -1:, -1:] * outer


class _State:
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
        self.n_sources = x.weights.shape[1]
        self.shape = (len(z), len(x.weights), x.own.shape[1])
        if law.needs_own_source and (x.own < 0).any():
            raise LawError(f"law {law.name!r} needs every domain to be one of the sources")
        self._where = law.layout(self.n_sources)
        self._own = np.broadcast_to(x.own, (len(z), x.own.shape[1]))
        self._z = z
        h = np.maximum(x.weights, law.weight_floor)
        self._h = h
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
                self._inner[name] = h[None] if base == "h" else z[:, None, self._where[base]]
            elif index == "own":
                self._outer[name] = (
                    np.moveaxis(h[:, self._own], 0, 1)
                    if base == "h"
                    else np.take_along_axis(z[:, self._where[base]], self._own, 1)[:, None, :]
                )
            elif base == "h":
                self._outer[name] = h[:, [index]][None]
            else:
                raise LawError(f"law {law.name!r} indexes parameter {base!r} by a number")
        size = law.n_parameters(self.n_sources)
        self._params_at = 0 if "params" in wrt else None
        self._weights_at = (size if "params" in wrt else 0) if "weights" in wrt else None
        self.width = size * ("params" in wrt) + self.n_sources * ("weights" in wrt) + (law.implicit is not None)
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

    def _sum_values(self, node: _Node) -> None:
        if id(node) not in self._sums:
            shape = (*self.shape[:2], self.n_sources)
            self._sums[id(node)] = [
                np.broadcast_to(code.value(self._inner), shape).sum(-1)[..., None] for code in node.inner
            ]
        for symbol, value in zip(node.sum_symbols, self._sums[id(node)], strict=True):
            self._outer[symbol.name] = value

    def value(self, node: _Node, implicit: bool = True) -> np.ndarray:
        self._sum_values(node)
        return node.outer.value(self._outer)

    def equation_slope(self, node: _Node) -> tuple[np.ndarray, np.ndarray]:
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

    def _wanted(self, code: _Code, sums: Sequence[sp.Symbol] = ()) -> frozenset[str]:
        """The variables of `code` that some asked-for derivative passes through."""
        names = {s.name for s in sums}
        return frozenset(v.name for v in code.variables if v.name in names or self._column(v.name) is not None)

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

    def _sum_parts(self, code: _Code) -> list[tuple[Any, np.ndarray]]:
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

    def _sum_first(self, code: _Code) -> np.ndarray:
        """Derivatives (B, n, Y) of one sum."""
        out = np.zeros((*self.shape[:2], self.width))
        for at, part in self._sum_parts(code):
            out[..., at] += part
        return out

    def _sum_second(self, code: _Code) -> np.ndarray:
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

    def first(self, node: _Node) -> tuple[np.ndarray, np.ndarray]:
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

    def second(self, node: _Node) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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

    def summed_second(self, node: _Node, multipliers: np.ndarray) -> np.ndarray:
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
                    block = np.swapaxes(np.broadcast_to(left * weight, (*weight.shape[:2], left.shape[2])), 1, 2) @ right
                    out[:, at, to] += block
                    if a != b:
                        out[:, to, at] += np.swapaxes(block, 1, 2)
        return out

    def _parts(self, name: str, sums: dict[str, list[tuple[Any, np.ndarray]]]) -> list[tuple[Any, np.ndarray]]:
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

    def _add_summed_curvature(self, out: np.ndarray, code: _Code, weight: np.ndarray) -> None:
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
        _, phi = self.first(self._equation)
        return -phi[..., :-1] / phi[..., -1:]
