"""Write docs/cli.md from the commands' own help, so that the two cannot drift apart.

``python -m lawkit.cli._docs docs/cli.md`` writes it; with ``--check`` it says whether the file
is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lawkit.cli import cli

_HEAD = """\
# The command line

Generated from the commands' own help by `make docs`; do not edit.

Sizes read `7e9`, `7B`, `300M` or `2T`. Results go to standard output, everything else to standard error;
`--json` prints one object. The exit status is 0 when all went well, 2 for a usage error, and 1 for anything
that lawkit refuses, with one message that says what was wrong and what to do next. `lawkit --debug ...`
or `LAWKIT_DEBUG=1` adds the traceback.
"""


def render() -> str:
    """Return the text of docs/cli.md."""
    parts = [_HEAD]
    _describe(cli, "lawkit", None, parts)
    return "\n".join(parts)


def _describe(command: click.Command, path: str, parent: click.Context | None, parts: list[str]) -> None:
    name = path.rsplit(" ", 1)[-1]
    context = command.make_context(name, [], parent, resilient_parsing=True, terminal_width=100)
    parts.append(f"## {path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                _describe(child, f"{path} {name}", context, parts)


def main(arguments: list[str]) -> int:
    """Write or check the file; return the exit status."""
    check = "--check" in arguments
    (target,) = (Path(a) for a in arguments if a != "--check")
    text = render()
    if not check:
        target.write_text(text, encoding="utf-8")
        return 0
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return 0
    print(f"{target} is not what the commands' help says now: run make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
