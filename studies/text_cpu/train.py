"""Make the study anew: `python -m lawkit.studies.text_cpu.train FOLDER`.

It fetches the texts, builds the corpus and trains; stopped, it resumes.
FOLDER/runs.csv and FOLDER/decision/runs.csv are then what is committed here as runs.csv and decision.csv, and
FOLDER/runs.json what is committed as runs.json.
"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lawkit.corpus import Corpus
from lawkit.errors import LawkitError
from lawkit.studies.text_cpu.sources import fetch, versions

HERE = Path(__file__).resolve().parent
#: Of the byte-level BPE that all five sources are read with.
VOCABULARY = 1024
#: Seeds and training tokens of the runs that test the decision.
SEEDS, DECISION_TOKENS = (0, 1, 2), 1_000_000


def prepare(folder: Path) -> Corpus:
    """Make the study's folder with its corpus and specification.

    Raises
    ------
    LawkitError
        If the texts cannot be fetched or the corpus cannot be built.
    """
    from lawkit.corpus import build

    files = fetch(lambda text: print(text, file=sys.stderr))
    folder.mkdir(parents=True, exist_ok=True)
    corpus = build(files, folder / "corpora", vocab_size=VOCABULARY)
    written = (HERE / "study.toml").read_text(encoding="utf-8")
    _specify(folder, corpus, written)
    made = {
        "corpus": corpus.digest,
        "vocab_size": corpus.vocab_size,
        "n_tokens": {s: corpus.n_tokens(s) for s in corpus.sources},
        "packages": versions(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchtitan")},
    }
    (folder / "runs.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    return corpus


def prepare_decision(folder: Path, corpus: Corpus) -> Path:
    """Specify the runs that put the decision to the test, in a folder of their own, and return it.

    The mixtures that the two smaller sizes say are best for the largest, for the mean over the kinds of text and for
    two kinds alone, equal shares, and the proportions in which the texts exist: each at the largest size with three
    seeds.
    """
    import numpy as np

    import lawkit
    from lawkit.studies.text_cpu.forecast import FEW, given, holdout

    runs = lawkit.read_runs(folder / "runs.csv")
    _, fit = holdout(runs)
    at: dict[str, Any] = {"n_params": np.max(given(runs.n_params)), "n_tokens": DECISION_TOKENS}
    tokens = {s: corpus.n_tokens(s) for s in corpus.sources}
    mixtures = [
        lawkit.optimize_mixture(fit, **at).weights,
        lawkit.optimize_mixture(fit, **at, target=FEW).weights,
        dict.fromkeys(corpus.sources, 1 / len(corpus.sources)),
        {s: n / sum(tokens.values()) for s, n in tokens.items()},
    ]
    inner = folder / "decision"
    inner.mkdir(exist_ok=True)
    recipe = (HERE / "study.toml").read_text(encoding="utf-8").split("[[grid]]")[0]
    grid = (
        f'[[grid]]\nsizes = ["440k"]\ntokens = [{DECISION_TOKENS}]\nseeds = {list(SEEDS)}\nmixtures = [\n'
        + "".join(f"  {_inline(m)},\n" for m in mixtures)
        + "]\n"
    )
    _specify(inner, corpus, recipe + grid)
    return inner


def _specify(folder: Path, corpus: Corpus, rest: str) -> None:
    path = Path(*[".."] * (folder.name == "decision")) / "corpora" / corpus.path.name
    (folder / "study.toml").write_text(f'corpus = "{path.as_posix()}"\n\n{rest}', encoding="utf-8")


def _inline(mixture: Any) -> str:
    """A mixture as TOML, rounded to four digits; what rounding takes or adds goes to the largest weight."""
    rounded = {s: round(float(w), 4) for s, w in mixture.items()}
    first = max(rounded, key=lambda s: rounded[s])
    rounded[first] = round(rounded[first] + 1 - sum(rounded.values()), 4)
    return "{" + ", ".join(f"{s} = {w}" for s, w in rounded.items() if w > 0) + "}"


def main(arguments: list[str]) -> int:
    """Prepare the study in the folder that is named, and run what is not done of it."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    from lawkit.cli import main as command

    folder = Path(arguments[0])
    try:
        corpus = prepare(folder)
        status = command(["study", "run", str(folder)])
        return status or command(["study", "run", str(prepare_decision(folder, corpus))])
    except LawkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
