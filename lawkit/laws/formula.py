"""A user's own law, written as one line of arithmetic and read without executing any of it.

The text is checked character by character, parsed by Python's `ast`, and rebuilt node by node from a
whitelist into sympy. Nothing in it is evaluated, imported, looked up or called.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

from lawkit.errors import LawError
from lawkit.laws._formula_reader import FormulaReader
from lawkit.laws._formula_text import FormulaText
from lawkit.laws._law import D, D_ref, Law, N, N_ref, Parameter, U, h

#: For `lawkit fit --help` and the documentation.
FORMULA_HELP = """\
A law of your own, e.g. "E + A/N**alpha + B/(D*(w_web + k*w_hq))**beta".
Operators + - * / ** and parentheses; functions exp, log, sqrt.
N is n_params, D is n_tokens, U the unique tokens of all sources in use,
w_<source> a source's weight (write _ for characters of its name other than
letters, digits and _). Every other name is a parameter to be fitted.
A parameter is positive, unless it
  - is only ever a term or factor directly inside exp(...),
    as c and t are in exp(c + t*w_web), or
  - is marked with ~ where it is written, as a is in E + ~a*log(D):
these may take either sign."""


@dataclass(frozen=True, kw_only=True)
class ParsedFormula:
    """What a formula says.

    Attributes
    ----------
    text
        As given.
    expr
        The loss in nats per token: parameters as symbols, `N`, `D`, `U`, and `h[k]` for the weight of
        source k, counted from 0.
    parameters
        Names in order of first appearance.
    real
        Those that may take either sign; the others are positive.
    columns
        Subset of {'N', 'D', 'U'} that the loss depends on.
    sources
        Names of the sources whose weights the loss depends on, in the order of the runs table.
    """

    text: str
    expr: sp.Expr
    parameters: tuple[str, ...]
    real: frozenset[str]
    columns: frozenset[str]
    sources: tuple[str, ...]


def parse_formula(text: str, sources: Sequence[str] = (), *, real: Iterable[str] = ()) -> ParsedFormula:
    """Read a formula; see `FORMULA_HELP` for what one may say.

    Parameters
    ----------
    text
        The right-hand side of the law.
    sources
        Names of the K sources of the runs table, in its order.
    real
        Further parameters that may take either sign.

    Returns
    -------
    ParsedFormula

    Raises
    ------
    LawError
        For anything that is not such a formula; the message shows the place.

    Examples
    --------
    >>> parsed = parse_formula("E + B/(D*(w_web + k*w_hq))**beta", ["web", "hq"])
    >>> parsed.parameters
    ('E', 'B', 'k', 'beta')
    >>> parsed.sources
    ('web', 'hq')
    >>> print(parsed.expr)
    B/(D*(k*h[1] + h[0]))**beta + E
    """
    formula = FormulaText(text)
    try:
        reader = FormulaReader(formula, tuple(sources), frozenset(real))
    except RecursionError:  # the caller may itself be deep in the stack
        raise formula.error("the formula is nested or chained too deeply", formula.indent) from None
    expr, symbols = reader.expr, reader.symbols
    if not symbols:
        raise formula.error_overall("nothing to fit: the formula has no parameter")
    if unknown := sorted(set(real) - set(symbols)):
        raise LawError(f"real={unknown}: the formula has no such parameter; it has {', '.join(symbols)}")
    used = sorted({int(item.indices[0]) for item in expr.atoms(sp.Indexed)})
    columns = frozenset(s.name for s in (N, D, U) if expr.has(s))
    if not columns and not used:
        what = "the loss depends on nothing but parameters: use N, D, U or a weight"
        raise formula.error_overall(what, reader.weights_known())
    return ParsedFormula(
        text=text,
        expr=expr,
        parameters=tuple(symbols),
        real=frozenset(name for name, symbol in symbols.items() if not symbol.is_positive),
        columns=columns,
        sources=tuple(sources[k] for k in used),
    )


class FormulaLaw(Law):
    """A law from a user's formula.

    Parameters
    ----------
    text, sources, real
        As in `parse_formula`. The law is for tables with exactly these sources, in this order.

    Raises
    ------
    LawError
        As `parse_formula`.

    Examples
    --------
    >>> FormulaLaw("E + A/N**alpha").text()
    'L = E + A/N**alpha'
    """

    name = "formula"

    def __init__(self, text: str, sources: Sequence[str] = (), *, real: Iterable[str] = ()) -> None:
        self.parsed = parse_formula(text, sources, real=real)
        self.formula = text
        self.sources = tuple(sources)
        self.title = text
        self.citation = "given by the user"
        self.loss = self.parsed.expr
        sizes = _sizes(self.parsed)
        self.parameters = tuple(
            Parameter(name=name, support="real", start=(-2.0, 2.0))
            if name in self.parsed.real
            else Parameter(name=name, start=(0.05, 2.0), reference=sizes.get(name))
            for name in self.parsed.parameters
        )
        # A free form has more local optima than the laws of the zoo, and no known good starting range.
        self.starts = 24

    @cached_property
    def references(self) -> dict[str, sp.Expr]:
        """As for every law, without those that depend on a parameter which has one itself."""
        found = super().references
        return {name: f for name, f in found.items() if not {str(s) for s in f.free_symbols} & set(found)}

    def text(self) -> str:
        """Return the loss as the user wrote it, on one line."""
        return "L = " + " ".join(self.formula.split())

    def latex(self) -> str:
        """Return the loss as LaTeX, weights by their sources' names."""
        weights: Any = h
        names = {weights[k]: sp.Symbol(rf"w_{{\mathrm{{{s}}}}}") for k, s in enumerate(self.sources)}
        return "L = " + sp.latex(self.loss.xreplace(names))


def _sizes(parsed: ParsedFormula) -> dict[str, sp.Expr]:
    """Natural size of the positive parameters that multiply or stand beside N or D in a nonlinear place.

    A starting range of order one is hopeless for the D0 of D/(D + D0) or the A of (A/N**alpha + 1)**gamma.
    Where such a parameter multiplies N and D, its size is the one that makes the product one at the
    geometric-mean scale; where it is added to them, theirs. Other parameters may take part only if they get
    no factor of their own.
    """
    expr = parsed.expr
    nested = set[sp.Basic]().union(*(part.free_symbols for part in expr.atoms(sp.Pow, sp.exp, sp.log)))
    wanted = {s for s in nested if str(s) in set(parsed.parameters) - parsed.real}
    out: dict[str, sp.Expr] = {}
    bound: set[sp.Basic] = set()
    for part in sp.preorder_traversal(expr):
        if not isinstance(part, (sp.Mul, sp.Add)) or not part.free_symbols & {N, D}:
            continue
        for item in part.args:
            symbol, exponent = item.as_base_exp() if isinstance(part, sp.Mul) else (item, sp.Integer(1))
            if symbol not in wanted - bound or str(symbol) in out or not exponent.is_number:
                continue
            if isinstance(part, sp.Mul):
                rest = part / item
                size = (1 / rest) ** (1 / exponent)
            else:
                size = rest = sp.Add(*[a for a in part.args if a.has(N, D) and a.free_symbols <= {N, D}])
            others = rest.free_symbols - {N, D}
            if rest.has(h, U) or not rest.has(N, D) or {str(s) for s in others} & {str(symbol), *out}:
                continue
            out[str(symbol)] = size.subs({N: N_ref, D: D_ref})
            bound |= others
    return out
