"""One run in a process of its own: ``python -m lawkit.backends.torchtitan.worker FOLDER``.

The folder holds the run's spec.json; records.jsonl and checkpoints are written beside it. A folder whose run was killed
goes on from its last checkpoint. Under torchrun, or with ``--ranks``, several processes train one run.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lawkit.backends.torchtitan.planning import check_corpus
from lawkit.backends.torchtitan.process import PARENT, alone, die_with_parent
from lawkit.backends.torchtitan.records import Records
from lawkit.backends.torchtitan.spec import TrainingSpec, read_spec
from lawkit.errors import LawkitError

_MODULE = "lawkit.backends.torchtitan.worker"
_SEED = "--write-initial-weights"
#: Environment variable that tells ranks that their parent holds the folder.
HELD = "LAWKIT_HELD"


def main(arguments: Sequence[str]) -> int:
    """Train the run of a folder and return 0, or record why it failed and return 1."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description="Train the run of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, default=1, help="processes that train it, on this machine")
    parser.add_argument(_SEED, action="store_true", dest="seed", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder of a run")
    die_with_parent()
    folder, records = options.folder, Records(options.folder)
    if records.last("done"):
        return 0
    # Of several ranks one holds the folder: their parent, or the first where torchrun was called by hand.
    first = _rank() == 0 and not options.seed
    with contextlib.ExitStack() as held:
        if first and HELD not in os.environ:
            try:
                held.enter_context(alone(folder))
            except LawkitError as error:
                print(error, file=sys.stderr)
                return 1
        try:
            if first:
                records.forget_failure()
            if options.ranks > 1:
                os.environ[HELD] = "1"
                return _under_torchrun(folder, options.ranks)
            _train(folder, seed=options.seed)
        except KeyboardInterrupt:
            return 130
        except BaseException as error:
            traceback.print_exc()
            if first:
                record_failure(records, error)
            return 1
    return 0


def _train(folder: Path, *, seed: bool) -> None:
    spec = read_spec(folder)
    from lawkit.corpus import open_corpus

    corpus = open_corpus(spec.corpus)
    check_corpus(spec, corpus)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if spec.recipe.batch_rows % (ranks * (spec.recipe.local_rows or 1)):
        raise LawkitError(
            f"{spec.recipe.batch_rows} rows a step cannot be shared by {ranks} ranks of {spec.recipe.local_rows or 1} "
            "rows at a time: choose recipe.batch_rows as a multiple"
        )
    from lawkit.backends.torchtitan.device import join, prepare

    device = prepare()
    import torch
    from torchtitan import trainer as stock

    from lawkit.backends.torchtitan.trainer import CHECKPOINTS, configuration

    if ranks > 1 and _rank() == 0 and not list(folder.glob(f"{CHECKPOINTS}/step-*/.metadata")):
        _write_initial_weights(folder)
    join(device)
    config = configuration(folder)
    if ranks == 1:
        # It waits two seconds for other ranks at its end.
        stock.time = SimpleNamespace(sleep=lambda _: None, perf_counter=time.perf_counter)  # pyright: ignore
    if seed:
        config.checkpoint.create_seed_checkpoint = True
        config.metrics.enable_tensorboard = False
    trainer = config.build()
    try:
        if seed:
            trainer.checkpointer.save(0, last_step=True)
            return
        trainer.train()
        if _rank() == 0:
            records = Records(folder)
            where = {"device": device, "torch": torch.__version__, "ranks": ranks}
            records.add("done", **_summary(spec, corpus, records, trainer.metrics_processor.spent()), **where)
    finally:
        trainer.close()
        torch.distributed.destroy_process_group()
    if _rank() == 0 and not spec.recipe.keep_checkpoint:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _summary(spec: TrainingSpec, corpus: Any, records: Records, spent: dict[str, float]) -> dict[str, Any]:
    """What a finished run cost and saw; time counts every process up to the checkpoint the next one took up."""
    mixture = spec.mixture(corpus)
    rows = mixture.counts(spec.steps * spec.recipe.batch_rows)
    earlier = dict.fromkeys(spent, 0.0)
    last: dict[str, Any] | None = None
    for record in records:
        if record["kind"] == "start" and last:
            earlier = {key: earlier[key] + last[key] for key in spent}
            last = None
        elif record["kind"] == "train":
            last = record
    n_tokens = spec.steps * spec.tokens_per_step
    by_source = zip(mixture.names, rows, mixture.windows, mixture.unique_tokens(), strict=True)
    return {
        "step": spec.steps,
        "n_params": spec.size.n_params,
        "n_tokens": n_tokens,
        "flops": spec.flops(spec.steps),
        "flops_6nd": 6 * spec.size.n_params * n_tokens,
        "sources": {
            name: {
                "tokens": n * spec.recipe.seq_len,
                "unique": unique,
                "epochs": n / windows if windows else 0.0,
            }
            for name, n, windows, unique in by_source
        },
        **{key: spent[key] + earlier[key] for key in spent},
    }


def _write_initial_weights(folder: Path) -> None:
    """Write the weights that one rank would start from, which the ranks then share out.

    Drawn in place, they would depend on the number of ranks.
    """
    alone = {k: v for k, v in os.environ.items() if k not in _LAUNCHER and not k.startswith("TORCHELASTIC")}
    alone[PARENT] = str(os.getpid())
    subprocess.run([sys.executable, "-m", _MODULE, str(folder), _SEED], env=alone, check=True)


_LAUNCHER = frozenset(
    f"{where}{what}" for where in ("", "LOCAL_", "GROUP_", "ROLE_") for what in ("RANK", "WORLD_SIZE", "NAME")
) | {"MASTER_ADDR", "MASTER_PORT"}


def _under_torchrun(folder: Path, ranks: int) -> int:
    """Start the ranks, on a port that is free, and end with them."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    where = ["--standalone", "--nproc-per-node", str(ranks), "--max-restarts", "0", "-m", _MODULE]
    try:
        torchrun([*where, str(folder)])
    except (ChildFailedError, json.JSONDecodeError) as error:
        # torch reads the reason from a file that a rank killed meanwhile may have left half written.
        said = (
            error.get_first_failure()[1].message
            if isinstance(error, ChildFailedError)
            else "it left no reason"
        )
        records = Records(folder)
        if not records.last("failed"):
            step = (records.last("train") or {}).get("step", 0)
            message = f"a rank failed: {said}"
            records.add("failed", step=step, reason="error", message=message)
        return 1
    return 0


def record_failure(records: Records, error: BaseException) -> None:
    """Record why a run failed, in words that say what to do about it."""
    step = (records.last("train") or {}).get("step", 0)
    cause = _cause(error)
    message = str(cause) or type(cause).__name__
    reason = "error"
    if isinstance(cause, LawkitError):
        reason = "refused"
    elif isinstance(cause, RuntimeError) and "Loss is not finite" in message:
        step = int(message.partition("at step ")[2].partition(".")[0] or step)
        reason, message = "diverged", f"the loss was no longer a number at step {step}: lower recipe.lr"
    elif _disk_is_full(cause, records.path.parent):
        reason, message = "disk", f"{records.path.parent}: no space left on the disk"
    elif isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
        reason, message = "memory", f"out of memory ({message}): lower recipe.local_rows"
    else:
        message = f"{type(cause).__name__}: {message.strip().splitlines()[-1][:300]}"
    try:
        records.add("failed", step=step, reason=reason, message=message)
    except OSError as full:
        print(f"the failure cannot be recorded: {full}", file=sys.stderr)


def _disk_is_full(error: BaseException, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # What torch says of a checkpoint that it could not write does not tell why.
    return isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < 1 << 20


def _cause(error: BaseException) -> BaseException:
    """What lies beneath an error: torch wraps what happens to a checkpoint in one of its own."""
    seen: list[BaseException] = [error]
    for one in seen:
        wrapped = [pair[0] for pair in getattr(one, "failures", {}).values()]
        beneath = [e for e in (one.__cause__, one.__context__, *wrapped) if e is not None and e not in seen]
        seen.extend(beneath)
    for one in seen[::-1]:
        if isinstance(one, (LawkitError, MemoryError)) or (
            isinstance(one, OSError) and one.errno is not None
        ):
            return one
    return next((e for e in seen if isinstance(e, RuntimeError)), error)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
