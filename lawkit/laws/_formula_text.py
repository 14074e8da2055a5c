"""A formula as text: its characters checked, and refusals that show the place."""

from __future__ import annotations

import ast
import keyword
import re

from lawkit.errors import LawError

ALLOWED = "allowed: numbers, + - * / **, parentheses, exp log sqrt, N, D, U, w_<source> and parameter names"

# Limits far beyond a readable law; they keep any text from exhausting the parser, sympy or the reader.
MAX_CHARACTERS = 20_000
MAX_TOKENS = 4_000
MAX_DEPTH = 30

_TOKEN = re.compile(
    r"(?P<space> +)"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?P<glued>[A-Za-z0-9_.]*))"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<operator>\*\*|//|[-+*/(),.~])",
    re.ASCII,
)
_INSTEAD = {
    "^": "write ** for a power",
    "=": "write only the right-hand side, the loss; a formula compares and assigns nothing",
    "[": "write w_<source> for a weight; there is no indexing",
    "'": "text has no place in a formula",
    '"': "text has no place in a formula",
    "·": "write * for a product",
    "×": "write * for a product",
    "−": "write - (the ASCII minus)",
    "–": "write - (the ASCII minus)",
}
# Letters of other alphabets that look like the ones a formula uses.
_LOOKALIKES = dict(zip("ΑΒΕΗΚΜΝΟΡΤΧАВЕКМНОРСТХаеорсхνοΙІ", "ABEHKMNOPTXABEKMHOPCTXaeopcxvoII", strict=True))


class FormulaText:
    """The characters of one formula.

    Attributes
    ----------
    line
        The text on one line, every column in place.
    indent
        Number of blanks before the first character.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise LawError(f"a formula is text such as 'E + A/N**alpha', got {type(text).__name__}")
        self.line = re.sub(r"\s", " ", text)
        self.indent = len(self.line) - len(self.line.lstrip())

    # ---- refusals -----------------------------------------------------------------------------------------

    def error(self, what: str, at: int, length: int = 1, advice: str = "") -> LawError:
        """Say what is wrong at a column (from 0), show it, and give advice."""
        echo, marks = self._window(at, length)
        message = f"formula, character {at + 1}: {what}\n  {echo}\n  {marks}"
        return LawError(f"{message}\n{advice}" if advice else message)

    def error_at(self, node: ast.expr, what: str, advice: str = "") -> LawError:
        """Like `error`, at a node of the parsed text."""
        length = (node.end_col_offset or node.col_offset + 1) - node.col_offset
        return self.error(what, node.col_offset + self.indent, length, advice)

    def error_overall(self, what: str, advice: str = "") -> LawError:
        """Like `error`, about the whole formula."""
        return self.error(what, self.indent, len(self.line.strip()), advice)

    def source(self, node: ast.expr) -> str:
        """Return the characters that a node was parsed from."""
        return self.line[self.indent :][node.col_offset : node.end_col_offset]

    def _window(self, at: int, length: int, width: int = 68) -> tuple[str, str]:
        """Cut out the part around a place; put carets under the place."""
        line = "".join(c if c.isprintable() else "?" for c in self.line)
        start = 0 if len(line) <= width else max(0, min(at - width // 2, len(line) - width))
        stop = min(len(line), start + width)
        left, right = "..." if start else "", "..." if stop < len(line) else ""
        carets = "^" * max(1, min(length, stop - at))
        return left + line[start:stop] + right, " " * (len(left) + at - start) + carets

    # ---- characters and structure -------------------------------------------------------------------------

    def parse(self) -> ast.expr:
        """Parse the text into Python's syntax tree, after refusing what no formula contains.

        Raises
        ------
        LawError
            With a better message than a parser's.
        """
        self._scan()
        stripped = self.line.strip()
        try:
            return ast.parse(stripped, mode="eval").body
        except SyntaxError as error:
            at = (error.offset or 1) - 1 + self.indent
            if "never closed" in error.msg or "unmatched" in error.msg:
                raise self.error("this parenthesis has no partner", at) from None
            if stripped[-1] in "+-*/(~,":
                end = self.indent + len(stripped)
                raise self.error(
                    "the formula ends too early", end, advice="a number or a name must follow"
                ) from None
            raise self.error(
                "unexpected here (is an operator or a name missing?)", at, advice=ALLOWED
            ) from None
        except (MemoryError, RecursionError, ValueError):
            raise self.error("the formula is nested or chained too deeply", self.indent) from None

    def _scan(self) -> None:
        line = self.line
        if not line.strip():
            raise LawError("the formula is empty; write one such as 'E + A/N**alpha + B/D**beta'")
        if len(line) > MAX_CHARACTERS:
            raise self.error(f"the formula has {len(line):,} characters; the limit is {MAX_CHARACTERS:,}", 0)
        at = tokens = depth = 0
        while at < len(line):
            match = _TOKEN.match(line, at)
            if match is None:
                raise self._strange_character(at)
            token = match.group()
            tokens += match.lastgroup != "space"
            depth += (token == "(") - (token == ")")
            if tokens > MAX_TOKENS:
                raise self.error(f"the formula has more than {MAX_TOKENS:,} numbers, names and operators", at)
            if depth > MAX_DEPTH:
                raise self.error(f"parentheses are nested more than {MAX_DEPTH} deep here", at)
            if match["glued"]:
                advice = f"write a product as {shorten(token[: -len(match['glued'])])}*name, a size as 7e9"
                raise self.error(f"{shorten(token)!r} is not a number", at, len(token), advice)
            if keyword.iskeyword(token):
                what = f"{token!r} is a word of the Python language and cannot name a parameter"
                raise self.error(what, at, len(token), f"{token}_ would do; {ALLOWED}")
            if token.startswith("_"):
                raise self.error(f"{shorten(token)!r} begins with an underscore", at, len(token), ALLOWED)
            at = match.end()

    def _strange_character(self, at: int) -> LawError:
        character = self.line[at]
        what = repr(character) if character.isprintable() else f"the character U+{ord(character):04X}"
        advice = _INSTEAD.get(character, ALLOWED)
        if character in _LOOKALIKES:
            what += f" (U+{ord(character):04X})"
            advice = f"it only looks like the letter {_LOOKALIKES[character]!r}; did you mean that one?"
        elif character.isalpha():
            advice = "names are written with the letters A-Z, a-z, digits and _"
        return self.error(f"{what} has no place in a formula", at, advice=advice)


def shorten(text: str, limit: int = 40) -> str:
    """Cut a long name for a message."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
