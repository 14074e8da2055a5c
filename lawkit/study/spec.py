"""A study's file: which runs are trained, on what, and how."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.errors import LawkitError, StudyError
from lawkit.study._section import Section

if TYPE_CHECKING:
    from lawkit.backends.torchtitan.spec import TrainingSpec
    from lawkit.corpus import Corpus

#: Name of the file in the folder of a study.
FILE = "study.toml"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a study may use of the machine.

    Attributes
    ----------
    workers
        Runs at a time; None: as many as the machine takes.
    ranks, threads
        Processes that train one run together, and processor threads of each; the losses depend on both in their
        last bits.
    retries
        How often a run that failed is tried again, where it was not the run's own fault.
    silent_s
        Seconds without a sign of life after which a worker is taken to hang.
    run_s
        Seconds that one run may take; None: any number.
    python
        Interpreter that has torch; None: ours.
    """

    workers: int | None = None
    ranks: int = 1
    threads: int = 1
    retries: int = 1
    silent_s: float = 1800.0
    run_s: float | None = None
    python: str | None = None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every size with every number of tokens, mixture and seed."""

    path: str
    sizes: tuple[Any, ...]
    tokens: tuple[float, ...]
    mixtures: tuple[Mapping[str, float], ...] | SpaceFilling
    seeds: tuple[int, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)


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


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """What a study's file says."""

    path: Path
    corpus: Path
    grids: tuple[Grid, ...]
    limits: Limits = field(default_factory=Limits)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    available: Mapping[str, int] = field(default_factory=dict)

    def plan(self, corpus: Corpus) -> list[TrainingSpec]:
        """All runs of the grids, each once, in their order.

        Raises
        ------
        StudyError
            When one of them cannot be done; the message names the grid.
        """
        from lawkit.backends.torchtitan import plan

        runs: dict[str, TrainingSpec] = {}
        for grid in self.grids:
            try:
                mixtures = grid.mixtures
                if isinstance(mixtures, SpaceFilling):
                    mixtures = mixtures.mixtures(corpus.sources)
                for size in grid.sizes:
                    for tokens in grid.tokens:
                        for weights in mixtures:
                            for seed in grid.seeds:
                                run = plan(
                                    corpus,
                                    corpus.path,
                                    size=size,
                                    n_tokens=tokens,
                                    weights=weights,
                                    seed=seed,
                                    recipe={**self.recipe, **grid.recipe},
                                    available=self.available,
                                )
                                runs.setdefault(run.identity, run)
            except LawkitError as error:
                raise StudyError(f"{self.path}: {grid.path}: {error}") from None
        return list(runs.values())


def read_study(folder: str | Path) -> StudySpec:
    """Read the file of a study and check all that can be checked without its corpus.

    Raises
    ------
    StudyError
        When there is no such file, or a key in it is missing, unknown or has an impossible value; the message names
        its path.
    """
    path = Path(folder) / FILE
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{folder} is no study: it has no {FILE}; lawkit study init makes one") from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} is no TOML: {error}") from None
    top = Section(value, "", str(path))
    corpus = path.parent / Path(top.text("corpus")).expanduser()
    limits = _limits(Section(top.take("limits", {}), "limits", str(path)))
    available = Section(top.take("available", {}), "available", str(path))
    tokens = {name: int(available.size(name)) for name in available.keys}
    recipe = _recipe(top)
    grids = top.take("grid", [])
    if not isinstance(grids, list) or not grids:
        raise StudyError(f"{path}: grid is missing: a study has at least one [[grid]] of runs")
    parsed = tuple(_grid(Section(grid, f"grid[{i}]", str(path))) for i, grid in enumerate(grids))
    top.end()
    return StudySpec(path=path, corpus=corpus, grids=parsed, limits=limits, recipe=recipe, available=tokens)


def _limits(section: Section) -> Limits:
    default = Limits()
    limits = Limits(
        workers=section.whole("workers", None, least=1),
        ranks=section.whole("ranks", default.ranks, least=1),
        threads=section.whole("threads", default.threads, least=1),
        retries=section.whole("retries", default.retries),
        silent_s=section.seconds("silent_s", default.silent_s),
        run_s=section.seconds("run_s", None),
        python=section.text("python", None),
    )
    section.end()
    return limits


def _grid(section: Section) -> Grid:
    sizes = section.take("sizes")
    seeds = section.wholes("seeds", [0])
    grid = Grid(
        path=section.path,
        sizes=tuple(sizes if isinstance(sizes, list) else [sizes]),
        tokens=tuple(section.sizes("tokens")),
        mixtures=_mixtures(section),
        seeds=tuple(seeds),
        recipe=_recipe(section),
    )
    section.end()
    _check_sizes(section, grid.sizes)
    return grid


def _check_sizes(section: Section, sizes: tuple[Any, ...]) -> None:
    from lawkit.backends.torchtitan.ladder import size_from

    if not sizes:
        raise section.fail("sizes", [], "it must have at least one entry")
    for i, size in enumerate(sizes):
        try:
            size_from(size)
        except LawkitError as error:
            raise section.fail(f"sizes[{i}]", size, str(error)) from None


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


def _recipe(section: Section) -> dict[str, Any]:
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
