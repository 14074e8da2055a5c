"""What the commands print: one JSON object, tables that fit, errors in one message.

Results go to stdout; warnings, progress and errors go to stderr, so that ``--json`` leaves
one object on stdout and nothing else.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

#: Width given to rich where nobody looks at a screen: lines are never broken in a pipe.
_PIPE_WIDTH = 10_000

_debug = False


def set_debug(on: bool = True) -> None:
    """Ask for tracebacks instead of one-line errors."""
    global _debug
    _debug = on


def debugging() -> bool:
    """Whether tracebacks were asked for, by ``--debug`` or by ``LAWKIT_DEBUG``."""
    return _debug or os.environ.get("LAWKIT_DEBUG", "") not in ("", "0")


# --- errors -----------------------------------------------------------------------------


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep Python warnings of libraries off the user's screen, unless debugging.

    What a user should know about a fit is collected in the result's own ``warnings``.
    """
    with warnings.catch_warnings():
        if not debugging():
            warnings.simplefilter("ignore")
        yield


def guarded(call: Callable[[], Any], again: Sequence[str]) -> int:
    """Run ``call`` and turn whatever happens into a message and an exit status.

    ``again`` is the command that would show the traceback of a bug.
    """
    from lawkit.errors import LawkitError

    set_debug(False)
    try:
        status = call()
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        return _reader_left()
    except LawkitError as error:
        _show_traceback()
        _complain(str(error))
        return 1
    except MemoryError:
        _show_traceback()
        _complain("out of memory: close other programs, or fit fewer rows or domains at once")
        return 1
    except OSError as error:
        _show_traceback()
        _complain(_os_message(error))
        return 1
    except Exception as error:
        _show_traceback()
        _complain(
            f"this is a bug in lawkit ({type(error).__name__}: {_one_line(str(error))}). "
            f"For the traceback to report, run: {shlex.join(again)}"
        )
        return 1


def _reader_left() -> int:
    """Leave quietly when the reader of our output (``| head``) has gone away."""
    # Python flushes stdout once more at exit; give it somewhere to write.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _show_traceback() -> None:
    if debugging():
        import traceback

        traceback.print_exc(file=sys.stderr)


def _complain(message: str) -> None:
    click.echo(f"error: {message}", err=True)


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 200 else flat[:197] + "..."


def _os_message(error: OSError) -> str:
    reason = error.strerror or _one_line(str(error))
    return f"{error.filename}: {reason}" if error.filename else reason


# --- JSON -------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Return ``value`` as what JSON knows: numpy becomes Python, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def emit_json(value: Mapping[str, Any]) -> None:
    """Write one JSON object to stdout, at full precision."""
    click.echo(json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False))


# --- people -----------------------------------------------------------------------------


def console(*, stderr: bool = False) -> Console:
    """Return a rich console that neither colours nor wraps what goes into a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table; on a screen too narrow for it, print each row as a short list.

    Parameters
    ----------
    columns
        The headings. The first column names the row.
    rows
        Cells as values: floats are written by :func:`number`, None as a dash.
    title
        A line above the table.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    out = console()
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        return
    # A column in which no row has anything to say is left out.
    kept = [i for i in range(len(columns)) if i == 0 or any(row[i] != "-" for row in cells)]
    columns, cells = [columns[i] for i in kept], [[row[i] for i in kept] for row in cells]
    if title:
        out.print(title)
    widths = [max([cell_len(c), *(cell_len(row[i]) for row in cells)]) for i, c in enumerate(columns)]
    if sum(widths) + 3 * len(columns) > out.width:
        for row in cells:
            # A bare number would not say what it counts.
            out.print(f"{columns[0]} {row[0]}" if _looks_numeric(row[0]) else row[0], soft_wrap=True)
            told = [(c, cell) for c, cell in zip(columns[1:], row[1:], strict=True) if cell != "-"]
            _print_pairs(out, told, margin="  ")
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, name in enumerate(columns):
        right = all(_looks_numeric(row[i]) for row in cells)
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    with out.capture() as captured:
        out.print(table)
    out.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def show_pairs(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print name and value, one pair a line."""
    _print_pairs(console(), [(name, _cell(value)) for name, value in pairs])


def _print_pairs(out: Console, pairs: Iterable[tuple[str, str]], margin: str = "") -> None:
    pairs = list(pairs)
    indent = margin + " " * (max((len(name) for name, _ in pairs), default=0) + 2)
    for name, value in pairs:
        first = margin + name.ljust(len(indent) - len(margin))
        wrapped = textwrap.wrap(
            value, max(out.width, len(indent) + 12), initial_indent=first, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        out.print("\n".join(wrapped) or first.rstrip(), soft_wrap=True)


def show_warnings(messages: Iterable[str]) -> None:
    """Print what the user should know about a result, to stderr."""
    out = console(stderr=True)
    for message in messages:
        out.print(f"warning: {message}", style="yellow")


def say(text: str = "") -> None:
    """Print a line to stdout."""
    console().print(text)


def note(text: str) -> None:
    """Print a line to stderr: where a file went, what comes next."""
    console(stderr=True).print(text, style="dim")


def working(text: str, *, quiet: bool = False) -> AbstractContextManager[Any]:
    """Show that something is under way, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        return nullcontext()
    return console(stderr=True).status(text)


def number(value: float | None, digits: int = 4) -> str:
    """Write a number for people: four significant digits, no needless exponent."""
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:.{digits}g}"
    if "e" in text and 1 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].strip("+"), text)


def percent(value: float | None, digits: int = 2) -> str:
    """Write a fraction as a percentage."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}%"


def size(value: float) -> str:
    """Write a count of parameters, tokens or flops as people say it: 7B, 1.5T, 1.2e21."""
    for unit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if unit <= value < 1e4 * unit:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:.4g}".replace("e+", "e")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) or type(value).__module__ == "numpy":
        return number(float(value))
    return str(value)


def _looks_numeric(cell: str) -> bool:
    try:
        float(cell.rstrip("%TBMk") or "x")
    except ValueError:
        return cell == "-"
    return True
