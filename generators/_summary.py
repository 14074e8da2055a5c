"""What a folder of generated text holds, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lawkit.generators._folder import read_settings, shards, text_file

__all__ = ["Generated", "read_generated"]

#: Failures that a summary lists one by one; all of them stand in the shards' records.
_LISTED = 20


@dataclass
class Generated:
    """A folder of generated text.

    Attributes
    ----------
    path, settings
        The folder, and what decided its records: prompt, model, seed, sampling, filters.
    documents, texts, tokens
        Documents that were used, texts that were kept, and their tokens as the model counts them.
    repeated, cut
        Documents that were left out as copies of others, and those of which the model saw a part.
    dropped
        Answers that the filters dropped, by reason.
    failed
        Requests without an answer, by reason.
    failures
        The first of them: document, step, reason and message.
    cost
        prompt_tokens, completion_tokens, flops (2 n_params a token, prompts included; None where n_params is not
        known), seconds, and money (None without a price).
    new_tokens
        What the model wrote in this call.
    warnings
        What is odd.
    """

    path: Path
    settings: Mapping[str, Any]
    documents: int = 0
    texts: int = 0
    tokens: int = 0
    repeated: int = 0
    cut: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    new_tokens: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        """The finished shards with text in them, in order: what a corpus is built from."""
        return [file for i, _ in shards(self.path) if (file := text_file(self.path, i)).stat().st_size]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON knows it."""
        return {
            "path": str(self.path),
            "settings": dict(self.settings),
            "documents": self.documents,
            "repeated_documents": self.repeated,
            "cut_documents": self.cut,
            "texts": self.texts,
            "tokens": self.tokens,
            "new_tokens": self.new_tokens,
            "dropped": dict(self.dropped),
            "failed": dict(self.failed),
            "failures": self.failures,
            "cost": self.cost,
            "warnings": self.warnings,
        }


def read_generated(folder: str | Path) -> Generated:
    """Read what a folder holds, from the records of its finished shards.

    Raises
    ------
    GeneratorError
        When it is no folder of generated text.
    """
    folder = Path(folder)
    found = Generated(path=folder, settings=read_settings(folder))
    costs: dict[str, list[float | None]] = {
        name: [] for name in ("prompt_tokens", "completion_tokens", "flops", "seconds", "money")
    }
    for _, about in shards(folder):
        found.documents += about["documents"]
        found.texts += about["texts"]
        found.tokens += about["tokens"]
        found.repeated += about["repeated_documents"]
        found.cut += about["cut_documents"]
        found.dropped.update(about["dropped"])
        found.failed.update(failure["reason"] for failure in about["failures"])
        found.failures += about["failures"][: max(_LISTED - len(found.failures), 0)]
        for name, values in costs.items():
            values.append(about["cost"][name])
    for name, values in costs.items():
        given = [value for value in values if value is not None]
        found.cost[name] = sum(given) if len(given) == len(values) else None
    if found.cost["flops"] is None:
        found.warnings.append("flops are not counted: nobody said how many parameters the model has")
    return found
