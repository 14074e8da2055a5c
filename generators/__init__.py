"""Generators: synthetic text on demand, installed as ``lawkit.generators``.

`generate` turns documents into a folder of synthetic text, a source like any other. Who answers is a
generator: `Fleet` asks servers, `Server` starts one on this machine, `InProcess` runs the model in
this process, `Replay` reads recorded answers. Third parties add theirs by an entry point in the
group ``lawkit.generators`` that loads a class; `get` finds both::

    [project.entry-points."lawkit.generators"]
    mine = "package.module:Generator"
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lawkit._plugins import Plugins
from lawkit.errors import GeneratorError

if TYPE_CHECKING:
    from lawkit.generators._generator import Answer, Failure, Generator, Request
    from lawkit.generators._job import Progress, generate
    from lawkit.generators._summary import Generated, read_generated
    from lawkit.generators.filters import Filters
    from lawkit.generators.fleet import Fleet
    from lawkit.generators.in_process import InProcess
    from lawkit.generators.replay import Replay
    from lawkit.generators.server import Server
    from lawkit.generators.styles import STYLES, get_style

__all__ = [
    "BUILTIN",
    "STYLES",
    "Answer",
    "Failure",
    "Filters",
    "Fleet",
    "Generated",
    "Generator",
    "InProcess",
    "Progress",
    "Replay",
    "Request",
    "Server",
    "generate",
    "get",
    "get_style",
    "names",
    "read_generated",
]

#: (name, module, class) of every generator of ours; a test compares it with the files on disk.
BUILTIN: tuple[tuple[str, str, str], ...] = (
    ("fleet", "fleet", "Fleet"),
    ("server", "server", "Server"),
    ("in-process", "in_process", "InProcess"),
    ("replay", "replay", "Replay"),
)
_PUBLIC = {
    "Answer": "_generator",
    "Failure": "_generator",
    "Filters": "filters",
    "Generated": "_summary",
    "Generator": "_generator",
    "Progress": "_job",
    "Request": "_generator",
    "STYLES": "styles",
    "generate": "_job",
    "get_style": "styles",
    "read_generated": "_summary",
    **{cls: module for _, module, cls in BUILTIN},
}


_PLUGINS = Plugins(kind="generator", builtin=BUILTIN, method="answers", error=GeneratorError)


def names() -> list[str]:
    """Names of all generators that are installed, ours first."""
    return _PLUGINS.names()


def get(name: str) -> Any:
    """Return the generator class of that name.

    Raises
    ------
    GeneratorError
        When no installed package has a generator of that name.

    Examples
    --------
    >>> get("fleet").__name__
    'Fleet'
    """
    return _PLUGINS.get(name)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"lawkit.generators.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
