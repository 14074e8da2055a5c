"""Build the corpus of a study, after generating of some sources what its runs need of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.errors import LawkitError, StudyError
from lawkit.study.executors import check_reachable
from lawkit.study.sources import GENERATED, GeneratedSource
from lawkit.study.spending import MADE, check_pays
from lawkit.study.store import Store

if TYPE_CHECKING:
    from lawkit.corpus import Corpus
    from lawkit.generators import Generated
    from lawkit.study.spec import StudySpec

#: Folder of the corpora in a study's.
CORPORA = "corpora"
#: Key of the store for how many tokens were asked for on the way to the corpus.
_ASKED = "generating"
#: How often more is generated where the corpus counts fewer tokens than the model, and how much beyond proportion.
_MORE, _MARGIN = 3, 1.02


def needs(spec: StudySpec) -> dict[str, float]:
    """Training tokens that the runs of a study need of each generated source, at most.

    Raises
    ------
    StudyError
        Where a mixture names a source that there is not, or the constraints make no sense.
    """
    from lawkit.mixture.constraints import read_constraints
    from lawkit.mixture.problem import MixtureProblem

    built, goal = spec.built, spec.goal
    assert built is not None
    found = {source.name: source.tokens for source in built.generated}
    for grid in spec.grids:
        try:
            mixtures = grid.over(built.names)
        except LawkitError as error:
            raise StudyError(f"{spec.path}: {grid.path}: {error}") from None
        for i, mixture in enumerate(mixtures):
            for name, weight in mixture.items():
                if name not in built.names:
                    there = ", ".join(built.names)
                    raise StudyError(
                        f"{spec.path}: {grid.path}.mixtures[{i}].{name}: no such source; there are {there}"
                    )
                if name in found:
                    found[name] = max(found[name], weight * max(grid.tokens))
    if goal is not None and goal.ladder is not None:
        try:
            asked = read_constraints(goal.constraints, built.names, built.names)
            asked.pop("risk", None)
            problem = MixtureProblem.build(built.names, built.names, n_tokens=goal.n_tokens, **asked)
        except LawkitError as error:
            raise StudyError(f"{spec.path}: {error}") from None
        epochs = asked.get("max_epochs") or {}
        for name, upper in zip(built.names, problem.upper.tolist(), strict=True):
            if name in found:
                times = epochs.get(name, 1.0) if isinstance(epochs, Mapping) else epochs
                found[name] = max(found[name], upper * max(goal.ladder.tokens) / max(times, 1.0))
    # A run never sees more than [available] says.
    return {name: min(need, spec.available.get(name, math.inf)) for name, need in found.items()}


def made_corpus(spec: StudySpec, store: Store) -> StudySpec | None:
    """The study with the corpus that was made for it; None where one has yet to be made.

    Raises
    ------
    StudyError
        When runs are done on a corpus that is not what the file asks for now, or has too few tokens.
    """
    assert spec.built is not None
    made = store.kept(MADE)
    if made is None:
        return None
    now = spec.built.asked
    changed = [
        key if key == "generated" else f"corpus.{key}" for key in now if now[key] != made["asked"][key]
    ]
    grown = [(name, need) for name, need in needs(spec).items() if need > made["needs"].get(name, 0.0)]
    done = len(store.in_state("done"))
    if done and (changed or grown):
        why = f"{', '.join(changed)} changed"
        if not changed:
            name, need = grown[0]
            why = f"the runs need {need:,.0f} tokens of {name} now, and it was generated for {made['needs'][name]:,.0f}"
        raise StudyError(
            f"{spec.path}: {why}, but {done} runs were trained on the corpus as it is, which new ones could not be "
            "compared with: change it back, or start a study in a new folder (a larger generated.NAME.tokens leaves "
            "room for later runs)"
        )
    folder = spec.path.parent / made["folder"]
    return replace(spec, corpus=folder) if folder.is_dir() and not changed and not grown else None


def targets_of(spec: StudySpec, store: Store) -> dict[str, float]:
    """Tokens to generate of each source, as the model counts them, so that the corpus trains on what runs need.

    What was asked for before a study was killed is asked for again, so that the same corpus comes of it.
    """
    assert spec.built is not None
    wanted, before = needs(spec), store.kept(_ASKED) or {}
    if before.get("needs") == wanted:
        return before["targets"]
    return {name: need / (1 - spec.built.options["holdout"]) for name, need in wanted.items()}


def make_corpus(spec: StudySpec, tell: Callable[[str], None]) -> StudySpec:
    """Generate what is missing, build the corpus, and return the study with it.

    Once a run is done the corpus stays as it is, and nothing is read, generated or built.

    Raises
    ------
    StudyError
        When the text cannot be had or made, a source is too small for what is needed, or the corpus is fixed.
    """
    assert spec.built is not None
    with Store(spec.path.parent) as store:
        known = made_corpus(spec, store)
        if known is not None and store.in_state("done"):
            return known
        # The runs come long after the text: what they need should be there.
        check_reachable(spec)
        wanted, targets = needs(spec), targets_of(spec, store)
        for attempt in range(_MORE + 1):
            check_pays(spec, missing(spec, targets))
            store.keep(_ASKED, {"needs": wanted, "targets": targets})
            texts = {source.name: _generate(spec, source, targets, tell) for source in spec.built.generated}
            tell("building the corpus")
            corpus = _build(spec, texts)
            short = {
                name: need / corpus.n_tokens(name)
                for name, need in wanted.items()
                if corpus.n_tokens(name) < need
            }
            if not short:
                break
            for name in short:
                found = texts[name]
                if found.tokens < targets[name] or attempt == _MORE:
                    has = corpus.n_tokens(name)
                    more = math.ceil((wanted[name] - has) * found.documents / max(has, 1))
                    lost = f" ({found.failed.total():,} requests failed)" if found.failed else ""
                    raise StudyError(
                        f"{spec.path}: generated.{name} gives {has:,} tokens, and the runs need {wanted[name]:,.0f}: "
                        f"its source lacks about {more:,} documents beside the {found.documents:,} that were used"
                        f"{lost}. Add them at its end, or ask for fewer tokens"
                    )
                targets[name] *= short[name] * _MARGIN
        told = [_told(source, wanted[source.name], texts[source.name]) for source in spec.built.generated]
        for entry in told:
            entry["corpus_tokens"] = corpus.n_tokens(entry["name"])
        place = f"{CORPORA}/{corpus.path.name}"
        store.keep(MADE, {"asked": spec.built.asked, "needs": wanted, "folder": place, "generated": told})
    return replace(spec, corpus=spec.path.parent / place)


def _generate(
    spec: StudySpec, source: GeneratedSource, targets: Mapping[str, float], tell: Callable[[str], None]
) -> Generated:
    from lawkit.generators import generate

    def upto(tokens: float) -> Generated:
        return generate(
            files,
            out,
            generator=generator,
            style=source.style,
            seed=source.seed,
            shard=source.shard,
            tokens=tokens,
            progress=lambda told: tell(
                f"generating {source.name}: {told.kept_tokens:,} of {targets[source.name]:,.0f} tokens, "
                f"{told.answers:,} answers in this call"
            ),
        )

    assert spec.built is not None
    folder = spec.path.parent
    out = folder / GENERATED / source.name
    tell(f"generating {source.name}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        generator = source.make(folder)
        files = _files(folder, spec.built.sources[source.source])
        try:
            if spec.goal is not None and generator.n_params is not None:
                # What prompts and dropped answers add to the price is known after the first shards.
                upto(min(1.0, targets[source.name]))
                check_pays(spec, missing(spec, targets))
            found = upto(targets[source.name])
        finally:
            generator.close()
    except StudyError:
        raise
    except (LawkitError, OSError) as error:
        raise StudyError(f"{spec.path}: generated.{source.name}: {error}") from None
    if not found.files:
        why = ", ".join(f"{n:,} {reason}" for reason, n in (found.failed + found.dropped).most_common())
        raise StudyError(
            f"{spec.path}: generated.{source.name}: no text was kept ({why or 'no documents'}): see {out}"
        )
    return found


def _build(spec: StudySpec, texts: Mapping[str, Generated]) -> Corpus:
    from lawkit.corpus import build

    assert spec.built is not None
    folder, options = spec.path.parent, dict(spec.built.options)
    if options["tokenizer"] is not None:
        options["tokenizer"] = folder / Path(options["tokenizer"]).expanduser()
    sources = {name: _files(folder, files) for name, files in spec.built.sources.items()}
    generated = {name: [str(file) for file in found.files] for name, found in texts.items()}
    try:
        return build({**sources, **generated}, folder / CORPORA, **options)
    except LawkitError as error:
        raise StudyError(f"{spec.path}: corpus: {error}") from None


def _files(folder: Path, names: tuple[str, ...]) -> list[str]:
    return [str(folder / Path(name).expanduser()) for name in names]


def _told(source: GeneratedSource, need: float, found: Generated) -> dict[str, Any]:
    """How a generated source came about."""
    return {
        "name": source.name,
        "generator": source.generator,
        "style": source.style,
        "prompt": found.settings["prompt"],
        "model": found.settings["model"],
        "seed": source.seed,
        "source": source.source,
        "need": need,
        "tokens": found.tokens,
        "flops": found.cost["flops"],
        "seconds": found.cost["seconds"],
    }


def so_far(spec: StudySpec, store: Store) -> list[dict[str, Any]]:
    """How the generated sources of a study came about, or how far they are where the corpus is not made yet."""
    made = store.kept(MADE)
    if made is not None or spec.built is None:
        return (made or {}).get("generated", [])
    found = [(source, _read(spec, source)) for source in spec.built.generated]
    wanted = needs(spec) if any(text for _, text in found) else {}
    return [_told(source, wanted[source.name], text) for source, text in found if text]


def missing(spec: StudySpec, targets: Mapping[str, float]) -> list[dict[str, Any]]:
    """What has yet to be generated to have so many tokens of each source, as the model counts them.

    Returns
    -------
    list of dict
        name, need in tokens of the corpus, tokens, their flops (None where nobody knows), whether these are `measured`
        on what there is or those of the answers alone, and flops `spent` on what there is.
    """
    assert spec.built is not None
    found, wanted = [], needs(spec)
    for source in spec.built.generated:
        text = _read(spec, source)
        try:
            n_params = source.make(spec.path.parent).n_params
        except LawkitError as error:
            raise StudyError(f"{spec.path}: generated.{source.name}: {error}") from None
        tokens = max(0.0, targets[source.name] - (text.tokens if text else 0))
        spent = (text.cost["flops"] or 0.0) if text else 0.0
        measured = bool(text and text.tokens and spent)
        of_one = spent / text.tokens if text and measured else None if n_params is None else 2 * n_params
        found.append(
            {
                "name": source.name,
                "need": wanted[source.name],
                "tokens": tokens,
                "flops": None if of_one is None else of_one * tokens,
                "measured": measured,
                "spent": spent,
            }
        )
    return found


def _read(spec: StudySpec, source: GeneratedSource) -> Generated | None:
    """What there is of a source."""
    from lawkit.generators import read_generated

    out = spec.path.parent / GENERATED / source.name
    try:
        return read_generated(out) if (out / "generated.json").is_file() else None
    except LawkitError as error:
        raise StudyError(f"{spec.path}: generated.{source.name}: {error}") from None
