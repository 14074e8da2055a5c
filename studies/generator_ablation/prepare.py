"""Text of every generator from the same documents, a corpus of all of it, and the study's file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from lawkit.errors import StudyError
from lawkit.io._write import replace_file

__all__ = ["NATURAL", "RATIOS", "prepare"]

#: Name of the natural source.
NATURAL = "natural"
#: Shares of generated text in a mixture.
RATIOS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_HERE = Path(__file__).resolve().parent


def prepare(
    folder: str | Path,
    files: Sequence[str | Path],
    generators: Mapping[str, Any],
    *,
    tokens: float,
    style: str = "hq",
    vocab_size: int = 1024,
    say: Callable[[str], None] = lambda text: None,
    **options: Any,
) -> Path:
    """Make the folder of a study that compares generators.

    Half of the documents are rephrased; the other half is the natural source, whose held-out side no generator
    has seen. Called again, it makes only what is missing.

    Parameters
    ----------
    folder
        Of the study.
    files
        Natural documents, as `lawkit.corpus.build` takes them.
    generators
        Name of each source with its generator; a generator is closed before the next is used.
    tokens
        To generate with each.
    style, options
        Of `lawkit.generators.generate`, the same for all.
    vocab_size
        Of the corpus.
    say
        Told what is being done.

    Returns
    -------
    Path
        The folder, for ``lawkit study run``.

    Raises
    ------
    LawkitError
        When documents cannot be read, a generator fails, or the corpus cannot be built.
    """
    from lawkit.corpus import build
    from lawkit.generators import generate

    if not generators or NATURAL in generators:
        raise StudyError(f"generators are {list(generators)!r}: at least one, and none called {NATURAL!r}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    halves = _split(files, folder)
    sources: dict[str, list[str]] = {NATURAL: [str(halves[1])]}
    for name, generator in generators.items():
        say(f"generating {name} with {generator.model}")
        try:
            found = generate(
                halves[0],
                folder / "generated" / name,
                generator=generator,
                tokens=tokens,
                style=style,
                **options,
            )
        finally:
            generator.close()
        for warning in found.warnings:
            say(f"{name}: {warning}")
        say(f"{name}: {found.texts:,} texts, {found.tokens:,} tokens, dropped {dict(found.dropped)}")
        sources[name] = [str(file) for file in found.files]
    say("building the corpus")
    corpus = build(sources, folder / "corpora", vocab_size=vocab_size)
    written = Template((_HERE / "study.toml").read_text(encoding="utf-8")).substitute(
        mixtures=_mixtures(list(generators)), natural=NATURAL
    )
    text = f"corpus = {json.dumps(str(corpus.path.relative_to(folder)))}\n\n{written}"
    replace_file(text.encode(), folder / "study.toml")
    return folder


def _split(files: Sequence[str | Path], folder: Path) -> tuple[Path, Path]:
    """Documents to rephrase and natural ones, told apart by their hashes."""
    from lawkit.corpus._documents import documents
    from lawkit.corpus._options import find_files, reading_options

    halves = folder / "rephrased.jsonl", folder / "natural.jsonl"
    lines: tuple[list[str], list[str]] = ([], [])
    for document in documents(find_files({NATURAL: files}, [])[NATURAL], reading_options()):
        side = hashlib.blake2b(document.raw, digest_size=1).digest()[0] % 2
        lines[side].append(json.dumps({"text": document.text}, ensure_ascii=False) + "\n")
    for half, text in zip(halves, lines, strict=True):  # each time: other files are other documents
        replace_file("".join(text).encode(), half)
    return halves


def _mixtures(names: list[str]) -> str:
    rows = [
        f"    {{{NATURAL} = {1 - ratio:g}, {json.dumps(name)} = {ratio:g}}},"
        for name in names
        for ratio in RATIOS
    ]
    return "\n".join(["[", *rows, "]"])
