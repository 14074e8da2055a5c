"""From a formula's syntax tree to sympy, node by node from a whitelist."""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Callable
from typing import Any

import sympy as sp

from lawkit.errors import LawError
from lawkit.laws._formula_text import ALLOWED, MAX_DEPTH, FormulaText, shorten
from lawkit.laws._law import D, N, U, h

_FUNCTIONS: dict[str, Callable[[Any], Any]] = {"exp": sp.exp, "log": sp.log, "sqrt": sp.sqrt}
_COLUMNS = {"N": N, "n_params": N, "D": D, "n_tokens": D, "U": U}
_RESERVED = {
    "h": "weights are written w_<source>",
    "N_ref": "it is lawkit's own",
    "D_ref": "it is lawkit's own",
}

# Bounds on constants, so that folding them takes no time and loses no digits to overflow.
_MAX_EXPONENT = 100
_MAX_LOG10 = 200.0
_MAX_INTEGER = 10**15


class FormulaReader:
    """One formula on its way to sympy.

    Attributes
    ----------
    expr
        The loss; see `lawkit.laws.formula.ParsedFormula`.
    symbols
        The parameters, in order of first appearance.
    """

    def __init__(self, text: FormulaText, sources: tuple[str, ...], real: frozenset[str]) -> None:
        self._text = text
        self._sources = sources
        self._weights: dict[str, list[int]] = {}
        for k, source in enumerate(sources):
            self._weights.setdefault("w_" + re.sub(r"\W", "_", source, flags=re.ASCII), []).append(k)
        self._first: dict[str, ast.Name] = {}
        body = text.parse()
        self.symbols = self._parameters(body, real)
        self.expr = self._shortened(self._build(body, 0))
        for name, symbol in self.symbols.items():
            if not self.expr.has(symbol):
                what = f"the parameter {name!r} cancels out: no loss could determine it"
                raise text.error_at(self._first[name], what)

    # ---- names --------------------------------------------------------------------------------------------

    def _parameters(self, body: ast.expr, real: frozenset[str]) -> dict[str, sp.Symbol]:
        """Find the parameters and decide which of them may be negative."""
        only_in_exp: dict[str, bool] = {}
        marked = set(real)
        stack: list[tuple[ast.AST, bool]] = [(body, False)]
        while stack:
            node, in_exp = stack.pop()
            if isinstance(node, ast.Name) and node.id not in _COLUMNS and not node.id.startswith("w_"):
                only_in_exp[node.id] = only_in_exp.get(node.id, True) and in_exp
                if node.col_offset <= self._first.setdefault(node.id, node).col_offset:
                    self._first[node.id] = node
            elif isinstance(node, ast.BinOp):
                right = in_exp and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult))
                left = right or (in_exp and isinstance(node.op, ast.Div))
                stack += [(node.left, left), (node.right, right)]
            elif isinstance(node, ast.UnaryOp):
                if isinstance(node.op, ast.Invert) and isinstance(node.operand, ast.Name):
                    marked.add(node.operand.id)
                stack.append((node.operand, in_exp))
            elif isinstance(node, ast.Call):
                is_exp = isinstance(node.func, ast.Name) and node.func.id == "exp"
                stack += [(argument, is_exp) for argument in node.args]
        order = sorted(only_in_exp, key=lambda name: self._first[name].col_offset)
        signs = {name: "real" if only_in_exp[name] or name in marked else "positive" for name in order}
        return {name: sp.Symbol(name, **{sign: True}) for name, sign in signs.items()}

    def _name(self, node: ast.Name) -> Any:
        name = node.id
        if name in _COLUMNS:
            return _COLUMNS[name]
        if name in _RESERVED:
            raise self._refuse(node, f"{name!r} cannot name a parameter: {_RESERVED[name]}")
        if name in _FUNCTIONS:
            raise self._refuse(node, f"{name!r} is a function: write {name}(...)")
        if name.startswith("w_"):
            return _weight(self._source(node))
        if name.startswith(("weight_", "W_")):
            meant = "w_" + name.split("_", 1)[1]
            advice = f"did you mean {meant!r}?" if meant in self._weights else self.weights_known(meant)
            raise self._refuse(node, f"{shorten(name)!r}: a source's weight is written w_<source>", advice)
        if name.startswith(("loss_", "unique_")):
            raise self._refuse(node, f"{shorten(name)!r}: a law cannot use this column of the table", ALLOWED)
        if "w_" + name in self._weights:
            what = f"{shorten(name)!r} is a source, and would be a parameter here"
            raise self._refuse(
                node, what, f"did you mean {shorten('w_' + name)!r}? If not, rename the parameter"
            )
        near = difflib.get_close_matches(name.lower(), ["n_params", "n_tokens"], 1, 0.8)
        if near:
            what = f"{name!r} would be a parameter, but looks like {near[0]!r}"
            raise self._refuse(node, what, f"did you mean {near[0]!r}? If not, rename the parameter")
        return self.symbols[name]

    def _source(self, node: ast.Name) -> int:
        """Find the index of the source whose weight a name stands for."""
        owners = self._weights.get(node.id, [])
        exact = [k for k in owners if "w_" + self._sources[k] == node.id]
        if len(owners) == 1 or len(exact) == 1:
            return (exact or owners)[0]
        if owners:
            names = ", ".join(repr(self._sources[k]) for k in owners)
            what = f"{node.id!r} could be any of the sources {names}"
            raise self._refuse(node, what, "rename their weight columns")
        near = difflib.get_close_matches(node.id, list(self._weights), 1, 0.6)
        what = f"no source has the weight {shorten(node.id)!r}" + (
            f"; did you mean {near[0]!r}?" if near else ""
        )
        raise self._refuse(node, what, self.weights_known(node.id))

    def weights_known(self, name: str = "") -> str:
        """List the weights there are, those spelled most like `name` first."""
        if not self._weights:
            return "the runs have no weight_ columns, so there are no weights w_<source>"
        known = list(self._weights)
        if name:
            known.sort(key=lambda other: -difflib.SequenceMatcher(None, other, name).ratio())
        return "weights: " + ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")

    # ---- nodes --------------------------------------------------------------------------------------------

    def _refuse(self, node: ast.expr, what: str, advice: str = "") -> LawError:
        return self._text.error_at(node, what, advice)

    def _build(self, node: ast.expr, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self._refuse(node, f"nested more than {MAX_DEPTH} deep here")
        match node:
            case ast.BinOp(op=ast.Pow()):
                return self._checked(self._power(node, depth), node)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return self._checked(self._chain(node, depth, (ast.Add, ast.Sub)), node)
            case ast.BinOp(op=ast.Mult() | ast.Div()):
                return self._checked(self._chain(node, depth, (ast.Mult, ast.Div)), node)
            case ast.UnaryOp(op=ast.Invert(), operand=ast.Name(id=name)) if name in self.symbols:
                return self._name(node.operand)  # type: ignore[arg-type]
            case ast.UnaryOp(op=ast.USub()):
                return -self._build(node.operand, depth + 1)
            case ast.UnaryOp(op=ast.UAdd()):
                return self._build(node.operand, depth + 1)
            case ast.Call():
                return self._checked(self._call(node, depth), node)
            case ast.Name():
                return self._name(node)
            case ast.Constant():
                return self._number(node)
        raise self._stranger(node)

    def _stranger(self, node: ast.expr) -> LawError:
        match node:
            case ast.Attribute(attr=name):
                advice = f"write {name}(...)" if name in _FUNCTIONS else ALLOWED
                return self._refuse(
                    node, f"a formula looks nothing up with a dot: '.{shorten(name)}'", advice
                )
            case ast.Tuple():
                return self._refuse(node, "a formula is one expression; found a comma", "write 0.5, not 0,5")
            case ast.UnaryOp():
                return self._refuse(node, "~ marks a parameter that may be negative: ~name")
            case ast.BinOp(op=ast.FloorDiv()):
                return self._refuse(node, "found the operator //", "operators: + - * / **")
        return self._refuse(node, f"found {type(node).__name__}, which a formula cannot contain", ALLOWED)

    def _chain(self, node: ast.BinOp, depth: int, family: tuple[type[ast.operator], ...]) -> Any:
        """Build a sum or product; a loop down its left side leaves depth to count only nesting."""
        steps: list[ast.BinOp] = []
        first: ast.expr = node
        while isinstance(first, ast.BinOp) and isinstance(first.op, family):
            steps.append(first)
            first = first.left
        terms = [self._build(first, depth + 1)]
        for step in reversed(steps):
            term = self._build(step.right, depth + 1)
            if isinstance(step.op, ast.Sub):
                term = -term
            elif isinstance(step.op, ast.Div):
                if term.is_zero:
                    raise self._refuse(step.right, "division by zero")
                term = 1 / term
            terms.append(term)
        combined: Any = sp.Add if ast.Add in family else sp.Mul
        return combined(*terms)

    def _power(self, node: ast.BinOp, depth: int) -> Any:
        base, exponent = self._build(node.left, depth + 1), self._build(node.right, depth + 1)
        if exponent.is_number:
            size = abs(float(exponent))
            # sympy raises numeric factors of the base exactly, to any number of digits.
            numbers = [abs(float(c)) for c in base.atoms(sp.Number) if c != 0]
            digits = max((abs(math.log10(c)) for c in numbers), default=0.0)
            if size > _MAX_EXPONENT or size * digits > _MAX_LOG10:
                raise self._refuse(
                    node.right, f"an exponent of {float(exponent):g} is out of all proportion here"
                )
        if base.is_zero and not exponent.is_positive:
            raise self._refuse(node, "division by zero")
        if base.is_negative and not exponent.is_integer:
            raise self._refuse(node.left, "a negative base needs a whole exponent")
        return base**exponent

    def _call(self, node: ast.Call, depth: int) -> Any:
        if isinstance(node.func, ast.Attribute):
            raise self._stranger(node.func)
        if not isinstance(node.func, ast.Name):
            raise self._refuse(node, "a * is missing between a factor and a parenthesis")
        name = node.func.id
        if name not in _FUNCTIONS:
            near = difflib.get_close_matches(name.lower(), list(_FUNCTIONS), 1, 0.6)
            advice = f"did you mean {near[0]}" if near else f"for a product write {shorten(name)}*(...)"
            raise self._refuse(
                node.func, f"{shorten(name)!r} is not a function here", f"{advice}; functions: exp, log, sqrt"
            )
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            raise self._refuse(node, f"{name} takes exactly one number: {name}(...)")
        argument = self._build(node.args[0], depth + 1)
        if name == "log" and argument.is_nonpositive:
            raise self._refuse(node, "the logarithm needs a positive number")
        if name == "sqrt" and argument.is_negative:
            raise self._refuse(node, "the square root of a negative number is not real")
        if name == "exp" and argument.is_number and abs(float(argument)) > _MAX_LOG10 * math.log(10):
            raise self._refuse(node, "this number is out of all proportion")
        return _FUNCTIONS[name](argument)

    def _number(self, node: ast.Constant) -> Any:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._refuse(node, f"found {shorten(repr(value))}, which is not a number", ALLOWED)
        if not 10.0**-_MAX_LOG10 < value < 10.0**_MAX_LOG10 and re.search("[1-9]", self._text.source(node)):
            raise self._refuse(node, "this number is out of all proportion")
        return (
            sp.Integer(value) if isinstance(value, int) and value < _MAX_INTEGER else sp.Float(float(value))
        )

    def _checked(self, expr: Any, node: ast.expr) -> Any:
        """Hold the constants that sympy has folded real, of sane size, and short."""
        if expr.has(sp.I, sp.zoo, sp.nan, sp.oo, -sp.oo) or (expr.is_number and not expr.is_real):
            raise self._refuse(node, "this part is not a real number")
        if not expr.is_number:
            return expr
        if expr != 0 and not 10.0**-_MAX_LOG10 < abs(float(expr)) < 10.0**_MAX_LOG10:
            raise self._refuse(node, "this number is out of all proportion")
        # Exact constants (roots, long fractions) would grow without bound; only short fractions stay exact.
        return expr if isinstance(expr, sp.Rational) and _short(expr) else sp.Float(float(expr))

    def _shortened(self, expr: Any) -> Any:
        """Turn long exact coefficients, gathered from many factors, into floating point."""
        return expr.xreplace({c: sp.Float(c, 17) for c in expr.atoms(sp.Rational) if not _short(c)})


def _weight(source: int) -> Any:
    weights: Any = h
    return weights[source]


def _short(number: Any) -> bool:
    return max(abs(number.p), number.q) < _MAX_INTEGER
