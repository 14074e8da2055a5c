"""Replay: the answers that another run recorded, without a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lawkit.errors import GeneratorError
from lawkit.generators._answers import FOLDER, AnswerLog
from lawkit.generators._folder import read_settings
from lawkit.generators._generator import Answer, Failure, Request

__all__ = ["Replay"]


class Replay:
    """Answers each request with what was recorded for it: the same document, prompt, model, seed and step.

    Parameters
    ----------
    recorded
        Folder that `generate` wrote.
    n_params
        The model's non-embedding parameters, if another count than the recorded one is wanted.
    """

    shards_at_once = 1

    def __init__(self, recorded: str | Path, *, n_params: float | None = None) -> None:
        self.recorded = Path(recorded)
        self._settings = settings = read_settings(self.recorded)
        self.model: str = settings["model"]
        self.n_params: float | None = n_params if n_params is not None else settings["n_params"]
        self._places: dict[str, tuple[Path, int]] | None = None

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        """Answer the requests in their order; one that was never recorded fails."""
        if self._places is None:
            files = sorted((self.recorded / FOLDER).glob("*.jsonl"))
            self._places = {key: (file, at) for file in files for key, at in AnswerLog.places(file)}
        for place, request in enumerate(requests):
            found = self._places.get(request.key)
            if found is None:
                said = f"{self.recorded} has no answer to {request.key!r}"
                yield place, Failure(reason="not recorded", message=said)
            else:
                yield place, AnswerLog.read_at(*found)

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings that are not those of the recorded answers, which would be written down as if they were.

        Raises
        ------
        GeneratorError
            When they differ in more than shards, filters and the tokenizer that cut the documents.
        """
        for name in ("prompt", "seed", "temperature", "top_p", "max_tokens", "input_tokens"):
            if settings[name] != self._settings[name]:
                raise GeneratorError(
                    f"the answers in {self.recorded} were recorded with {name} {self._settings[name]!r}, not "
                    f"{settings[name]!r}: replay them with the same."
                )

    def about(self) -> dict[str, Any]:
        """Where the answers were recorded."""
        return {"generator": "replay", "recorded": str(self.recorded)}

    def close(self) -> None:
        """Forget where the answers are."""
        self._places = None
