"""Grids of a study's file: every size with every number of tokens, mixture and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lawkit.errors import LawkitError, StudyError
from lawkit.study._section import Section


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every size with every number of tokens, mixture and seed."""

    path: str
    sizes: tuple[Any, ...]
    tokens: tuple[float, ...]
    mixtures: tuple[Mapping[str, float], ...] | SpaceFilling
    seeds: tuple[int, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def over(self, sources: tuple[str, ...]) -> tuple[Mapping[str, float], ...]:
        """Its mixtures, given all sources that there are."""
        return self.mixtures.mixtures(sources) if isinstance(self.mixtures, SpaceFilling) else self.mixtures


@dataclass(frozen=True, kw_only=True)
class SpaceFilling:
    """Mixtures spread over all there are, half of them evenly and half near the edges.

    Attributes
    ----------
    n, seed
        How many, and which of the many ways to spread them.
    bounds
        Lower and upper limit of a source's weight.
    """

    n: int
    seed: int = 0
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def mixtures(self, sources: tuple[str, ...]) -> tuple[dict[str, float], ...]:
        """The mixtures over these sources, their weights rounded to four digits and summing to 1."""
        from lawkit.design.candidates import space_filling
        from lawkit.mixture.problem import MixtureProblem

        bounds = {name: (low, high) for name, (low, high) in self.bounds.items()}
        problem = MixtureProblem.build(sources, ("loss",), bounds=bounds)
        rounded = space_filling(problem, self.n, self.seed).round(4)
        # What rounding takes or adds goes to the largest weight.
        rounded[range(self.n), rounded.argmax(1)] += 1 - rounded.sum(1)
        return tuple(
            {name: round(float(w), 4) for name, w in zip(sources, row, strict=True) if w > 0}
            for row in rounded
        )


def read_grid(section: Section, trained: bool) -> Grid:
    """One [[grid]]; `trained` says whether its sizes are shapes that torchtitan builds, with a recipe.

    Raises
    ------
    StudyError
        Naming the path of what is missing, unknown or impossible.
    """
    sizes = section.take("sizes")
    seeds = section.wholes("seeds", [0])
    grid = Grid(
        path=section.path,
        sizes=tuple(sizes if isinstance(sizes, list) else [sizes]),
        tokens=tuple(section.sizes("tokens")),
        mixtures=_mixtures(section),
        seeds=tuple(seeds),
        recipe=read_recipe(section) if trained else {},
    )
    section.end()
    check_sizes(section, grid.sizes, trained)
    return grid


def check_sizes(section: Section, sizes: tuple[Any, ...], trained: bool) -> None:
    """Refuse sizes that torchtitan cannot build, or that are no numbers where nothing is built.

    Raises
    ------
    StudyError
        Naming the path of the first.
    """
    from lawkit.backends.torchtitan.ladder import size_from
    from lawkit.io._cells import parse_size

    if not sizes:
        raise section.fail("sizes", [], "it must have at least one entry")
    for i, size in enumerate(sizes):
        try:
            if trained:
                size_from(size)
            elif not 0 < parse_size(size) < math.inf:
                raise ValueError(size)
        except LawkitError as error:
            raise section.fail(f"sizes[{i}]", size, str(error)) from None
        except (ValueError, TypeError, AttributeError):
            rule = 'it must be a number of parameters, such as "7B"'
            raise section.fail(f"sizes[{i}]", size, rule) from None


def _mixtures(section: Section) -> tuple[Mapping[str, float], ...] | SpaceFilling:
    value = section.take("mixtures")
    if isinstance(value, Mapping) and "n" in value:
        inner = Section(value, section.at("mixtures"), section.file)
        bounds = Section(inner.take("bounds", {}), inner.at("bounds"), section.file)
        limits = {}
        for name in bounds.keys:
            pair = bounds.take(name)
            good = (
                isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, (int, float)) for x in pair)
            )
            if not good or not 0 <= pair[0] <= pair[1] <= 1:
                raise bounds.fail(name, pair, "it must be a lower and an upper limit, such as [0, 0.5]")
            limits[name] = (float(pair[0]), float(pair[1]))
        filling = SpaceFilling(n=inner.whole("n", least=1), seed=inner.whole("seed", 0), bounds=limits)
        inner.end()
        return filling
    if not isinstance(value, list) or not value:
        raise section.fail(
            "mixtures",
            value,
            "it must be a list of mixtures such as [{web = 0.5, hq = 0.5}], or {n = 12, seed = 0}",
        )
    for i, mixture in enumerate(value):
        where = f"mixtures[{i}]"
        if not isinstance(mixture, Mapping) or not mixture:
            raise section.fail(where, mixture, "it must be weights by source, such as {web = 0.5, hq = 0.5}")
        for name, weight in mixture.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
                raise section.fail(f"{where}.{name}", weight, "it must be a number from 0 to 1")
        if abs(sum(mixture.values()) - 1) > 1e-3:
            raise section.fail(
                where, dict(mixture), f"its weights sum to {sum(mixture.values()):.6g}, not to 1"
            )
    return tuple(value)


def read_recipe(section: Section) -> dict[str, Any]:
    """The table recipe of a section: fields that differ from the defaults.

    Raises
    ------
    StudyError
        For a field that is unknown or has an impossible value.
    """
    from lawkit.backends.torchtitan.ladder import LAPTOP
    from lawkit.backends.torchtitan.recipe import recipe_for

    recipe = section.take("recipe", {})
    if not isinstance(recipe, Mapping):
        raise section.fail("recipe", recipe, "it must be a table of a recipe's fields")
    try:
        recipe_for(LAPTOP[0], recipe)  # the names and kinds of fields are the same for all sizes
    except LawkitError as error:
        raise StudyError(f"{section.file}: {section.path + '.' if section.path else ''}{error}") from None
    return dict(recipe)
