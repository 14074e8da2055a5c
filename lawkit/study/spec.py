"""A study's file: what is to be decided, which runs are trained for it, on what, and how."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.errors import LawkitError, StudyError
from lawkit.study._section import Section
from lawkit.study.goal import Goal, read_goal
from lawkit.study.grid import Grid, read_grid, read_recipe
from lawkit.study.sources import BuiltCorpus, read_built_corpus

if TYPE_CHECKING:
    from lawkit.study.bench import Bench, PlannedRun

#: Name of the file in the folder of a study.
FILE = "study.toml"
TRAINED = "torchtitan"
#: What it may have.
_KEYS = (
    "backend", "corpus", "generated", "limits", "available", "recipe", "executor", "target", "constraints", "ladder",
    "loop", "grid",
)  # fmt: skip


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
class StudySpec:
    """What a study's file says.

    Attributes
    ----------
    path
        Of the file.
    corpus
        Folder of the corpus; None where nothing is trained, or the corpus has yet to be made.
    built
        What the corpus is made of, where the study makes it.
    backend, options
        Where runs come from: a name, and what its table says beside it.
    grids
        Runs that are done in any case, before all others.
    goal
        What is to be decided; None: the grids are all.
    executor, executor_options
        Where runs are done: a name, and what its table says beside it.
    limits, recipe, available
        See docs/training.md.
    """

    path: Path
    corpus: Path | None
    built: BuiltCorpus | None = None
    backend: str = TRAINED
    options: Mapping[str, Any] = field(default_factory=dict)
    grids: tuple[Grid, ...] = ()
    goal: Goal | None = None
    executor: str = "local"
    executor_options: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    available: Mapping[str, int] = field(default_factory=dict)

    def plan(self, bench: Bench) -> list[PlannedRun]:
        """All runs of the grids, each once, in their order.

        Raises
        ------
        StudyError
            When one of them cannot be done; the message names the grid.
        """
        runs: dict[str, PlannedRun] = {}
        for grid in self.grids:
            try:
                mixtures = grid.over(bench.sources)
                for size in grid.sizes:
                    for tokens in grid.tokens:
                        for weights in mixtures:
                            for seed in grid.seeds:
                                run = bench.plan(size, tokens, weights, seed, grid.recipe)
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
    # First, since what is missing may only be misspelt.
    top.only(_KEYS)
    backend, options = _named(top, "backend", TRAINED)
    trained = backend == TRAINED
    corpus = top.take("corpus") if trained else None
    generated = top.take("generated", None) if trained else None
    built = None
    if isinstance(corpus, Mapping):
        built = read_built_corpus(corpus, {} if generated is None else generated, str(path))
    elif trained and not (isinstance(corpus, str) and corpus):
        raise top.fail("corpus", corpus, "it must be a folder, or a table with the sources to build it from")
    elif generated is not None:
        rule = "a corpus that is built already takes no new source: make [corpus] a table with its sources"
        raise top.fail("generated", generated, rule)
    limits = _limits(Section(top.take("limits", {}), "limits", str(path)))
    recipe, tokens = {}, {}
    if trained:
        available = Section(top.take("available", {}), "available", str(path))
        tokens = {name: int(available.size(name)) for name in available.keys}
        recipe = read_recipe(top)
        if options:
            raise top.fail(
                "backend", {"name": backend, **options}, f"{TRAINED} has no options here: see [recipe]"
            )
    executor, executor_options = _named(top, "executor", "local")
    goal = read_goal(top, trained)
    grids = top.take("grid", [])
    if not isinstance(grids, list) or (not grids and goal is None):
        raise StudyError(
            f"{path}: grid is missing: a study has at least one [[grid]] of runs, or a [target] to choose them for"
        )
    parsed = tuple(read_grid(Section(grid, f"grid[{i}]", str(path)), trained) for i, grid in enumerate(grids))
    top.end()
    return StudySpec(
        path=path,
        corpus=path.parent / Path(corpus).expanduser() if isinstance(corpus, str) else None,
        built=built,
        backend=backend,
        options=options,
        grids=parsed,
        goal=goal,
        executor=executor,
        executor_options=executor_options,
        limits=limits,
        recipe=recipe,
        available=tokens,
    )


def _named(top: Section, key: str, default: str) -> tuple[str, dict[str, Any]]:
    """A plug-in by its name, or a table of its name and options, which the plug-in itself checks."""
    value = top.take(key, default)
    if isinstance(value, str):
        value = {"name": value}
    section = Section(value, key, top.file)
    name = section.text("name")
    return name, {option: section.take(option) for option in section.keys}


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
