"""Classes of ours and of other packages, found by name: a group of entry points behind one table of our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from lawkit.errors import LawkitError


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """One kind of class.

    Attributes
    ----------
    kind
        What one is called, in messages; the group of entry points and the package of ours are called lawkit.<kind>s.
    builtin
        (name, module, class) of each of ours.
    method
        What a class of this kind has.
    error
        What is raised where there is no such class.
    """

    kind: str
    builtin: Sequence[tuple[str, str, str]]
    method: str
    error: type[LawkitError] = LawkitError

    def names(self) -> list[str]:
        """Names of all that are installed, ours first."""
        ours = [name for name, _, _ in self.builtin]
        return ours + sorted({point.name for point in entry_points(group=self._home)} - set(ours))

    def get(self, name: str) -> Any:
        """The class of that name.

        Raises
        ------
        LawkitError
            Of the kind `error`, when no installed package has it, several have, or what it names is no such class.
        """
        for known, module, cls in self.builtin:
            if known == name:
                return getattr(import_module(f"{self._home}.{module}"), cls)
        points = [point for point in entry_points(group=self._home) if point.name == name]
        if len(points) > 1:
            raise self.error(
                f"{len(points)} installed packages have a {self.kind} {name!r}: uninstall all but one"
            )
        for point in points:
            where = f"the entry point {point.value!r} of {self.kind} {name!r}"
            try:
                found = point.load()
            except Exception as error:
                raise self.error(f"{where} cannot be loaded: {error}") from error
            if not hasattr(found, self.method):
                raise self.error(f"{where} loads no class with a method {self.method}")
            return found
        raise self.error(f"no {self.kind} {name!r}; there are {', '.join(self.names())}")

    @property
    def _home(self) -> str:
        return f"lawkit.{self.kind}s"
