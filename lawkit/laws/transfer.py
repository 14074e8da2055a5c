"""Transfer laws: every source lends each domain effective capacity and effective tokens.

With S(h; w) = (w_0 c^g + sum_j w_j h_j^g)^(1/g), a weighted power mean with 0 < g < 1,

    L = E + S(h; r)^-delta + [ (N S(h; q))^-alpha + (D S(h; k))^-beta ]^gamma

with N and D divided by their geometric means over the runs fitted. q says how much model capacity a source's
skills lend the domain, k how much its tokens count, and r what no scale removes. Returns diminish in each weight, so a
blend can beat every pure source; the constant c stands for what generic text teaches. The loss is convex in h: S is
concave and positive, so -log S is convex, and log-sum-exp, exp and positive multiples keep it so.
"""

from __future__ import annotations

import numpy as np
import sympy as sp
from sympy.tensor.indexed import IndexedBase

from lawkit.laws._average import Average
from lawkit.laws._law import (
    D,
    D_ref,
    Law,
    N,
    N_ref,
    Objective,
    Parameter,
    Prior,
    PriorContext,
    h,
    j,
    over_sources,
    scalars,
    vectors,
)

#: Weight of the pseudo-source of generic text, in the units of a mixture weight.
GENERIC = sp.Rational(1, 100)

#: Correlation of a source's worth as capacity, tokens and floor where the runs share one scale: nothing in
#: them could tell the three apart, and differences made up of noise would decide how mixtures rank at other scales.
_TIED = 0.9999

E, alpha, beta, gamma, delta, g = scalars("E alpha beta gamma delta g")
q0, k0, r0 = scalars("q0 k0 r0")
q, k, r = vectors("q k r")


def _log_odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


def _lent(w: IndexedBase, w0: sp.Symbol | None = None, power: sp.Expr = g) -> sp.Expr:
    total = over_sources(w[j] * h[j] ** power)
    return (total if w0 is None else total + w0 * GENERIC**power) ** (1 / power)


def _bracket(capacity: sp.Expr, tokens: sp.Expr) -> sp.Expr:
    return ((N / N_ref * capacity) ** -alpha + (D / D_ref * tokens) ** -beta) ** gamma


_ASYMPTOTE = Parameter(
    name="E", unit="nats/token", prior=Prior(mean=float(np.log(0.45)), sd=0.2, relative_to_loss=True)
)
_COUPLING = Parameter(name="gamma", prior=Prior(mean=-0.5, sd=0.35))
# Means of the exponents depend on how many model sizes inform them: see `_TransferLaw.prior`.
_EXPONENTS = (Parameter(name="alpha", prior=Prior(sd=0.25)), Parameter(name="beta", prior=Prior(sd=0.25)))
_RETURNS = Parameter(name="g", support="unit", prior=Prior(mean=_log_odds(0.7), sd=0.5))


def _vector(name: str, generic: bool, mean: float = 0.0) -> tuple[Parameter, ...]:
    own = Parameter(name=name, per_source=True, prior=Prior(mean=mean, sd=1.5, common_sd=3.0, own=2.5))
    return (Parameter(name=f"{name}0", prior=Prior(mean=mean, sd=1.5)), own) if generic else (own,)


class _TransferLaw(Law):
    citation = "lawkit"
    objective = Objective(kind="relative", sigma=0.008, token_power=0.5)
    convex_in_weights = True
    starts = 3

    def prior(self, context: PriorContext) -> tuple[np.ndarray, np.ndarray]:
        """As declared; exponents by the number of sizes; vectors tied where one scale cannot tell them apart."""
        mean, covariance = super().prior(context)
        where = self.layout(context.n_sources)
        exponent = np.log(0.3 if context.n_model_sizes >= 3 else 0.5)
        mean[:, where["alpha"]] = mean[:, where["beta"]] = exponent
        vectors = [p for p in self.parameters if p.per_source and p.prior is not None]
        blocks = []
        for p in vectors:
            generic = where.get(p.name + "0", slice(0, 0))
            at = np.r_[generic.start : generic.stop, where[p.name].start : where[p.name].stop]
            spread, offset = p.prior.sd**2, p.prior.common_sd**2  # type: ignore[union-attr]
            covariance[np.ix_(at, at)] = np.eye(len(at)) * spread + offset
            blocks.append(at)
        if context.n_scales == 1:
            for a in blocks:
                for b in blocks:
                    if a is not b:
                        covariance[np.ix_(a, b)] = _TIED * covariance[np.ix_(a, a)]
        return mean, covariance


class Transfer(_TransferLaw):
    """E + S(h; r)^-delta + [ (N S(h; q))^-alpha + (D S(h; k))^-beta ]^gamma; 3K + 9 parameters a domain.

    Needs no evaluation domain to be a training source, takes zero weights.

    References
    ----------
    lawkit; see the module's docstring and docs/laws.md.
    """

    name = "transfer"
    title = "Transfer"
    parameters = (
        _ASYMPTOTE,
        _COUPLING,
        *_EXPONENTS,
        _RETURNS,
        Parameter(name="delta", prior=Prior(mean=-0.5, sd=0.5)),
        *_vector("q", generic=True),
        *_vector("k", generic=True),
        *_vector("r", generic=True, mean=4.0),
    )
    loss = E + _lent(r, r0) ** -delta + _bracket(_lent(q, q0), _lent(k, k0))


class TransferPlain(_TransferLaw):
    """E + [ (N S(h; q))^-alpha + (D S(h; k))^-beta ]^gamma without floor and generic text; 2K + 5 parameters.

    References
    ----------
    lawkit; nested in `Transfer`.
    """

    name = "transfer-plain"
    title = "Transfer without floor"
    parameters = (
        _ASYMPTOTE,
        _COUPLING,
        *_EXPONENTS,
        _RETURNS,
        *_vector("q", generic=False),
        *_vector("k", generic=False),
    )
    loss = E + _bracket(_lent(q), _lent(k))


class TransferLinear(_TransferLaw):
    """The plain transfer law with g = 1: effective capacity and tokens linear in the weights; 2K + 4 parameters.

    References
    ----------
    lawkit; nested in `TransferPlain`.
    """

    name = "transfer-linear"
    title = "Transfer, linear in the weights"
    parameters = (
        _ASYMPTOTE,
        _COUPLING,
        *_EXPONENTS,
        *_vector("q", generic=False),
        *_vector("k", generic=False),
    )
    loss = E + _bracket(_lent(q, power=sp.Integer(1)), _lent(k, power=sp.Integer(1)))


class TransferAverage(Average):
    """The mean of `transfer` and `transfer-plain`, each fitted by itself; 5K + 14 parameters.

    The floor of the one and the lack of it in the other err in opposite directions beyond the data, so that their mean
    extrapolates better than either on most tables tried.

    References
    ----------
    lawkit; docs/laws.md gives the comparison.
    """

    name = "transfer-average"
    title = "Transfer, with and without floor"
    citation = "lawkit"


transfer = Transfer()
transfer_plain = TransferPlain()
transfer_linear = TransferLinear()
transfer_average = TransferAverage(transfer, transfer_plain)
