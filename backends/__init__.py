"""Backends: where the results of proxy runs come from, installed as ``lawkit.backends``.

A backend takes specifications of runs and answers with a runs table. `Torchtitan` trains them.
Two need no training: `Replay` answers from runs that were recorded before, `Simulate` from a
known law with noise.
Third parties add theirs by an entry point in the group ``lawkit.backends`` that loads the
class; `get` finds both.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lawkit._plugins import Plugins

if TYPE_CHECKING:
    from lawkit.backends._backend import Backend, RunSpec
    from lawkit.backends.replay import Replay
    from lawkit.backends.simulate import Simulate
    from lawkit.backends.torchtitan import Torchtitan

__all__ = ["BUILTIN", "Backend", "Replay", "RunSpec", "Simulate", "Torchtitan", "get", "names"]

#: (name, module, class) of every backend of ours; a test compares it with the files on disk.
BUILTIN: tuple[tuple[str, str, str], ...] = (
    ("replay", "replay", "Replay"),
    ("simulate", "simulate", "Simulate"),
    ("torchtitan", "torchtitan", "Torchtitan"),
)
_PUBLIC = {"Backend": "_backend", "RunSpec": "_backend", **{cls: module for _, module, cls in BUILTIN}}


_PLUGINS = Plugins(kind="backend", builtin=BUILTIN, method="run")


def names() -> list[str]:
    """Names of all backends that are installed, ours first."""
    return _PLUGINS.names()


def get(name: str) -> type[Backend]:
    """Return the backend class of that name.

    Raises
    ------
    LawkitError
        When no installed package has a backend of that name.

    Examples
    --------
    >>> get("replay").__name__
    'Replay'
    """
    return _PLUGINS.get(name)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"lawkit.backends.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
