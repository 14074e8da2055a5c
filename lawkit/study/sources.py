"""What a study's corpus is built from, as its file says: files by source, and sources that a model writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lawkit.errors import LawkitError, StudyError
from lawkit.study._section import Section

if TYPE_CHECKING:
    from lawkit.generators import Generator

#: Folder of the generated sources in a study's, each in a folder of its name.
GENERATED = "generated"
#: What a generated source has to say who answers, and the generator that it means.
_KINDS = {"urls": "fleet", "server": "server", "replay": "replay"}


@dataclass(frozen=True, kw_only=True)
class GeneratedSource:
    """A source that is generated from another.

    Attributes
    ----------
    name, source, style, seed, shard
        Its name, the source whose documents are shown to the model, and as for `lawkit.generators.generate`.
    generator, options
        The generator's name, and what it is made with.
    tokens
        What the file wants of it in any case.
    """

    name: str
    source: str
    style: str
    seed: int
    shard: int
    generator: str
    options: Mapping[str, Any]
    tokens: float = 0.0

    @property
    def asked(self) -> dict[str, Any]:
        """What may not change once a run is done; where the model is served may."""
        model = self.options.get("model")
        return {
            "source": self.source,
            "style": self.style,
            "seed": self.seed,
            "shard": self.shard,
            "model": model,
        }

    def make(self, folder: Path) -> Generator:
        """The generator, with nothing started; `folder` is the study's."""
        from lawkit.generators import get

        options = dict(self.options)
        if self.generator == "replay":
            return get("replay")(folder / options.pop("recorded"), **options)
        if self.generator == "server":
            # A folder is seen from the study's, and what is none is a name.
            local = folder / options["model"]
            options["model"] = str(local) if local.is_dir() else options["model"]
            options.setdefault("log", folder / GENERATED / self.name / "server.log")
        return get(self.generator)(options.pop("model"), **options)


@dataclass(frozen=True, kw_only=True)
class BuiltCorpus:
    """What a study's corpus is built from: files by source, options of `lawkit.corpus.build`, generated sources."""

    sources: Mapping[str, tuple[str, ...]]
    options: Mapping[str, Any]
    generated: tuple[GeneratedSource, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All sources, in the order in which the corpus has them."""
        return (*self.sources, *(source.name for source in self.generated))

    @property
    def asked(self) -> dict[str, Any]:
        """What may not change once a run is done, as JSON knows it."""
        sources = {name: list(files) for name, files in self.sources.items()}
        generated = {source.name: source.asked for source in self.generated}
        return {"sources": sources, "options": dict(self.options), "generated": generated}


def read_built_corpus(corpus: Any, generated: Any, file: str) -> BuiltCorpus:
    """The tables corpus and generated of a study's file.

    Raises
    ------
    StudyError
        Naming the path of what is missing, unknown or impossible.
    """
    section = Section(corpus, "corpus", file)
    listed = Section(section.take("sources"), "corpus.sources", file)
    sources = {name: listed.names(name, ()) for name in listed.keys}
    for name, files in sources.items():
        if not files:
            raise listed.fail(name, [], "it must be a file, a pattern, or a list of them")
    if not sources:
        raise section.fail("sources", {}, 'it must have at least one source, such as {web = "web.jsonl"}')
    options: dict[str, Any] = {
        "vocab_size": section.whole("vocab_size", 4096, least=258),
        "holdout": section.number("holdout", 0.02, most=0.9),
        "seed": section.whole("seed", 0),
        "tokenizer": section.text("tokenizer", None),
    }
    section.end()
    tables = Section(generated, "generated", file)
    made = tuple(
        _read_source(Section(tables.take(name), f"generated.{name}", file), name, sources)
        for name in tables.keys
    )
    return BuiltCorpus(sources=sources, options=options, generated=made)


def _read_source(section: Section, name: str, sources: Mapping[str, Any]) -> GeneratedSource:
    from lawkit.corpus._options import _NAME
    from lawkit.generators import get_style

    if not _NAME.fullmatch(name) or name in sources:
        rule = "is a source of the corpus already" if name in sources else "is no name of a source"
        raise StudyError(f"{section.file}: {section.path}: {name!r} {rule}: choose another name")
    source, style = section.text("source"), section.text("style")
    if source not in sources:
        raise section.fail("source", source, f"it must be one of corpus.sources: {', '.join(sources)}")
    try:
        get_style(style)
    except LawkitError as error:
        raise section.fail("style", style, str(error)) from None
    given = [kind for kind in _KINDS if kind in section.keys]
    if len(given) != 1:
        raise StudyError(
            f"{section.file}: {section.path} has {' and '.join(given) or 'no generator'}: it must have one of urls "
            "(of servers), server = true (a vLLM started here) and replay (a folder of recorded answers)"
        )
    (kind,) = given
    options: dict[str, Any] = {}
    if kind == "replay":
        options["recorded"] = section.text("replay")
    else:
        options["model"] = section.text("model")
        if kind == "urls":
            options["urls"] = list(section.names("urls", ()))
            if not options["urls"]:
                raise section.fail("urls", [], 'it must have a server, such as "http://localhost:8000/v1"')
        else:
            options |= _read_server(section)
    if "n_params" in section.keys:
        options["n_params"] = section.size("n_params")
    found = GeneratedSource(
        name=name,
        source=source,
        style=style,
        seed=section.whole("seed", 0),
        shard=section.whole("shard", 256, least=1),
        generator=_KINDS[kind],
        options=options,
        tokens=section.size("tokens") if "tokens" in section.keys else 0.0,
    )
    section.end()
    return found


def _read_server(section: Section) -> dict[str, Any]:
    """What a server is started with: limits of ours, which are checked, and vLLM's options."""
    server = section.take("server")
    if server is not True and not isinstance(server, Mapping):
        raise section.fail("server", server, "it must be true, or a table of vLLM's options")
    inner = Section({} if server is True else server, section.at("server"), section.file)
    ours = {
        "python": inner.text("python", None),
        "concurrency": inner.whole("concurrency", None, least=1),
        "retries": inner.whole("retries", None),
        "timeout_s": inner.seconds("timeout_s", None),
        "start_s": inner.seconds("start_s", None),
    }
    for name in ("model", "log", "n_params"):
        if name in inner.keys:
            raise inner.fail(name, inner.take(name), "it is no option of vLLM's server here")
    given = {name: value for name, value in ours.items() if value is not None}
    return {**given, **{name: inner.take(name) for name in inner.keys}}
