"""A lower bound on the capacity law's loss over boxes of mixtures: its Lagrangian, one source at a time.

With w the weights of the domains' losses, P h what weights of sources are charged, q >= 0 the price of capacity and
mu_i that of source i's own copy of m, the Lagrangian falls into one function per source,

    w_i (c_i e^(-b_i u) + noise_i e^(-a_i s)) + P_i e^s + q e^u + mu_i m_i,    s = log h_i within its limits,

where m_i lies in the box's range and u = max(log H, (s + log(b_i c_i) - m_i) / (b_i + 1)). It is convex in u, so that
the best u at a given s is one number u* clipped: what is left is a function of s in at most four pieces, each a sum of
exponentials that is first convex and then, where P_i < 0, concave. Its least value is found by Newton's method and then
bounded by the tangent there, which needs nothing of Newton's method. Any prices give a bound; those of the optimum give
one that meets it, but for what is not convex, and that shrinks with the square of the box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lawkit.mixture.capacity import CapacityForm

Array = np.ndarray

#: How far from its Newton iterate an inflection may lie.
INFLECTION = 1e-9
#: Rounding errors are at most this part of the sum of all terms.
ROUNDING_ERROR = 1e-14


@dataclass(frozen=True)
class Prices:
    """What the Lagrangian charges.

    Attributes
    ----------
    weights
        (K,) of the losses of the sources' domains, 0 or more.
    linear
        (K,) per unit weight of a source.
    q
        Per unit of capacity, 0 or more.
    mu
        (K,) per unit of each source's copy of m.
    constant
        What is added to the sum over sources, but for capacity's part.
    """

    weights: Array
    linear: Array
    q: float
    mu: Array
    constant: float


class Bounds(NamedTuple):
    """Of n boxes: the bounds (n,), and the s and u where each source (n, K) has its least value."""

    bound: Array
    s: Array
    u: Array


def lower_bounds(
    form: CapacityForm, prices: Prices, s_low: Array, s_high: Array, m_low: Array, m_high: Array
) -> Bounds:
    """Lower bounds over n boxes of log weights (K,), common to all, and of the log multiplier (n,).

    Parameters
    ----------
    form
        The law at one scale.
    prices
        Any.
    s_low, s_high
        (K,) limits of the log weights.
    m_low, m_high
        (n,) limits of m.
    """
    b, steep, offset = form.b, form.b + 1, form.offset
    gain, noise, a = prices.weights * form.c, prices.weights * form.noise, form.a
    P, q, mu = prices.linear, prices.q, prices.mu
    low, high = m_low[:, None], m_high[:, None]
    shape = (len(m_low), len(b))
    # The best u wherever m is free to take it.
    best = _least(
        lambda u: -gain * b * np.exp(-b * u) + q * np.exp(u) - mu * steep,
        lambda u: gain * b * b * np.exp(-b * u) + q * np.exp(u),
        np.full((1, len(b)), form.log_floor), np.full((1, len(b)), form.log_most),
    )  # fmt: skip

    def capacity(u: Array | float) -> Array:
        return gain * np.exp(-b * u) + q * np.exp(u)

    # Four pieces: m at its lower limit, u at its best, m at its upper limit, and u at the floor with any larger m.
    floor_to = steep * form.log_floor - offset
    from_, to = np.maximum(s_low, low + floor_to), np.minimum(s_high, high + steep * form.log_most - offset)
    turn, back = low + steep * best - offset, high + steep * best - offset
    floor_m = np.where(mu >= 0, low, high)
    nothing = np.zeros(shape)
    left = np.stack([from_, np.maximum(from_, turn), np.maximum(from_, back), nothing + s_low])
    right = np.stack([np.minimum(to, turn), np.minimum(to, back), to, np.minimum(s_high, floor_m + floor_to)])
    empty = left > right + 1e-12
    right = np.maximum(left, right)
    fall, rise = b / steep, 1 / steep
    ends = np.stack([low + nothing, nothing, high + nothing, nothing])
    moving = np.array([1.0, 0.0, 1.0, 0.0])[:, None, None]  # whether u follows s
    short = moving * gain * np.exp(-fall * (offset - ends))
    room = moving * q * np.exp(rise * (offset - ends))
    tilt = np.stack([nothing, nothing + mu, nothing, nothing])
    level = np.stack([
        mu * low, nothing + mu * (offset - steep * best) + capacity(best), mu * high,
        mu * floor_m + capacity(form.log_floor),
    ])  # fmt: skip

    def value(s: Array) -> Array:
        return (
            noise * np.exp(-a * s) + P * np.exp(s) + short * np.exp(-fall * s) + room * np.exp(rise * s)
            + tilt * s + level
        )  # fmt: skip

    def slope(s: Array) -> Array:
        return (
            -a * noise * np.exp(-a * s) + P * np.exp(s) - fall * short * np.exp(-fall * s)
            + rise * room * np.exp(rise * s) + tilt
        )  # fmt: skip

    def curve(s: Array) -> Array:
        return (
            a * a * noise * np.exp(-a * s) + P * np.exp(s) + fall**2 * short * np.exp(-fall * s)
            + rise**2 * room * np.exp(rise * s)
        )  # fmt: skip

    bend, sure = right, None
    if (P < 0).any():
        sizes = (a * a * noise, fall**2 * short, rise**2 * room)
        bend, sure = _inflections(sizes, (a + 1, fall + 1, 1 - rise), -P, left, right)
    at = _least(slope, curve, left, bend)
    here, along = value(at), slope(at)
    convex = here + np.minimum(0.0, np.minimum(along * (left - at), along * (bend - at)))
    last = value(right)
    below = np.minimum(convex, last)
    if sure is not None:
        below = np.minimum(
            below, value(bend) - np.minimum(INFLECTION, right - bend) * np.maximum(0.0, -slope(bend))
        )
        below = np.where(sure, below, -np.inf)
    below = np.where(empty, np.inf, below)
    reached = np.where(empty, np.inf, np.minimum(here, last))
    piece = np.argmin(reached, 0)[None]
    s = np.take_along_axis(np.where(last < here, right, at), piece, 0)[0]
    u = np.choose(
        piece[0], [(s + offset - low) / steep, best + nothing, (s + offset - high) / steep, form.log_floor + nothing]
    )  # fmt: skip
    total = float(mu.sum())
    terms = (
        gain * np.exp(-b * form.log_floor) + noise * np.exp(-a * s_low) + np.abs(P) * np.exp(s_high)
        + np.abs(mu) * (np.abs(s_low) + np.abs(offset) + steep * (abs(form.log_floor) + form.log_most))
    ).sum() + 2 * q * form.capacity + abs(prices.constant) + np.abs(P).max()  # fmt: skip
    bound = (
        below.min(0).sum(1) - q * form.capacity + prices.constant - np.maximum(total * m_low, total * m_high)
        - ROUNDING_ERROR * terms
    )  # fmt: skip
    # Infinities that cancel prove nothing.
    return Bounds(np.where(np.isnan(bound), -np.inf, bound), s, u)


def _least(
    slope: Callable[[Array], Array], curve: Callable[[Array], Array], low: Array, high: Array, steps: int = 80
) -> Array:
    """Where convex functions are least between limits, by Newton's method and bisection."""
    low, high = low.copy(), high.copy()
    at = 0.5 * (low + high)
    for k in range(steps):
        d = slope(at)
        high, low = np.where(d > 0, at, high), np.where(d > 0, low, at)
        with np.errstate(all="ignore"):
            new = at - d / curve(at)
        # A step beyond a limit goes to it, or now and then halfway.
        new = (
            np.clip(new, low, high)
            if k % 4
            else np.where((new > low) & (new < high), new, 0.5 * (low + high))
        )
        new = np.where(np.isnan(new), 0.5 * (low + high), new)
        if (np.abs(new - at) < 1e-12).all():
            return new
        at = new
    return at


