"""What a law is: one sympy expression, its parameters, and what it can do.

Everything numeric (prediction, exact first and second derivatives) is generated from the expression by
`lawkit.laws._function`; everything readable (LaTeX, text) is printed from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import sympy as sp
from sympy.tensor.indexed import Idx

from lawkit.errors import LawError
from lawkit.laws._words import (
    D,
    D_ref,
    Implicit,
    K,
    N,
    N_ref,
    Objective,
    Parameter,
    Prior,
    PriorContext,
    Support,
    U,
    h,
    j,
    over_sources,
    own,
    scalars,
    vectors,
)

if TYPE_CHECKING:
    from lawkit.laws._function import LawFunction

__all__ = [
    "D",
    "D_ref",
    "Implicit",
    "K",
    "Law",
    "N",
    "N_ref",
    "Objective",
    "Parameter",
    "Prior",
    "PriorContext",
    "Support",
    "U",
    "h",
    "j",
    "over_sources",
    "own",
    "scalars",
    "vectors",
]


class Law:
    """Base of every law. A subclass sets the class attributes and is exported as one instance.

    Attributes
    ----------
    name, title, citation
        Registry name, readable name, and where it comes from (arXiv id).
    parameters
        In the order of the fitted vector.
    loss
        Expected loss in nats per token, a sympy expression in the parameters, `N`, `D`, `U`, `h[j]` under
        `over_sources`, `h[own]`, the implicit symbol, `N_ref` and `D_ref`.
    implicit
        A quantity that `loss` uses but that has no closed form.
    coupled
        True when one parameter set serves all domains (vectors then run over sources = domains).
    convex_in_weights
        True when the loss is convex in the weights, where none is under `weight_floor`, for all admissible
        parameters; tests hold it to that.
    form
        Name of the program of its own in `lawkit.mixture` that finds its optimum; None where the general solver does.
    weight_floor
        Weights below it are read as it (a law may be infinite at zero).
    objective
        How it is fitted unless the user says otherwise.
    starts
        How many starting points the fit tries.
    """

    name: ClassVar[str] = ""
    title: str = ""
    citation: str = ""
    parameters: tuple[Parameter, ...] = ()
    loss: sp.Expr = sp.Integer(0)
    implicit: Implicit | None = None
    coupled: bool = False
    convex_in_weights: bool = False
    form: str | None = None
    weight_floor: float = 1e-300
    objective: Objective = Objective()
    starts: int = 8
    #: Natural values of parameters that are held, see `with_fixed`.
    fixed: Mapping[str, float] = MappingProxyType({})
    #: The law that they were held in, where any are.
    whole: Law | None = None

    # ---- what the expression says of itself -------------------------------------------------------------

    @cached_property
    def columns(self) -> frozenset[str]:
        """Which inputs it needs: a subset of {'n_params', 'n_tokens', 'unique', 'weights'}."""
        found = self.loss.free_symbols | (self.implicit.equation.free_symbols if self.implicit else set())
        names = {str(s) for s in found}
        out = {c for s, c in (("N", "n_params"), ("D", "n_tokens"), ("U", "unique")) if s in names}
        return frozenset(out | ({"weights"} if "h" in names else set()))

    @cached_property
    def needs_own_source(self) -> bool:
        """True when a domain must be one of the sources (`h[own]` or `b[own]` appears)."""
        return own in self.loss.atoms(Idx)

    @cached_property
    def linear(self) -> tuple[str, ...]:
        """Scalar parameters in which the loss is jointly linear: solved for, not searched."""
        if self.implicit is not None:
            return ()
        # Known nonlinear without differentiating, which takes a minute for a formula of 300 parameters.
        nested = {s for part in self.loss.atoms(sp.Pow, sp.Function) for s in part.free_symbols}
        chosen: list[sp.Symbol] = []
        for p in self.parameters:
            if p.per_source or p.support == "unit":
                continue
            symbol = self._symbol(p)
            if symbol in nested:
                continue
            slope = sp.diff(self.loss, symbol)
            if slope != 0 and not slope.has(symbol, *chosen):
                chosen.append(symbol)
        return tuple(s.name for s in chosen)

    @cached_property
    def linear_own(self) -> tuple[str, ...]:
        """Positive vectors of a coupled law of which a domain's loss has the own element only, jointly linearly."""
        if not self.coupled:
            return ()
        chosen: list[sp.Expr] = []
        for p in self.parameters:
            element = sp.IndexedBase(p.name, positive=True)[own]
            found = [self.loss, self.implicit.equation] if self.implicit else [self.loss]
            elsewhere = {i for e in found for i in e.atoms(sp.Indexed) if i.base.label.name == p.name} - {
                element
            }
            if not p.per_source or p.support != "positive" or elsewhere:
                continue
            slope = sp.diff(self.loss, element)
            if slope != 0 and not slope.has(element, *chosen):
                chosen.append(element)
        return tuple(e.base.label.name for e in chosen)

    def _symbol(self, p: Parameter) -> Any:
        for s in self.loss.free_symbols | (self.implicit.equation.free_symbols if self.implicit else set()):
            if s.name == p.name and isinstance(s, sp.Symbol):  # an IndexedBase's label is a Symbol too
                return s
        raise LawError(f"law {self.name!r} declares a parameter {p.name!r} that its expression does not use")

    @cached_property
    def references(self) -> dict[str, sp.Expr]:
        """Factor between each positive scalar parameter and the number fitted for it.

        A factor may contain parameters that have a factor themselves: they come first.

        Raises
        ------
        LawError
            If factors contain each other.
        """
        out: dict[str, sp.Expr] = {}
        for p in self.parameters:
            if p.reference is not None:
                out[p.name] = p.reference
            elif p.name in self.linear and p.support == "positive":
                slope = sp.diff(self.loss, self._symbol(p))
                if slope.has(sp.Sum) or slope.has(h) or slope.has(U):
                    continue
                factor = 1 / slope.subs({N: N_ref, D: D_ref})
                if factor != 1:
                    out[p.name] = factor
        ordered: dict[str, sp.Expr] = {}
        while len(ordered) < len(out):
            left = out.keys() - ordered.keys()
            ready = [
                name for name in out if name in left and not left & {s.name for s in out[name].free_symbols}
            ]
            if not ready:
                raise LawError(
                    f"law {self.name!r}: the references of {', '.join(sorted(left))} contain each other"
                )
            ordered |= {name: out[name] for name in ready}
        return ordered

    # ---- layout of the parameter vector -----------------------------------------------------------------

    def layout(self, n_sources: int) -> dict[str, slice]:
        """Where each parameter's elements are in the fitted vector."""
        out, at = {}, 0
        for p in self.parameters:
            size = n_sources if p.per_source else 1
            out[p.name] = slice(at, at + size)
            at += size
        return out

    def n_parameters(self, n_sources: int) -> int:
        """Length P of the fitted vector (for a coupled law, shared by all domains)."""
        return sum(n_sources if p.per_source else 1 for p in self.parameters)

    def natural(self, z: np.ndarray, n_ref: float = 1.0, d_ref: float = 1.0) -> dict[str, Any]:
        """Natural parameter values from one fitted vector z (P,): floats, and arrays (K,) for vectors.

        Parameters that are held (`fixed`) come last.
        """
        scalar_count = sum(not p.per_source for p in self.parameters)
        n_vectors = len(self.parameters) - scalar_count
        n_sources = (len(z) - scalar_count) // n_vectors if n_vectors else 0
        where = self.layout(n_sources)
        values: dict[str, Any] = {}
        for p in self.parameters:
            part = np.asarray(z[where[p.name]], float)
            moved = _TO_NATURAL[p.support](part)
            values[p.name] = moved if p.per_source else float(moved[0])
        for name, factor in self.references.items():
            values[name] *= _evaluate(factor, values, n_ref, d_ref)
        return {**values, **self.fixed}

    def unconstrained(self, values: dict[str, Any], n_ref: float = 1.0, d_ref: float = 1.0) -> np.ndarray:
        """The fitted vector z (P,) for natural values; the inverse of `natural`.

        Values of parameters that are held may be left out.

        Raises
        ------
        LawError
            For a missing, unknown or inadmissible value, and for another value of a parameter that is held.
        """
        names = [p.name for p in self.parameters]
        for name in self.fixed.keys() & values.keys():
            if float(values[name]) != self.fixed[name]:
                raise LawError(
                    f"parameter {name} of law {self.name!r} is held at {self.fixed[name]}, got {values[name]}"
                )
        values = {name: value for name, value in values.items() if name not in self.fixed}
        if set(values) != set(names):
            raise LawError(
                f"law {self.name!r} takes the parameters {', '.join(names)}; "
                f"missing {sorted(set(names) - set(values))}, unknown {sorted(set(values) - set(names))}"
            )
        parts = []
        for p in self.parameters:
            value = np.atleast_1d(np.asarray(values[p.name], float))
            if p.name in self.references:
                value = value / _evaluate(self.references[p.name], values, n_ref, d_ref)
            with np.errstate(all="ignore"):
                part = _TO_UNCONSTRAINED[p.support](value)
            if np.isnan(part).any() or (p.support == "positive" and (value < 0).any()):
                raise LawError(
                    f"parameter {p.name} of law {self.name!r} must be {p.support}, got {values[p.name]}"
                )
            parts.append(
                np.clip(part, -700.0, 700.0)
            )  # a published 0.0 for a positive parameter stays finite
        return np.concatenate(parts)

    # ---- priors and starts ------------------------------------------------------------------------------

    def prior(self, context: PriorContext) -> tuple[np.ndarray, np.ndarray]:
        """Prior mean (B, P) and covariance (P, P) on the unconstrained scale.

        Parameters without a prior get a flat one (standard deviation 100).
        """
        where = self.layout(context.n_sources)
        size = self.n_parameters(context.n_sources)
        mean, covariance = np.zeros((len(context.own), size)), np.eye(size) * 1e4
        for p in self.parameters:
            if p.prior is None:
                continue
            part = where[p.name]
            width = part.stop - part.start
            mean[:, part] = p.prior.mean
            if p.prior.relative_to_loss:
                mean[:, part] += np.log(context.lowest_loss[:, : (width if self.coupled else 1)])
            covariance[part, part] = np.eye(width) * p.prior.sd**2 + p.prior.common_sd**2
            if p.prior.own and p.per_source and not self.coupled:
                for b, source in enumerate(context.own[:, 0]):
                    if source >= 0:
                        mean[b, part.start + source] += p.prior.own
        return mean, covariance

    def draw_starts(self, rng: np.random.Generator, context: PriorContext, count: int) -> np.ndarray:
        """Starting vectors (B, count, P): uniform over each `start` range on the unconstrained scale.

        Laws with priors start around the prior mean instead, the first start exactly there.
        """
        n_groups = len(context.own)
        where = self.layout(context.n_sources)
        z = np.empty((n_groups, count, self.n_parameters(context.n_sources)))
        mean = self.prior(context)[0] if any(p.prior for p in self.parameters) else None
        for p in self.parameters:
            part = where[p.name]
            shape = (n_groups, count, part.stop - part.start)
            if p.prior is not None and mean is not None:
                spread = rng.normal(0.0, min(0.3, p.prior.sd), shape)
                spread[:, 0] = 0.0
                z[..., part] = mean[:, None, part] + spread
            else:
                low, high = self.unconstrained_range(p)
                z[..., part] = rng.uniform(low, high, shape)
        return z

    @staticmethod
    def unconstrained_range(p: Parameter) -> tuple[float, float]:
        """A parameter's `start` range on the unconstrained scale."""
        low, high = _TO_UNCONSTRAINED[p.support](np.array(p.start, float))
        return float(low), float(high)

    # ---- parameters that are given ------------------------------------------------------------------------

    def with_fixed(self, **values: float) -> Law:
        """Hold some parameters at given natural values: a law in which only the others are fitted.

        Parameters
        ----------
        **values
            Natural values of scalar parameters, in the units of `parameters`.

        Raises
        ------
        LawError
            For a name that is no scalar parameter, a value outside its support, all parameters at once, or a law
            that is fitted with priors.

        Examples
        --------
        >>> from lawkit import laws
        >>> laws.get("chinchilla").with_fixed(E=1.69, alpha=0.34).text()
        'L = A/N**0.34 + B/D**beta + 1.69'
        """
        scalars = {p.name: p for p in self.parameters if not p.per_source}
        if unknown := sorted(values.keys() - scalars.keys()):
            raise LawError(
                f"law {self.name!r} has no scalar parameter {unknown[0]!r} to hold; it has {', '.join(scalars)}"
            )
        if len(values) == len(self.parameters):
            raise LawError(f"all parameters of law {self.name!r} are held: leave at least one to be fitted")
        if any(p.prior is not None for p in self.parameters):
            raise LawError(f"law {self.name!r} is fitted with priors; none of its parameters can be held")
        if hasattr(self, "formula"):
            raise LawError("to hold a parameter of a formula, write its value into the formula")
        for name, value in values.items():
            allowed = {"positive": value > 0, "unit": 0 < value < 1, "real": True}[scalars[name].support]
            if not (np.isfinite(value) and allowed):
                raise LawError(
                    f"parameter {name} of law {self.name!r} must be {scalars[name].support}, got {value!r}"
                )
        given = {self._symbol(scalars[name]): sp.Float(float(value)) for name, value in values.items()}
        law = type(self)()
        law.whole = self.whole or self
        law.fixed = {**self.fixed, **{name: float(value) for name, value in values.items()}}
        law.parameters = tuple(
            p if p.reference is None else replace(p, reference=p.reference.subs(given))
            for p in self.parameters
            if p.name not in values
        )
        law.loss = self.loss.subs(given)
        if self.implicit is not None:
            law.implicit = Implicit(
                symbol=self.implicit.symbol,
                equation=self.implicit.equation.subs(given),
                lower=sp.sympify(self.implicit.lower).subs(given),
                upper=sp.sympify(self.implicit.upper).subs(given),
            )
        return law

    # ---- numerics and print -----------------------------------------------------------------------------

    @cached_property
    def function(self) -> LawFunction:
        """Compiled prediction and exact derivatives (compiled on first use, kept)."""
        from lawkit.laws._function import LawFunction

        return LawFunction(self)

    def latex(self) -> str:
        """The loss as LaTeX, with the defining equation of an implicit quantity below it."""
        out = r"L = " + sp.latex(self.loss)
        if self.implicit is not None:
            out += r",\quad " + sp.latex(self.implicit.equation) + " = 0"
        return out

    def text(self) -> str:
        """The loss on one line of plain text."""
        out = "L = " + _plain(self.loss)
        if self.implicit is not None:
            out += f",  with {self.implicit.symbol} solving {_plain(self.implicit.equation)} = 0"
        return out

    def __repr__(self) -> str:
        return f"<law {self.name}>"


