"""A run's specification as a configuration of torchtitan's trainer, and what is recorded of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torchtitan.components.checkpointer import CheckpointManager
from torchtitan.components.loss import CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.config.configs import CompileConfig, DebugConfig
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.tools import utils
from torchtitan.trainer import Trainer

from lawkit.backends.torchtitan.device import spmd_backend
from lawkit.backends.torchtitan.evaluate import DomainValidator
from lawkit.backends.torchtitan.loader import MixtureLoader, NoTokenizer
from lawkit.backends.torchtitan.model import model_spec
from lawkit.backends.torchtitan.records import Records
from lawkit.backends.torchtitan.spec import read_spec
from lawkit.errors import BackendError

CHECKPOINTS = "checkpoint"
_PRECISION = {"fp32": "float32", "bf16": "bfloat16"}


class RunMetrics(MetricsProcessor):
    """torchtitan's metrics, with a record and a line of progress for each that is logged."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        """Which run is recorded."""

        run: str = ""
        """Folder of the run."""

    def __init__(self, config: Config, **options: Any) -> None:
        super().__init__(config, **options)
        self.spec = read_spec(config.run)
        self.records = Records(config.run)
        self.begin(0)

    def begin(self, step: int) -> None:
        """Start the clocks of a process that goes on after `step`."""
        self._first = step
        self._began = time.perf_counter(), time.process_time()
        self.time_last_log = time.perf_counter()

    def spent(self) -> dict[str, float]:
        """Seconds on the clock and of this rank's processor since training began, imports not counted."""
        return {"wall_s": time.perf_counter() - self._began[0], "cpu_s": time.process_time() - self._began[1]}

    def due(self, step: int) -> bool:
        """Whether the training loss after this step is recorded."""
        return step == 1 or step % self.spec.log_every == 0 or step == self.spec.steps

    def should_log(self, step: int) -> bool:
        """Whether the trainer is to look at the loss: always on a CPU, where it is at hand.

        The trainer stops at a loss that is no number where it looks.
        """
        return utils.device_type == "cpu" or self.due(step)

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        """Record the loss, and tell how far the run is."""
        if not self.due(step):
            return
        now = time.perf_counter()
        ranks = self.parallel_dims.world_size // self.parallel_dims.non_data_parallel_size
        speed = ranks * self.ntokens_since_last_log / (now - self.time_last_log)
        super().log(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics)
        if torch.distributed.get_rank():
            return
        spent = self.spent()
        left = spent["wall_s"] / (step - self._first) * (self.spec.steps - step)
        rates = [value for key, value in (extra_metrics or {}).items() if key.startswith("lr/")]
        self.records.add(
            "train",
            step=step,
            steps=self.spec.steps,
            loss=global_avg_loss,
            grad_norm=grad_norm,
            lr=rates[0] if rates else None,
            tokens_per_s=speed,
            left_s=left,
            **spent,
        )
        print(
            f"step {step:,} of {self.spec.steps:,}  loss {global_avg_loss:.4f}  {speed:,.0f} tokens/s  "
            f"{left / 60:.0f}:{left % 60:02.0f} left",
            flush=True,
        )


class RunTrainer(Trainer):
    """torchtitan's trainer, which tells its records where it resumes."""

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        """Which run is trained."""

        run: str = ""
        """Folder of the run."""

    def __init__(self, config: Config) -> None:
        # torchtitan's command line may have changed it; the run's records and checkpoints would be another run's.
        specified = configuration(config.run).training
        for field in ("steps", "global_batch_size", "seq_len"):
            asked, own = getattr(config.training, field), getattr(specified, field)
            if asked != own:
                raise BackendError(
                    f"{config.run}: training.{field} is {asked} and the run was specified with {own}: leave the option "
                    "out, or specify another run"
                )
        super().__init__(config)

    def batch_generator(
        self, data_iterable: Iterable[tuple[dict[str, torch.Tensor], torch.Tensor]]
    ) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        """Called once, between the loading of a checkpoint and the first step: the place to set the records right."""
        config = self.config
        assert isinstance(config, RunTrainer.Config)
        records = Records(config.run)
        if torch.distributed.get_rank() == 0:
            records.rewind(self.step)
            records.add("start", step=self.step, ranks=torch.distributed.get_world_size())
        torch.distributed.barrier()
        assert isinstance(self.metrics_processor, RunMetrics)
        self.metrics_processor.begin(self.step)
        # A checkpoint is written before the evaluation of its step, which a kill between the two would lose.
        done = {record["step"] for record in records.of("eval")}
        if self.step and self.validator.should_validate(self.step) and self.step not in done:
            self.validator.validate(self.model_parts, self.step)
        return super().batch_generator(data_iterable)


def configuration(run: str | Path) -> RunTrainer.Config:
    """Return torchtitan's configuration of the run that is specified in a folder."""
    run = str(run)
    spec = read_spec(run)
    recipe = spec.recipe
    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else _ranks()
    local = recipe.local_rows or max(1, recipe.batch_rows // ranks)
    recompute = {"none": None, "selective": SelectiveAC.Config(), "full": FullAC.Config()}[recipe.recompute]
    return RunTrainer.Config(
        run=run,
        dump_folder=run,
        hf_assets_path=str(Path(spec.corpus)),
        model_spec=model_spec(spec.size, vocab_size=spec.vocab_size, seq_len=recipe.seq_len),
        tokenizer=NoTokenizer.Config(),
        loss=CrossEntropyLoss.Config(),
        optimizer=default_adamw(
            lr=recipe.lr,
            betas=(recipe.beta1, recipe.beta2),
            eps=recipe.eps,
            weight_decay=recipe.weight_decay,
        ),
        lr_scheduler=LRSchedulersContainer.Config(
            warmup_steps=spec.warmup_steps, decay_type="cosine", min_lr_factor=recipe.final_lr
        ),
        training=TrainingConfig(
            local_batch_size=local,
            global_batch_size=recipe.batch_rows,
            seq_len=recipe.seq_len,
            steps=spec.steps,
            max_norm=recipe.clip,
            mixed_precision_param=_PRECISION[recipe.precision],  # pyright: ignore
            disable_cuda_graphs=True,
        ),
        parallelism=ParallelismConfig(spmd_backend=spmd_backend()),  # pyright: ignore
        activation_checkpoint=recompute,  # pyright: ignore
        compile=CompileConfig(enable=recipe.compile),
        dataloader=MixtureLoader.Config(run=run),
        checkpoint=CheckpointManager.Config(
            enable=True,
            folder=CHECKPOINTS,
            interval=spec.checkpoint_every,
            last_save_model_only=False,
            keep_latest_k=2,
        ),
        validator=DomainValidator.Config(enable=True, run=run),
        metrics=RunMetrics.Config(
            run=run,
            log_freq=spec.log_every,
            enable_tensorboard=recipe.tensorboard,
            disable_color_printing=True,
        ),
        debug=DebugConfig(
            seed=spec.seed, deterministic=recipe.deterministic, enable_structured_logging=False
        ),
    )


def _ranks() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
