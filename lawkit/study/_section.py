"""Tables of a file, read key by key, so that what is wrong is named by its path."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lawkit.errors import StudyError
from lawkit.io._cells import parse_size

_MISSING = object()
#: Tokens that no run has; whole numbers that neither the store nor torch could hold.
_MOST_TOKENS, _MOST_WHOLE = 1e15, 2**63 - 1


class Section:
    """A table of a study's file; what it has is taken out, and what is left over at the end is a mistake."""

    def __init__(self, value: Any, path: str, file: str) -> None:
        self.path, self.file = path, file
        if not isinstance(value, Mapping):
            raise StudyError(f"{file}: {path} is {value!r}: it must be a table of keys and values")
        self._left = dict(value)
        self._asked: list[str] = []

    def fail(self, key: str, value: Any, rule: str) -> StudyError:
        """The error for a value that breaks a rule."""
        return StudyError(f"{self.file}: {self.at(key)} is {value!r}: {rule}")

    def at(self, key: str) -> str:
        """The path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def take(self, key: str, default: Any = _MISSING) -> Any:
        """The value of a key, as it stands."""
        self._asked.append(key)
        if key in self._left:
            return self._left.pop(key)
        if default is _MISSING:
            near = difflib.get_close_matches(key, self._left, n=1)
            hint = f"; did you mean it by {self.at(near[0])}?" if near else ""
            raise StudyError(f"{self.file}: {self.at(key)} is missing{hint}")
        return default

    def text(self, key: str, default: Any = _MISSING) -> Any:
        """A string that is not empty."""
        value = self.take(key, default)
        if value is not default and not (isinstance(value, str) and value):
            raise self.fail(key, value, "it must be a text")
        return value

    def whole(self, key: str, default: Any = _MISSING, *, least: int = 0) -> Any:
        """A whole number of at least `least`."""
        value = self.take(key, default)
        if value is not default and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise self.fail(key, value, f"it must be a whole number of {least} or more")
        if value is not default and value > _MOST_WHOLE:
            raise self.fail(key, value, f"it must be at most {_MOST_WHOLE}")
        return value

    def wholes(self, key: str, default: list[int]) -> list[int]:
        """A list of whole numbers of at least 0."""
        value = self.take(key, default)
        good = isinstance(value, list) and all(isinstance(x, int) and not isinstance(x, bool) for x in value)
        if not good or not value or min(value) < 0 or max(value) > _MOST_WHOLE:
            raise self.fail(
                key, value, f"it must be a list of whole numbers of 0 or more, at most {_MOST_WHOLE}"
            )
        return value

    def seconds(self, key: str, default: Any = _MISSING) -> Any:
        """A time above 0, in seconds."""
        value = self.take(key, default)
        if value is not default and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0
        ):
            raise self.fail(key, value, "it must be a number of seconds above 0")
        return value

    def sizes(self, key: str) -> list[float]:
        """A list of sizes such as "1M" or 2e6; one alone stands for a list of it."""
        value = self.take(key)
        each = value if isinstance(value, list) else [value]
        if not each:
            raise self.fail(key, value, "it must have at least one entry")
        return [self._size(f"{key}[{i}]" if isinstance(value, list) else key, v) for i, v in enumerate(each)]

    def size(self, key: str, *, most: float = _MOST_TOKENS) -> float:
        """A size such as "1M" or 2e6, of at most `most`."""
        return self._size(key, self.take(key), most)

    def number(self, key: str, default: float, *, least: float = 0.0, most: float = math.inf) -> float:
        """A finite number within limits."""
        value = self.take(key, default)
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not least <= value <= most:
            within = f"from {least:g} to {most:g}" if math.isfinite(most) else f"of {least:g} or more"
            raise self.fail(key, value, f"it must be a number {within}")
        return float(value)

    def switch(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, value, "it must be true or false")
        return value

    def choice(self, key: str, known: Sequence[str], default: str) -> str:
        """One of the words known."""
        value = self.take(key, default)
        if value not in known:
            close = difflib.get_close_matches(str(value), known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise self.fail(key, value, f"{hint}it must be one of {', '.join(known)}")
        return value

    def names(self, key: str, default: Sequence[str]) -> tuple[str, ...]:
        """A list of texts; one alone stands for a list of it."""
        value = self.take(key, list(default))
        each = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) and name for name in each):
            raise self.fail(key, value, "it must be a list of names")
        return tuple(each)

    @property
    def keys(self) -> list[str]:
        """What has not been taken yet."""
        return list(self._left)

    def end(self) -> None:
        """Refuse what has not been taken."""
        self.only(self._asked)

    def only(self, known: Sequence[str]) -> None:
        """Refuse what has not been taken and is none of the keys known."""
        for key in self._left:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                form = "{}" if self.path else _header(self._left[key])
                hint = f"did you mean {form.format(close[0])}?" if close else f"there are {', '.join(known)}"
                raise StudyError(f"{self.file}: {form.format(self.at(key))} is unknown; {hint}")

    def _size(self, key: str, value: Any, most: float = _MOST_TOKENS) -> float:
        number = math.nan
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            with contextlib.suppress(ValueError):
                number = parse_size(value)
        if not (math.isfinite(number) and number > 0):
            raise self.fail(key, value, 'it must be a positive number, such as 2e6 or "2M"')
        if number > most:
            raise self.fail(key, value, f"it must be at most {most:g}")
        return number


def _header(value: Any) -> str:
    """How a file begins a value: a table, and a list of them, by a header."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "[[{}]]"
    return "[{}]" if isinstance(value, Mapping) else "{}"