class _PlainPrinter(sp.printing.str.StrPrinter):
    """`sum_j(k[j]*h[j])` instead of sympy's Sum notation."""

    def _print_Sum(self, expr: sp.Sum) -> str:  # noqa: N802, sympy finds it by this name
        return f"sum_j({self._print(expr.function)})"


def _plain(expr: sp.Expr) -> str:
    return _PlainPrinter().doprint(expr)


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


_TO_NATURAL = {"positive": np.exp, "real": np.asarray, "unit": lambda z: 1 / (1 + np.exp(-z))}
_TO_UNCONSTRAINED = {"positive": np.log, "real": np.asarray, "unit": _logit}


def _evaluate(factor: sp.Expr, values: dict[str, Any], n_ref: float, d_ref: float) -> Any:
    """The factor at natural values: a float, or (K,) where it names vectors."""
    names = {item: sp.Symbol(item.base.label.name) for item in factor.atoms(sp.Indexed)}
    given = {
        name: np.asarray(v, float) for name, v in {**values, N_ref.name: n_ref, D_ref.name: d_ref}.items()
    }
    plain = factor.xreplace(names)
    symbols = sorted(plain.free_symbols, key=str)
    return sp.lambdify(symbols, plain, modules="numpy")(*[given[s.name] for s in symbols])
