"""Constraints of a mixture from a YAML file or a mapping: every value checked, the bad key's path named."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lawkit.errors import OptimizeError
from lawkit.io._cells import parse_size
from lawkit.mixture import _checks

#: What a file may hold, in the order of the documentation.
KEYS = (
    "bounds", "groups", "available", "max_epochs", "prior", "max_ratio", "max_kl", "max_loss", "generation", "target",
    "over", "risk",
)  # fmt: skip


def read_constraints(given: Any, sources: Sequence[str], domains: Sequence[str]) -> dict[str, Any]:
    """Arguments of `MixtureProblem.build`, and `risk`, from what a user wrote.

    Parameters
    ----------
    given
        A path of a YAML file, or a mapping of the same keys; None for none. Fractions may be written as '50%',
        amounts as '20B'::

            bounds: {hq: {lower: .1, upper: 50%}}
            groups: {synthetic: {sources: [hq, qa], upper: .5}}
            available: {web: 2T, hq: 20B}     # unique tokens
            max_epochs: 4                     # or by source
            prior: {web: .7, hq: .2, qa: .1}
            max_ratio: 3                      # weight <= 3 x prior; or by source
            max_kl: .1                        # nats of divergence from the prior
            max_loss: {wiki: 2.1}             # nats per token
            generation: {cost: {hq: 2e12}, budget: 1e22}   # flops per token, flops
            target: {wiki: 2, code: 1}
            over: mean                        # over domains; or max, cvar:.8
            risk: cvar:.9                     # over draws; or mean, quantile:.9, point

    sources, domains
        All that the fit knows.

    Raises
    ------
    OptimizeError
        Naming the path of the first key or value that makes no sense.
    """
    if given is None:
        return {}
    where = "constraints"
    if isinstance(given, (str, Path)):
        where, given = Path(given).name, _load(Path(given))
    _mapping(given, where)
    reader = _Reader(where, sources, domains)
    return {key: reader.read(key, value) for key, value in reader.known(given, KEYS, ()).items()}


def merged(read: Mapping[str, Any], **flags: Any) -> dict[str, Any]:
    """What a file says with what was said beside it.

    Bounds on one source or group hold both; otherwise what was said beside wins, by name where both are mappings.

    Raises
    ------
    OptimizeError
        For bounds that leave nothing between them, and a group of other sources under a name that is taken.
    """
    out = dict(read)
    for key, value in flags.items():
        if value is None:
            continue
        if not (isinstance(value, Mapping) and isinstance(out.get(key), Mapping)):
            out[key] = value
            continue
        both = {**out[key], **value}
        for name in set(out[key]) & set(value):
            if key == "bounds":
                both[name] = _narrower(f"bounds of {name!r}", out[key][name], _checks.pair(value[name], name))
            elif key == "groups":
                both[name] = _same_group(name, out[key][name], value[name])
        out[key] = both
    return out


def _same_group(name: str, first: Mapping[str, Any], second: Any) -> Any:
    """The limits of two groups of one name and the same sources."""
    if not isinstance(second, Mapping) or "sources" not in second:
        return second  # refused where groups are read
    if set(first["sources"]) != set(second["sources"]):
        raise OptimizeError(f"groups[{name!r}] comes twice, with other sources: give each a name of its own")
    pair = _checks.pair((second.get("lower"), second.get("upper")), f"groups[{name!r}]")
    low, high = _narrower(f"groups[{name!r}]", (first["lower"], first["upper"]), pair)
    return {"sources": first["sources"], "lower": low, "upper": high}


def _narrower(what: str, first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """What two pairs of limits leave."""
    low, high = max(first[0], second[0]), min(first[1], second[1])
    if low > high:
        raise OptimizeError(
            f"{what}: the constraints say {first[0]:g} to {first[1]:g}, the option {second[0]:g} to {second[1]:g}, "
            "which leaves nothing: both hold, so change one"
        )
    return low, high


def _load(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that comes twice."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(k, deep=True) for k, _ in node.value]
            for i, key in enumerate(keys):
                if key in keys[:i]:
                    line = node.value[i][0].start_mark.line + 1
                    raise OptimizeError(f"{path.name}: line {line}: {key!r} comes twice: give it once")
            return super().construct_mapping(node, deep)

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptimizeError(f"{path}: cannot be read as a file of constraints ({error})") from None
    try:
        found = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise OptimizeError(f"{path.name} is no YAML: {' '.join(str(error).split())}") from None
    return {} if found is None else found


def _mapping(value: Any, where: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise OptimizeError(f"{where}: must be keys and values, got {value!r}")
    return value


class _Reader:
    """Reads one value a key; `where` is what messages start with."""

    def __init__(self, where: str, sources: Sequence[str], domains: Sequence[str]) -> None:
        self.where, self.names = where, {"source": tuple(sources), "domain": tuple(domains)}

    def fail(self, path: Sequence[str], value: Any, rule: str) -> OptimizeError:
        return OptimizeError(f"{self.where}: {'.'.join(path)}: {value!r}: {rule}")

    def known(self, value: Any, keys: Sequence[str], path: Sequence[str]) -> Mapping[str, Any]:
        """A mapping with no other keys."""
        place = ".".join([f"{self.where}:", *path]).replace(":.", ": ").rstrip(":")
        for key in _mapping(value, place):
            if key not in keys:
                close = difflib.get_close_matches(str(key), keys, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise OptimizeError(f"{place}: unknown key {key!r}; {hint}known are {', '.join(keys)}")
        return value

    def read(self, key: str, value: Any) -> Any:
        path = (key,)
        if key == "bounds":
            return {n: self.range(v, (*path, n)) for n, v in self.by(value, "source", path).items()}
        if key == "groups":
            groups = _mapping(value, f"{self.where}: groups")
            names = [str(n) for n in groups]
            if twice := next((n for n in names if names.count(n) > 1), None):
                raise OptimizeError(
                    f"{self.where}: groups: {twice!r} comes twice: give each group a name of its own"
                )
            return {str(n): self.group(v, (*path, str(n))) for n, v in groups.items()}
        if key == "available":
            return {n: self.amount(v, (*path, n)) for n, v in self.by(value, "source", path).items()}
        if key in ("max_epochs", "max_ratio"):
            if isinstance(value, Mapping):
                return {n: self.amount(v, (*path, n)) for n, v in self.by(value, "source", path).items()}
            return self.amount(value, path)
        if key == "prior":
            weights = {n: self.fraction(v, (*path, n)) for n, v in self.by(value, "source", path).items()}
            if abs(math.fsum(weights.values()) - 1) > 1e-3:
                total = math.fsum(weights.values())
                raise OptimizeError(
                    f"{self.where}: prior: the weights sum to {total:.6g}: they must sum to 1"
                )
            return weights
        if key in ("max_loss", "target"):
            return {n: self.amount(v, (*path, n)) for n, v in self.by(value, "domain", path).items()}
        if key == "generation":
            given = self.known(value, ("cost", "budget"), path)
            if "cost" not in given:
                raise self.fail(path, value, "must have cost: source to flops per token")
            cost = self.by(given["cost"], "source", (*path, "cost"))
            out: dict[str, Any] = {"cost": {n: self.amount(v, (*path, "cost", n)) for n, v in cost.items()}}
            if "budget" in given:
                out["budget"] = self.amount(given["budget"], (*path, "budget"))
            return out
        if key == "max_kl":
            return self.amount(value, path)
        if not isinstance(value, str):  # over, risk
            raise self.fail(path, value, "must be a word such as mean or cvar:.9")
        return value

    def by(self, value: Any, what: str, path: Sequence[str]) -> Mapping[str, Any]:
        """A mapping from names that the fit knows."""
        for name in _mapping(value, f"{self.where}: {'.'.join(path)}"):
            self.name(name, what, path)
        return value

    def name(self, name: Any, what: str, path: Sequence[str]) -> str:
        names = self.names[what]
        if isinstance(name, str) and name in names:
            return name
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        some = ", ".join(names[:12]) + (f", and {len(names) - 12} more" if len(names) > 12 else "")
        raise OptimizeError(
            f"{self.where}: {'.'.join(path)}: unknown {what} {name!r}; {hint}the fit knows {some}"
        )

    def range(self, value: Any, path: Sequence[str]) -> tuple[float, float]:
        given = self.known(value, ("lower", "upper"), path)
        low = self.fraction(given["lower"], (*path, "lower")) if "lower" in given else 0.0
        high = self.fraction(given["upper"], (*path, "upper")) if "upper" in given else 1.0
        if low > high:
            raise self.fail(path, dict(given), f"the lower limit {low:g} is above the upper limit {high:g}")
        return low, high

    def group(self, value: Any, path: Sequence[str]) -> dict[str, Any]:
        given = self.known(value, ("sources", "lower", "upper"), path)
        members = given.get("sources")
        if not isinstance(members, list) or not members:
            raise self.fail((*path, "sources"), members, "must be a list of sources")
        for name in members:
            self.name(name, "source", (*path, "sources"))
        low, high = self.range({k: v for k, v in given.items() if k != "sources"}, path)
        return {"sources": members, "lower": low, "upper": high}

    def fraction(self, value: Any, path: Sequence[str]) -> float:
        rule, number = "must be a fraction from 0 to 1", math.nan
        percent = isinstance(value, str) and value.strip().endswith("%")
        if percent:
            rule = "must be a percentage from 0% to 100%"
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            text = str(value).strip().removesuffix("%")
            try:
                number = float(text) / (100 if percent else 1)
            except ValueError:
                number = math.nan
        if not math.isfinite(number):
            raise self.fail(path, value, rule)
        if not 0 <= number <= 1:
            hint = (
                f"; did you mean {number / 100:g} or '{number:g}%'?"
                if 1 < number <= 100 and not percent
                else ""
            )
            raise self.fail(path, value, rule + hint)
        return number

    def amount(self, value: Any, path: Sequence[str]) -> float:
        try:
            number = parse_size(value)
        except (ValueError, TypeError, ArithmeticError):
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            raise self.fail(path, value, "must be a number of 0 or more, such as 20B or 2e12")
        return number
