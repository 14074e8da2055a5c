"""The file that a new study starts from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lawkit.errors import StudyError
from lawkit.io._write import write_bytes
from lawkit.study.spec import FILE

if TYPE_CHECKING:
    from lawkit.corpus import Corpus

_TEMPLATE = """\
# What `lawkit study run` does; docs/studies.md explains every key. Each [[grid]] asks for every size with every number
# of tokens, mixture and seed.

corpus = {corpus}  # made by lawkit corpus build; seen from this folder

[[grid]]
sizes = ["27k", "83k", "160k"]  # of the ladder, or {{dim = 64, n_layers = 3, n_heads = 4}}
tokens = ["1M", "2M"]
mixtures = {{n = {n}, seed = 0}}  # spread over all mixtures of {sources}
seeds = [0]

[[grid]]  # the same mixture again and again: how much the seed alone changes
sizes = ["27k"]
tokens = ["1M"]
mixtures = [{{{uniform}}}]
seeds = [0, 1, 2]

# [target]             # with it the study goes on: it decides the mixture of this run, and chooses further proxy runs
# n_params = "7B"
# n_tokens = "1T"

# [constraints]        # on that mixture, see docs/mixtures.md
# bounds = {{{first} = {{upper = 0.5}}}}

# [ladder]             # what further proxy runs may be
# sizes = ["27k", "83k", "160k"]
# tokens = ["1M", "2M"]

# [loop]
# budget = 1e15        # flops of all runs and of generated text; a start within half of it replaces the grids, if none
# batch = 8            # runs a round
# ration = 0.2         # flops a round, as a share of what was spent before it
# tolerance = 0.01     # nats of expected regret at which the mixture is known well enough

# [recipe]             # what differs from the defaults; see docs/training.md
# batch_rows = 16      # rows a step
# eval_at = [0.5]      # evaluate half way too

# [available]          # let a source have only so many tokens before it repeats
# {first} = "200k"

# [limits]
# workers = 2          # runs at a time; as many as the machine takes, if not given
# retries = 1          # of a run that was killed or hung
# silent_s = 1800      # a worker that writes nothing for so long hangs
"""


def write_template(folder: str | Path, corpus: Corpus) -> Path:
    """Write the file of a new study on a corpus, and return its path.

    Raises
    ------
    StudyError
        When the folder has one already.
    """
    path = Path(folder) / FILE
    if path.exists():
        raise StudyError(f"{path} is there already: edit it, or name another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be made ({error.strerror}): choose another folder") from None
    names = corpus.sources
    share = round(1 / len(names), 4)
    shares = [*[share] * (len(names) - 1), round(1 - share * (len(names) - 1), 4)]
    text = _TEMPLATE.format(
        corpus=json.dumps(os.path.relpath(corpus.path, path.parent)),
        n=4 * len(names),
        sources=", ".join(names),
        uniform=", ".join(f"{_key(name)} = {value}" for name, value in zip(names, shares, strict=True)),
        first=_key(names[0]),
    )
    write_bytes(text.encode(), path)
    return path


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else json.dumps(name)
