"""Numeric code for one expression: its sums over sources cut out, its derivatives compiled when first asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy as sp
from sympy.printing.numpy import NumPyPrinter
from sympy.tensor.indexed import Indexed

from lawkit.errors import LawError

if TYPE_CHECKING:
    from lawkit.laws._law import Law


class Code:
    """One expression in named variables; value, gradient and Hessian compiled when first asked for."""

    def __init__(self, expr: sp.Expr, variables: Sequence[sp.Symbol], constants: Sequence[sp.Symbol]):
        logs = {c: sp.Symbol(f"log_{c.name}", real=True) for c in constants if c.is_positive}
        self.expr = expr = _in_logs(expr, logs)
        self.variables = [v for v in variables if expr.has(v)]
        self._arguments = [*self.variables, *[c for c in constants if expr.has(c)]]
        self._firsts: dict[sp.Symbol, sp.Expr] = {}
        self._gradients: dict[frozenset[str], Any] = {}
        self._hessians: dict[frozenset[str], Any] = {}
        self._logs = {
            c: sp.Symbol(f"log_{c.name}", real=True) for c in [*self.variables, *constants] if c.is_positive
        }

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

    def hessian(
        self, wanted: frozenset[str]
    ) -> tuple[list[tuple[sp.Symbol, sp.Symbol]], Callable[[dict], list]]:
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

    def with_logs(
        self, exprs: list[sp.Expr]
    ) -> tuple[list[sp.Expr], list[sp.Symbol], dict[sp.Symbol, sp.Symbol]]:
        """The expressions in logarithms of what is positive, their arguments, and the logarithms among those.

        x**p with a symbolic p costs several times exp(p*log(x)), and the logarithms are shared.
        """

        def log_of(product: sp.Expr) -> sp.Expr | None:
            factors = sp.Mul.make_args(product)
            return (
                sp.Add(*[self._logs[f] for f in factors]) if all(f in self._logs for f in factors) else None
            )

        shared = {}
        for e in set().union(*(e.atoms(sp.Pow, sp.log) for e in exprs)):
            if isinstance(e, sp.log) and (log := log_of(e.args[0])) is not None:
                shared[e] = log
            elif isinstance(e, sp.Pow) and not e.exp.is_number and (log := log_of(e.base)) is not None:
                shared[e] = sp.exp(e.exp * log)
        rewritten = [e.xreplace(shared) for e in exprs]
        logs = {x: s for x, s in self._logs.items() if any(e.has(s) for e in rewritten)}
        return rewritten, [*self._arguments, *logs.values()], logs

    def _compile(self, exprs: list[sp.Expr]) -> Callable[[dict], list]:
        rewritten, arguments, logs = self.with_logs(exprs)
        raw = sp.lambdify(arguments, rewritten, modules=[_NAMESPACE], printer=_PRINTER, cse=True)
        plain_arguments = [a.name for a in self._arguments]
        log_arguments = [x.name for x in logs]

        def run(env: dict) -> list:
            for name in log_arguments:
                if (key := "log " + name) not in env:
                    env[key] = np.log(env[name])
            return raw(*[env[a] for a in plain_arguments], *[env["log " + a] for a in log_arguments])

        return run


def _in_logs(expr: sp.Expr, logs: dict[sp.Symbol, sp.Symbol]) -> sp.Expr:
    """Powers of constants as exponentials of their logarithms, and products of those as one exponential.

    (N_ref/N)^a becomes exp(a (log N_ref - log N)): one exponential a row where there were two, and shorter derivatives.
    """
    powers = {
        p: sp.exp(p.exp * logs[p.base]) for p in expr.atoms(sp.Pow) if p.base in logs and not p.exp.is_number
    }
    symbols = set(logs.values())

    def merge(*factors: sp.Expr) -> sp.Expr:
        merged = [f for f in factors if isinstance(f, sp.exp)]
        by_rest: dict[sp.Expr, list[sp.Expr]] = {}
        for term in sp.Add.make_args(sp.Add(*[f.args[0] for f in merged])):
            rest, log = term.as_independent(*symbols, as_Add=False)
            number, rest = rest.as_coeff_Mul()
            by_rest.setdefault(rest, []).append(number * log)
        if len(merged) < 2 or not any(f.has(*symbols) for f in merged):
            return sp.Mul(*factors)
        exponent = sp.Add(*[sp.Mul(rest, sp.Add(*log)) for rest, log in by_rest.items()])
        return sp.Mul(sp.exp(exponent), *[f for f in factors if f not in merged])

    return expr.xreplace(powers).replace(sp.Mul, merge)


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


# Spelled out, since "numpy" as the namespace makes lambdify import all of numpy, numpy.f2py included, for .1 s.
_NAMESPACE = {name: f for name, f in vars(np).items() if isinstance(f, np.ufunc)} | {
    "pi": np.pi,
    "_Larger": np.maximum,
    "_Smaller": np.minimum,
    "_Step": lambda x: np.heaviside(x, 0.5),
}
_PRINTER = NumPyPrinter({"fully_qualified_modules": False, "inline": True, "allow_unknown_functions": True})


class Node:
    """A law-level expression: its sums cut out, each sum's summand compiled apart."""

    def __init__(self, expr: sp.Expr, symbols: Symbols):
        expr = symbols.in_unconstrained(_plain_extrema(expr))
        sums = sorted(expr.atoms(sp.Sum), key=sp.default_sort_key)
        if any(s.function.has(sp.Sum) for s in sums):
            raise LawError(f"law {symbols.law.name!r} has a sum inside a sum, which is not supported")
        self.sum_symbols = [sp.Symbol(f"S_{k}", real=True) for k in range(len(sums))]
        outer = expr.xreplace(dict(zip(sums, self.sum_symbols, strict=True)))
        outer, outside = symbols.elements(outer)
        scalars = symbols.variables
        self.outside = outside
        self.outer = Code(outer, [*scalars, *outside, *self.sum_symbols], symbols.constants)
        self.inner: list[Code] = []
        for s in sums:
            summand, inside = symbols.elements(s.function)
            self.inner.append(Code(summand, [*scalars, *inside], symbols.constants))
        self.elements = symbols.element_kinds


class Symbols:
    """Names: unconstrained parameters, elements of vectors, inputs."""

    def __init__(self, law: Law):
        from lawkit.laws import _law

        self.law = law
        self.constants = [_law.N, _law.D, _law.U, _law.N_ref, _law.D_ref, _law.K]
        self.element_kinds: dict[
            str, tuple[str, str | int]
        ] = {}  # symbol name -> (vector or 'h', 'j' | 'own' | index)
        self.scalar = {
            p.name: sp.Symbol(f"z_{p.name}", real=True) for p in law.parameters if not p.per_source
        }
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
        replaced = expr.xreplace(
            {item: self._element(item.base.label.name, item.indices[0], found) for item in items}
        )
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
