"""What a trained proxy loses on each held-out token: ``python -m lawkit.backends.torchtitan.proxy RUN CORPUS OUT``.

The rows are those on which the run was evaluated. The model is read from the run's last checkpoint, by a process of
its own, which needs torch; ours starts it and reads what it wrote.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lawkit.backends.torchtitan.planning import check_corpus
from lawkit.backends.torchtitan.process import PARENT, die_with_parent
from lawkit.backends.torchtitan.spec import read_spec
from lawkit.errors import BackendError, LawkitError

if TYPE_CHECKING:
    from lawkit.corpus import Corpus

_MODULE = "lawkit.backends.torchtitan.proxy"
#: Where torchtitan keeps checkpoints in the folder of a run; one is whole when it has its metadata.
_CHECKPOINTS = "checkpoint/step-*/.metadata"
#: Logits of so many numbers are made at once.
_MOST_LOGITS = 1 << 25


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """The losses of a trained run on held-out tokens.

    Attributes
    ----------
    step
        After which it was stored.
    weights
        Of the sources that it was trained on.
    tokens, losses
        By domain, (rows, seq_len): the tokens that were predicted, and the loss of each in nats.
    """

    step: int
    weights: dict[str, float]
    tokens: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]


def proxy_losses(run: str | Path, corpus: Corpus, domains: Sequence[str], python: str | None = None) -> Proxy:
    """Evaluate the run of a folder, in a process of its own, and return the loss of every token.

    Parameters
    ----------
    run
        Folder of a run that kept its checkpoint (``keep_checkpoint = true`` in its recipe).
    corpus
        The corpus that it was trained on.
    domains
        Whose held-out text.
    python
        An interpreter that has torchtitan; ours if not given.

    Raises
    ------
    BackendError
        When there is no such run or it has no checkpoint, it was trained on another corpus or vocabulary, or the
        process fails.
    """
    spec = read_spec(run)
    check_corpus(replace(spec, corpus=str(corpus.path)), corpus)
    step = _last_step(Path(run))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "losses.npz"
        command = [python or sys.executable, "-m", _MODULE, str(run), str(corpus.path), str(out), *domains]
        environment = {**os.environ, PARENT: str(os.getpid())}
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise BackendError(
                f"{command[0]}: the proxy cannot be evaluated with it ({error.strerror}): name an interpreter that has "
                "torchtitan"
            ) from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
            raise BackendError(f"{run}: the proxy cannot be evaluated: {lines[-1][:300]}")
        with np.load(out, allow_pickle=False) as found:
            losses = {name: found[f"losses {name}"] for name in domains}
            tokens = {name: found[f"tokens {name}"] for name in domains}
    return Proxy(step=step, weights=dict(spec.weights), tokens=tokens, losses=losses)


def _last_step(run: Path) -> int:
    steps = [int(path.parent.name.removeprefix("step-")) for path in run.glob(_CHECKPOINTS)]
    if not steps:
        raise BackendError(
            f"{run}: the run has no checkpoint. Train it with keep_checkpoint = true in its recipe (for a study: "
            "[recipe] in study.toml), which a run does not keep otherwise"
        )
    return max(steps)


def main(arguments: Sequence[str]) -> int:
    """Evaluate the run of a folder and write the losses by domain; 1 with a reason when that fails."""
    run, corpus, out, *domains = arguments
    die_with_parent()
    try:
        np.savez(out, allow_pickle=False, **_evaluate(Path(run), corpus, domains))
    except ModuleNotFoundError as error:
        print(f"{error} in {sys.executable}: pip install 'lawkit[torchtitan]'", file=sys.stderr)
        return 1
    except LawkitError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _evaluate(run: Path, corpus: str, domains: Sequence[str]) -> dict[str, np.ndarray]:
    from lawkit.backends.torchtitan.device import prepare

    device = prepare()
    import torch
    from torch.distributed.checkpoint.state_dict_loader import load

    from lawkit.backends.torchtitan.evaluate import token_losses
    from lawkit.backends.torchtitan.model import model_spec
    from lawkit.corpus import open_corpus

    spec = read_spec(run)
    opened, length = open_corpus(corpus), spec.recipe.seq_len
    model = model_spec(spec.size, vocab_size=spec.vocab_size, seq_len=length).model.build()
    with torch.no_grad():
        model.init_weights(buffer_device=None)  # what is not in a checkpoint: the angles of the positions
    state = model.state_dict()
    load(state, checkpoint_id=run / "checkpoint" / f"step-{_last_step(run)}", no_dist=True)
    model.load_state_dict(state)
    model.to(device).eval()
    together = max(1, _MOST_LOGITS // (length * spec.vocab_size))
    found = {}
    for name in domains:
        tokens = opened.heldout(name)
        starts = spec.eval_starts(len(tokens))
        with torch.no_grad():
            parts = [
                token_losses(model, tokens, starts[i : i + together], length).cpu().numpy()
                for i in range(0, len(starts), together)
            ]
        found[f"losses {name}"] = np.concatenate(parts)
        found[f"tokens {name}"] = np.stack([tokens[at + 1 : at + length + 1] for at in starts])
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
