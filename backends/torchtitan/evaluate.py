"""Loss on held-out text, domain by domain, with its standard error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.validate import BaseValidator, ValidationContext, Validator
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.utils import dist_sum_tensor
from torchtitan.tools import utils

from lawkit.backends.torchtitan.records import Records
from lawkit.backends.torchtitan.spec import read_spec


class DomainValidator(BaseValidator):
    """Evaluates every domain on the same rows of its held-out text in every run of the corpus.

    A row's loss is the mean over its tokens. The domain's loss is the mean of its rows, all being of one length, and
    the standard error is that of a mean of independent rows.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Validator.Config):
        """Which run is evaluated; when, its specification says."""

        run: str = ""
        """Folder of the run."""

    def __init__(
        self,
        config: Config,
        *,
        dp_world_size: int,
        dp_rank: int,
        parallel_dims: ParallelDims,
        validation_context: ValidationContext,
        metrics_processor: MetricsProcessor,
        local_batch_size: int,
        **_: Any,
    ) -> None:
        from lawkit.corpus import open_corpus

        super().__init__(config=config)
        self.spec = read_spec(config.run)
        self.corpus = open_corpus(self.spec.corpus)
        self.records = Records(config.run)
        self._ranks, self._rank, self._rows = dp_world_size, dp_rank, local_batch_size
        self._dims, self._context, self._metrics = parallel_dims, validation_context, metrics_processor

    def should_validate(self, step: int) -> bool:
        """Whether the run asked for an evaluation after this step."""
        return step in self.spec.eval_steps

    @torch.no_grad()
    def validate(self, model_parts: list[nn.Module], step: int) -> None:
        """Evaluate and record all domains."""
        (model,) = model_parts
        model.eval()
        domains = {name: self._evaluate(model, name) for name in self.corpus.sources}
        model.train()
        if self._rank == 0:
            self.records.add(
                "eval",
                step=step,
                n_tokens=step * self.spec.tokens_per_step,
                is_final=step == self.spec.steps,
                domains=domains,
            )
        mean = float(np.mean([domain["loss"] for domain in domains.values()]))
        extra = {f"validation_metrics/{name}": domain["loss"] for name, domain in domains.items()}
        self._metrics.log_validation(mean, step, extra_metrics=extra)

    def _evaluate(self, model: nn.Module, name: str) -> dict[str, float]:
        tokens, length = self.corpus.heldout(name), self.spec.recipe.seq_len
        n_tokens = self.corpus.n_heldout_tokens(name)
        starts = self.spec.eval_starts(n_tokens)
        count = len(starts)
        sums = torch.zeros(count, dtype=torch.float64, device=utils.device_type)
        together = self._rows * self._ranks
        for first in range(0, count, together):
            # Every rank takes part in every batch, as sharded weights need; rows beyond the last are thrown away.
            mine = first + self._rank + self._ranks * np.arange(self._rows)
            with self._context():
                each = token_losses(model, tokens, starts[np.minimum(mine, count - 1)], length)
            inside = torch.from_numpy(mine[mine < count]).to(utils.device_type)
            sums[inside] = each.double().sum(1)[: len(inside)]
        if self._dims.dp_cp_enabled:
            sums = dist_sum_tensor(sums, self._dims.get_optional_mesh("loss"))
        losses = sums.cpu().numpy() / length
        mean, se = float(losses.mean()), float("nan")
        if count > 1:
            se = float(losses.std(ddof=1) / count**0.5)
        per_byte = n_tokens / self.corpus.heldout_bytes(name)
        return {
            "loss": mean,
            "se": se,
            "per_byte": mean * per_byte,
            "per_byte_se": se * per_byte,
            "rows": count,
        }


def token_losses(model: nn.Module, tokens: np.ndarray, starts: np.ndarray, length: int) -> torch.Tensor:
    """The loss of each token, in nats, of rows of `length` tokens and their targets, (rows, length)."""
    rows = np.stack([tokens[at : at + length + 1] for at in starts])
    batch = torch.from_numpy(rows.astype(np.int64)).to(utils.device_type)
    logits = model(batch[:, :-1].contiguous())
    each = nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
    return each.view(len(rows), length)
