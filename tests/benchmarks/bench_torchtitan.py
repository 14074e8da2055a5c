"""torchtitan's trainer beside a bare PyTorch loop over the same rows: the same losses, and what it costs.

``python tests/benchmarks/bench_torchtitan.py CORPUS [--size 800k] [--steps 60] [--rows 16]``. Both models take turns,
step by step, in one process, so that a busy machine slows both alike. The figures are processor time of this process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from lawkit.backends.torchtitan import plan
from lawkit.backends.torchtitan.device import join, prepare
from lawkit.backends.torchtitan.records import Records
from lawkit.backends.torchtitan.spec import write_spec
from lawkit.corpus import open_corpus


class Bare:
    """The same model, rows, optimizer and schedule, with nothing around them."""

    def __init__(self, config, spec, corpus) -> None:
        import torch

        torch.manual_seed(spec.seed)
        with torch.device("meta"):
            self.model = config.model_spec.model.build()
        self.model.to_empty(device="cpu")
        with torch.no_grad():
            self.model.init_weights(buffer_device=None)
        recipe = spec.recipe
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps,
            weight_decay=recipe.weight_decay, fused=True,
        )  # fmt: skip
        self.schedule = config.lr_scheduler.build(optimizers=[self.optimizer], training_steps=spec.steps)
        self.rows = iter(
            config.dataloader.build(
                dp_world_size=1,
                dp_rank=0,
                tokenizer=None,
                seq_len=recipe.seq_len,
                local_batch_size=recipe.batch_rows,
            )
        )
        self.clip = recipe.clip

    def step(self) -> float:
        """Train one step and return its loss."""
        import torch

        self.optimizer.zero_grad(set_to_none=True)
        inputs, labels = next(self.rows)
        logits = self.model(inputs["input"])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip, foreach=True)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()


def compare(corpus_folder: str, folder: str, *, size: str, steps: int, rows: int) -> dict:
    """Train both for some steps and return their losses and seconds a step."""
    corpus = open_corpus(corpus_folder)
    names = corpus.sources
    spec = plan(
        corpus, corpus_folder, size=size, n_tokens=steps * rows * 256, weights={n: 1 / len(names) for n in names},
        recipe={"batch_rows": rows, "seq_len": 256, "log_every": 1, "eval_rows": 2, "checkpoint_every": 0},
    )  # fmt: skip
    write_spec(spec, folder)
    device = prepare()

    from lawkit.backends.torchtitan import trainer as ours

    join(device)
    seconds: dict[str, list[float]] = {"torchtitan": [], "bare": []}
    losses: list[float] = []
    last = [0.0]

    class Beside(ours.RunTrainer):
        def train_step(self, data_iterator) -> None:
            # From the end of the bare step before: the trainer's loop, records and all.
            super().train_step(data_iterator)
            middle = time.process_time()
            if last[0]:
                seconds["torchtitan"].append(middle - last[0])
            losses.append(bare.step())
            last[0] = time.process_time()
            seconds["bare"].append(last[0] - middle)

    config = ours.configuration(folder)
    trainer = Beside(config)
    bare = Bare(config, spec, corpus)
    trainer.train()
    trainer.close()
    theirs = [record["loss"] for record in Records(folder).of("train")]
    seconds = {name: values[len(values) // 10 + 2 :] for name, values in seconds.items()}
    return {"losses": {"torchtitan": theirs, "bare": losses}, "seconds": seconds}


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("--size", default="800k")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(
            options.corpus, str(Path(folder)), size=options.size, steps=options.steps, rows=options.rows
        )
    if options.json:
        print(json.dumps(found))
        return
    apart = max(abs(a - b) for a, b in zip(*found["losses"].values(), strict=True))
    means = {name: statistics.mean(values) for name, values in found["seconds"].items()}
    medians = {name: statistics.median(values) for name, values in found["seconds"].items()}
    print(
        f"{options.size}, {options.rows * 256:,} tokens a step, {options.steps} steps: losses within {apart:.1e}"
    )
    for name in means:
        print(f"  {name:10} {1e3 * means[name]:7.1f} ms mean, {1e3 * medians[name]:7.1f} ms median a step")
    print(f"  ratio      {means['torchtitan'] / means['bare']:.3f} of means, "
          f"{medians['torchtitan'] / medians['bare']:.3f} of medians")  # fmt: skip


if __name__ == "__main__":
    main()