def _inflections(
    sizes: tuple[Array, ...], powers: tuple[Array, ...], against: Array, left: Array, right: Array
) -> tuple[Array, Array]:
    """Up to where sum sizes * exp(-powers s) >= against, between limits; and whether that is sure to INFLECTION.

    On a logarithmic scale the sum is convex in s and falls: Newton's method from the left never goes too far.
    """
    concave = against > 0
    with np.errstate(divide="ignore"):
        logs = [np.log(size) - np.log(np.where(concave, against, 1.0)) for size in sizes]

    def excess(s: Array) -> tuple[Array, Array]:
        parts = [np.exp(np.minimum(log - power * s, 700.0)) for log, power in zip(logs, powers, strict=True)]
        total = np.maximum(sum(parts), 1e-300)
        return np.log(total), sum(p * power for p, power in zip(parts, powers, strict=True)) / total

    s = left.copy()
    for _ in range(60):
        over, fall = excess(s)
        new = np.where(over > 0, np.minimum(s + over / np.maximum(fall, 1e-300), right), s)
        done = np.abs(new - s) < 1e-12
        s = new
        if done.all():
            break
    sure = (excess(np.minimum(s + INFLECTION, right))[0] <= 0) | (s >= right)
    return np.where(concave, s, right), sure | ~concave
