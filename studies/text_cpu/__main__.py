"""Fetch the texts, build the corpus, and train the runs: `python -m lawkit.studies.text_cpu FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from lawkit.errors import LawkitError
from lawkit.studies.text_cpu.sources import fetch

HERE = Path(__file__).resolve().parent
#: Of the byte-level BPE that all five sources are read with.
VOCABULARY = 1024


def prepare(folder: Path) -> Path:
    """Make the study's folder with its corpus and specification, and return it.

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
    (folder / "study.toml").write_text(
        f'corpus = "{corpus.path.relative_to(folder).as_posix()}"\n\n{written}'
    )
    return folder


def main(arguments: list[str]) -> int:
    """Prepare the study in the folder that is named, and run what is not done of it."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    from lawkit.cli import main as command

    try:
        folder = prepare(Path(arguments[0]))
    except LawkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return command(["study", "run", str(folder)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
