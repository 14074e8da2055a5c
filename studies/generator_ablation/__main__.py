"""Compare generators: `python -m lawkit.studies.generator_ablation FOLDER FILES... --model NAME=MODEL[@URL] ...`.

MODEL is served by vLLM on this machine, one after the other, or asked for at the URL. `lawkit study run FOLDER` then
trains the proxy runs.
"""

from __future__ import annotations

import argparse
import sys

from lawkit.errors import LawkitError
from lawkit.studies.generator_ablation.prepare import prepare


def main(arguments: list[str]) -> int:
    """Prepare the study that the arguments describe."""
    from lawkit.cli._types import parse_size
    from lawkit.generators import Fleet, Server

    parser = argparse.ArgumentParser(
        "python -m lawkit.studies.generator_ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--model", action="append", required=True, metavar="NAME=MODEL[@URL]")
    parser.add_argument("--style", default="hq")
    parser.add_argument("--tokens", type=parse_size, default=400e3, help="of each generator (default 400k)")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--input-tokens", type=int, default=2048)
    asked = parser.parse_args(arguments)
    try:
        generators = {}
        for text in asked.model:
            name, equals, model = text.partition("=")
            model, _, url = model.partition("@")
            if not (name and equals and model):
                parser.error(f"--model {text!r} is not of the form NAME=MODEL or NAME=MODEL@URL")
            if name in generators:
                parser.error(f"--model {name!r} is given twice: give each model a name of its own")
            generators[name] = Fleet(model, urls=[url]) if url else Server(model)
        folder = prepare(
            asked.folder,
            asked.files,
            generators,
            tokens=asked.tokens,
            style=asked.style,
            max_tokens=asked.max_tokens,
            input_tokens=asked.input_tokens,
            say=lambda said: print(said, file=sys.stderr),
        )
    except LawkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"lawkit study run {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
