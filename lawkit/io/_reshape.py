"""Published files that are no table as they stand, made into one without running anything they say."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from lawkit.errors import RunsError

__all__ = ["RESHAPERS"]


def _slimpajama7(content: bytes, where: str) -> bytes:
    """Keep the rows of the two model sizes, byte for byte."""
    lines = content.splitlines(keepends=True)
    header = lines[0].decode("utf-8", "replace").strip().split(",") if lines else []
    if "model_size" not in header:
        raise RunsError(f"{where}: has no column model_size, so it is not the table. Nothing was written.")
    position = header.index("model_size")
    sizes = ([b"122000000.0"], [b"310000000.0"])
    kept = [line for line in lines[1:] if line.split(b",")[position : position + 1] in sizes]
    return b"".join([lines[0], *kept])


def _pile4(content: bytes, where: str) -> bytes:
    """Turn two literals of a Python file, mixtures and losses by key, into rows of the sizes 90M and 200M."""
    literals: dict[str, Any] = {}
    try:
        for node in ast.parse(content).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if name in ("raw", "h"):
                    literals[name] = ast.literal_eval(node.value)
        losses, mixtures = literals["raw"], literals["h"]
        domains = ("Github", "Gutenberg", "StackExchange", "Wikipedia")
        keys = sorted({key[:3] for key in losses if key[0] in ("90M", "200M")})
        names = [domain.lower() for domain in domains]
        header = ["model_size", "n_tokens", "mixture", *(f"weight_{name}" for name in names)]
        rows = [",".join(header + [f"{name}_loss" for name in names])]
        for size, tokens, mixture in keys:
            found = [losses.get((size, tokens, mixture, f"{domain}_text_document")) for domain in domains]
            cells = [float(size[:-1]) * 1e6, float(tokens[:-1]) * 1e9, mixture, *mixtures[mixture], *found]
            rows.append(",".join("" if cell is None else repr(cell) for cell in cells))
    except (SyntaxError, ValueError, LookupError, TypeError, AttributeError, MemoryError, RecursionError):
        raise RunsError(f"{where}: is not the file with the Pile figures. Nothing was written.") from None
    return ("\n".join(rows) + "\n").encode()


RESHAPERS: dict[str, Callable[[bytes, str], bytes]] = {"slimpajama7": _slimpajama7, "pile4": _pile4}
