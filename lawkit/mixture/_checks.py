"""Names and numbers that users write, checked one at a time."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lawkit.errors import OptimizeError


def listed(parts: Sequence[str], most: int = 12) -> str:
    """Names in a sentence, no more than `most` of them."""
    extra = [f"and {len(parts) - most} more"] if len(parts) > most else []
    return ", ".join([*parts[:most], *extra])


def place(name: Any, places: Mapping[str, int], what: str, argument: str) -> int:
    """Number of a source or domain.

    Raises
    ------
    OptimizeError
        For an unknown one, with the nearest that is known.
    """
    if isinstance(name, str) and name in places:
        return places[name]
    close = difflib.get_close_matches(str(name), places, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise OptimizeError(
        f"{argument} names an unknown {what} {name!r}; {hint}the fit knows {listed(list(places))}"
    )


def number(value: Any, argument: str, unit: str) -> float:
    """A finite number.

    Raises
    ------
    OptimizeError
        For anything else.
    """
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        out = float(value)
    except (TypeError, ValueError):
        raise OptimizeError(f"{argument} must be a number ({unit}), got {value!r}") from None
    if not math.isfinite(out):
        raise OptimizeError(f"{argument} must be a finite number ({unit}), got {value!r}")
    return out


def positive(value: Any, argument: str, unit: str) -> float:
    """A finite number of 0 or more.

    Raises
    ------
    OptimizeError
        For anything else.
    """
    out = number(value, argument, unit)
    if out < 0:
        raise OptimizeError(f"{argument} must be {unit}, 0 or more, got {out:g}")
    return out


def pair(limits: Any, argument: str) -> tuple[float, float]:
    """(lower, upper) fractions of a mixture; None for no limit.

    Raises
    ------
    OptimizeError
        For anything else.
    """
    try:
        if isinstance(limits, (str, Mapping)):
            raise TypeError
        low, high = limits
    except (TypeError, ValueError):
        raise OptimizeError(f"{argument} must be a pair (lower, upper), got {limits!r}") from None
    low = 0.0 if low is None else number(low, f"{argument}, lower bound,", "a fraction from 0 to 1")
    high = 1.0 if high is None else number(high, f"{argument}, upper bound,", "a fraction from 0 to 1")
    for value in (low, high):
        if not 0 <= value <= 1:
            hint = f"; for {value:g}% write {value / 100:g}" if 1 < value <= 100 else ""
            raise OptimizeError(f"{argument} must be fractions from 0 to 1, got {value:g}{hint}")
    if low > high:
        raise OptimizeError(f"{argument}: the lower bound {low:g} is above the upper bound {high:g}")
    return low, high


def epochs(max_epochs: Any, places: Mapping[str, int]) -> np.ndarray:
    """Passes over each source's unique tokens (K,), 4 for those not named.

    Raises
    ------
    OptimizeError
        For unknown sources and numbers that are not positive.
    """
    out = np.full(len(places), 4.0)
    if isinstance(max_epochs, Mapping):
        given = {place(name, places, "source", "max_epochs"): value for name, value in max_epochs.items()}
    else:
        given = dict.fromkeys(places.values(), max_epochs)
    for i, value in given.items():
        out[i] = number(value, "max_epochs", "passes over a source's unique tokens")
        if out[i] <= 0:
            raise OptimizeError(f"max_epochs must be above 0, got {value!r}")
    return out


def target_weights(target: Mapping[str, float] | None, domains: Sequence[str]) -> np.ndarray:
    """Weight of each domain's loss in the objective (E,), sum 1; see `MixtureProblem.build`."""
    if target is None:
        return np.full(len(domains), 1 / len(domains))
    places = {d: i for i, d in enumerate(domains)}
    out = np.zeros(len(domains))
    for name, value in target.items():
        i = place(name, places, "domain", "target")
        out[i] = number(value, f"target[{name!r}]", "a domain's weight in the objective")
        if out[i] < 0:
            raise OptimizeError(f"target[{name!r}] must be 0 or more, got {out[i]:g}")
    if out.sum() <= 0:
        raise OptimizeError(f"target gives no domain a positive weight: name one of {listed(domains)}")
    return out / out.sum()


def mixture(given: Mapping[str, float], sources: Sequence[str], argument: str) -> np.ndarray:
    """A mixture (K,) from weights by source that sum to 1 within 1e-3.

    Raises
    ------
    OptimizeError
        For an unknown source, a weight that is no fraction, and another sum; `argument` names the mixture.
    """
    out, places = np.zeros(len(sources)), {s: i for i, s in enumerate(sources)}
    for name, value in given.items():
        i = place(name, places, "source", argument)
        out[i] = number(value, f"{argument}[{name!r}]", "a fraction from 0 to 1")
        if not 0 <= out[i] <= 1:
            raise OptimizeError(f"{argument}[{name!r}] must be a fraction from 0 to 1, got {out[i]:g}")
    if abs(out.sum() - 1) > 1e-3:
        raise OptimizeError(f"the weights of {argument} sum to {out.sum():.6g}: they must sum to 1")
    return out / out.sum()


def tail(text: Any, argument: str, words: Sequence[str]) -> tuple[str, float]:
    """('cvar', .9) of 'cvar:.9', ('mean', 0.) of 'mean'; `words` are those allowed, with ':' where a level follows.

    Raises
    ------
    OptimizeError
        For anything else, and a level outside [0, 1).
    """
    told = f"{argument} must be one of {', '.join(w + '.9' if w.endswith(':') else w for w in words)}, got {text!r}"
    if not isinstance(text, str):
        raise OptimizeError(told)
    word, colon, level = text.strip().partition(":")
    if word + colon not in words:
        raise OptimizeError(told)
    if not colon:
        return word, 0.0
    try:
        share = float(level[:-1]) / 100 if level.endswith("%") else float(level)
    except ValueError:
        raise OptimizeError(told) from None
    if not 0 <= share < 1:
        hint = f"; did you mean {word}:{share / 100:g}?" if 1 < share < 100 else ""
        raise OptimizeError(
            f"{argument}: the level of {text!r} must be from 0 to below 1, as in {word}:.9{hint}"
        )
    return word, share
