"""A mixture in the files that trainers read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lawkit.errors import OptimizeError

#: Format by the end of a file's name; trainers' own are asked for by name.
_BY_SUFFIX = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}
FORMATS = ("json", "yaml", "torchtitan", "olmo-core")


def export_format(path: str | Path, format: str | None = None) -> str:
    """One of `FORMATS`: the one that is asked for, else what the file's name ends in says.

    Raises
    ------
    OptimizeError
        For an unknown format.
    """
    name = Path(path).name
    kind = format or _BY_SUFFIX.get(Path(path).suffix.lower())
    if kind not in FORMATS:
        told = f"unknown format {format!r}" if format else f"the name {name!r} does not say the format"
        raise OptimizeError(f"{told}: choose one of {', '.join(FORMATS)}")
    return kind


def export_mixture(
    weights: Mapping[str, float],
    path: str | Path,
    format: str | None = None,
    *,
    paths: Mapping[str, list[str]] | None = None,
    epochs: Mapping[str, float] | None = None,
) -> None:
    """Write a mixture to a file.

    Parameters
    ----------
    weights
        Source to fraction of the training tokens, sum 1.
    path
        The file; replaced if it exists.
    format
        'json' and 'yaml' hold source: weight. 'olmo-core' is the YAML of a `SourceMixtureList` (OLMo-core 2).
        'torchtitan' is JSON with the entries of a `DatasetMixConfig` (torchtitan's main branch; its configurations are
        Python, so each entry becomes a `WeightedDataset`). By default what the file's name ends in says.
    paths
        Source to files of tokens, for olmo-core; by default '<source>/*.npy', to be replaced.
    epochs
        Source to passes over its unique tokens, for olmo-core's `max_repetition_ratio`; 1 for those not named.

    Raises
    ------
    OptimizeError
        For an unknown format and a file that cannot be written.

    Notes
    -----
    Both trainers refuse weights of 0: sources without weight are left out there. OLMo-core's ratios are of tokens, as
    lawkit's weights are; torchtitan's choose documents, so that they are shares of tokens only where the sources'
    documents are about as long.
    """
    path, kind = Path(path), export_format(path, format)
    used = {s: w for s, w in weights.items() if w > 0}
    content: Any = dict(weights)
    if kind == "torchtitan":
        content = {"datasets": [{"dataset": s, "weight": w} for s, w in used.items()]}
    elif kind == "olmo-core":
        files, passes = paths or {}, epochs or {}
        content = {
            "sources": [
                {
                    "source_name": s,
                    "target_ratio": w,
                    "paths": list(files.get(s, [f"{s}/*.npy"])),
                    "max_repetition_ratio": max(1.0, float(passes.get(s, 1.0))),
                }
                for s, w in used.items()
            ]
        }
    if kind in ("json", "torchtitan"):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    else:
        import yaml

        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OptimizeError(f"{path} cannot be written: {error.strerror or error}") from None
