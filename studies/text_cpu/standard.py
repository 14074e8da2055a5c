"""Text that every Python installation has, for machines on which the study's texts cannot be fetched."""

from __future__ import annotations

import ast
import contextlib
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def texts(into: Path) -> dict[str, Path]:
    """Write the standard library's code and its documentation as one JSON lines file each, and return them."""
    into.mkdir(parents=True, exist_ok=True)
    files = {name: into / f"{name}.jsonl" for name in ("code", "docs")}
    with files["code"].open("w", encoding="utf-8") as code, files["docs"].open("w", encoding="utf-8") as docs:
        for source in _modules():
            with contextlib.suppress(SyntaxError, ValueError):
                documentation = "\n\n".join(_docstrings(ast.parse(source)))
                for file, text in ((code, source), (docs, documentation)):
                    if len(text) >= 200:
                        file.write(json.dumps({"text": text}) + "\n")
    return files


def _modules() -> Iterator[str]:
    """The standard library's modules, without tests and what was installed later."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if not {"test", "tests", "idle_test", "site-packages", "lib2to3"} & set(path.relative_to(root).parts):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                yield path.read_text(encoding="utf-8")


def _docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text
