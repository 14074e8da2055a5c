"""What is asked of a model about a document: the styles and their prompts, which are versioned files in prompts/."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from lawkit.errors import GeneratorError
from lawkit.generators._generator import Answer

__all__ = ["STYLES", "OutlineError", "Step", "Style", "get_style"]

_PROMPTS = Path(__file__).parent / "prompts"
#: Each style's prompt in use. An older version stays in its folder and can be named, such as ``hq-1``.
STYLES = {"hq": "hq-1", "qa": "qa-1", "textbook": "textbook-1"}


class OutlineError(ValueError):
    """An outline from which no chapters can be written."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One request about a document.

    Attributes
    ----------
    name
        Its place among the document's requests, such as ``college/3``; empty where there is one alone.
    messages, max_tokens, schema
        As in a `Request`.
    final
        Whether its answer is training text, rather than what further steps are made of.
    audience
        A textbook's readers.
    """

    name: str
    messages: tuple[Mapping[str, str], ...]
    max_tokens: int
    schema: Mapping[str, Any] | None = None
    final: bool = True
    audience: str = ""


class Style:
    """A way of turning documents into training text; made by `get_style`.

    Attributes
    ----------
    version
        Of its prompt, such as ``hq-1``.
    digest
        Hash of the prompt's file.
    target_tokens, max_tokens
        Usual length of an answer, and where it is cut off.
    """

    def __init__(self, version: str, content: bytes, max_tokens: int | None = None) -> None:
        self.version = version
        self.digest = hashlib.sha256(content).hexdigest()
        self._prompt = tomllib.loads(content.decode())
        self.target_tokens: int = self._prompt["target_tokens"]
        self.max_tokens: int = max_tokens or self._prompt["max_tokens"]

    def first(self, text: str) -> list[Step]:
        """The requests that need nothing but the document's text."""
        if "outline" not in self._prompt:
            messages = _filled(self._prompt["messages"], text=text)
            return [Step(name="", messages=messages, max_tokens=self.max_tokens)]
        return [
            Step(
                name=f"{audience}/outline",
                messages=_filled(self._prompt["outline"]["messages"], text=text, audience=readers),
                max_tokens=self._prompt["outline"]["max_tokens"],
                schema=_outline_schema(self._prompt["chapters"]),
                final=False,
                audience=audience,
            )
            for audience, readers in self._prompt["audiences"].items()
        ]

    def then(self, step: Step, answer: Answer) -> list[Step]:
        """The requests to which the answer of a step that is not final leads: the chapters of an outline.

        Raises
        ------
        OutlineError
            When the answer is no outline of as many chapters as are asked for.
        """
        count = self._prompt["chapters"]
        chapters = _chapters(answer, count)
        outline = "\n".join(f"{i}. {' '.join(said.split())}" for i, said in enumerate(chapters, 1))
        readers = self._prompt["audiences"][step.audience]
        return [
            Step(
                name=f"{step.audience}/{number}",
                messages=_filled(
                    self._prompt["chapter"], outline=outline, number=str(number), audience=readers
                ),
                max_tokens=self.max_tokens,
                audience=step.audience,
            )
            for number in range(1, count + 1)
        ]


@cache
def get_style(name: str, max_tokens: int | None = None) -> Style:
    """Return a style by its name, or by the version of its prompt.

    Parameters
    ----------
    name
        ``hq``, ``qa``, ``textbook``, or a version such as ``hq-1``.
    max_tokens
        Where texts are cut off, if not where the prompt's file says; an outline has a limit of its own.

    Raises
    ------
    GeneratorError
        When there is no such style.

    Examples
    --------
    >>> get_style("textbook").version, [step.name for step in get_style("textbook").first("Bees.")][:2]
    ('textbook-1', ['grade-school/outline', 'college/outline'])
    """
    version = STYLES.get(name, name)
    known = {path.stem: path for path in _PROMPTS.glob("*.toml")}
    if version not in known:
        raise GeneratorError(
            f"no style {name!r}; there are {', '.join(STYLES)}, and the versions {', '.join(sorted(known))}."
        )
    return Style(version, known[version].read_bytes(), max_tokens)


def _filled(messages: list[dict[str, str]], **values: str) -> tuple[Mapping[str, str], ...]:
    # One pass: what a document says is never taken for a place to fill. Half a character, which JSON can spell and
    # an outline hold, cannot be sent.
    values = {name: text.encode(errors="replace").decode() for name, text in values.items()}
    return tuple(
        {"role": m["role"], "content": Template(m["content"].strip()).substitute(values)} for m in messages
    )


def _outline_schema(count: int) -> dict[str, Any]:
    chapter = {"type": "string", "minLength": 1, "maxLength": 400}
    chapters = {"type": "array", "items": chapter, "minItems": count, "maxItems": count}
    return {
        "type": "object",
        "properties": {"chapters": chapters},
        "required": ["chapters"],
        "additionalProperties": False,
    }


def _chapters(answer: Answer, count: int) -> list[str]:
    if answer.finish != "stop":
        raise OutlineError(f"the outline was cut off after {answer.completion_tokens} tokens")
    begin, end = answer.text.find("{"), answer.text.rfind("}")  # some models put it in a fence
    try:
        found = json.loads(answer.text[begin : end + 1], strict=False)[
            "chapters"
        ]  # a line may break in a text
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OutlineError("the outline is no JSON object with a list of chapters") from None
    chapters = [c for c in found if isinstance(c, str) and c.strip()] if isinstance(found, list) else []
    if len(chapters) != count:
        raise OutlineError(f"the outline has {len(chapters)} chapters, not {count}")
    return chapters
