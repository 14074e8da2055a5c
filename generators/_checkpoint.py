"""What can be read off a model's folder without loading it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from lawkit.errors import GeneratorError

__all__ = ["count_parameters", "short_name"]


def short_name(model: str) -> str:
    """A folder's own name; any other name as it stands."""
    path = Path(model)
    return path.resolve().name if path.is_dir() else model


def count_parameters(model: str) -> float | None:
    """Non-embedding parameters of a folder's safetensors, from their headers; None where it has none.

    Neither the token embedding nor the output layer counts.

    Raises
    ------
    GeneratorError
        When a file is no safetensors.
    """
    total, files = 0, sorted(Path(model).glob("*.safetensors"))
    for path in files:
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            total += sum(
                math.prod(tensor["shape"])
                for name, tensor in header.items()
                if name != "__metadata__" and "embed_tokens" not in name and "lm_head" not in name
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
            raise GeneratorError(f"{path}: is no safetensors file ({error}).") from None
    return float(total) if files else None
