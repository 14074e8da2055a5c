"""The command line: one file a command, loaded only when it is called.

Each module ``lawkit/cli/<command>.py`` exports one :class:`click.Command` named ``command``
and imports at its top nothing heavier than click, so that ``lawkit --help`` stays quick.
Numerical libraries are imported inside the command that needs them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from lawkit.cli import _output

__all__ = ["COMMANDS", "cli", "main"]

#: Every command, in the order in which a user meets them.
COMMANDS = (
    "runs",
    "datasets",
    "corpus",
    "laws",
    "fit",
    "compare",
    "predict",
    "optimize-mixture",
    "allocate",
    "propose-runs",
    "generate",
    "study",
)


class LazyGroup(click.Group):
    """A click group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of :data:`COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"lawkit.cli.{cmd_name.replace('-', '_')}").command


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"lawkit {version('lawkit')}")
    ctx.exit()


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error (also LAWKIT_DEBUG=1).")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def cli(debug: bool) -> None:
    """From cheap proxy runs to the data mixture of the run you can afford once.

    A runs table has one row a trained model: its size, its tokens, its mixture
    weights and its losses. lawkit fits a scaling law to it, says how far the law
    can be trusted, finds the best mixture at a scale nobody has trained yet, and
    proposes the proxy runs that are worth their flops.

    \b
    Example:
      lawkit runs check runs.csv
      lawkit fit runs.csv -o fit
      lawkit optimize-mixture fit --n-params 7B --n-tokens 1T
      lawkit propose-runs fit --n-params 7B --n-tokens 1T --budget 1e20
    """
    if debug:
        _output.set_debug()


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    args
        The arguments after the program's name; ``sys.argv[1:]`` when None.

    Returns
    -------
    int
        0 when all went well; 2 for a usage error; 1 for anything lawkit refuses and for a
        bug; 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    again = ["lawkit", "--debug", *(a for a in arguments if a != "--debug")]
    with _output.quiet_libraries():
        return _output.guarded(
            lambda: cli.main(args=arguments, prog_name="lawkit", standalone_mode=False), again
        )
