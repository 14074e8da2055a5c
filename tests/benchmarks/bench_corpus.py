"""How fast a corpus is built, against the tokenizers library alone, and in how much memory.

    python tests/benchmarks/bench_corpus.py [FILES...] [--gigabytes G]

FILES are text of your own, one source each; without any, Python's own library is read. --gigabytes builds, in a
second process, from one jsonl of that size made of paragraphs of the same text in random order, and prints the most
memory that process had; it needs that much room in the folder for temporary files, and minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from lawkit.corpus import Progress, build
from lawkit.corpus._tokenizer import load_tokenizer


class Clock:
    """CPU seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage, self._since = "", time.process_time()

    def __call__(self, progress: Progress | None) -> None:
        now = time.process_time()
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = progress.stage if progress else "", now


def measure(sources: dict[str, str], out: Path) -> Path:
    """Build, print the CPU seconds, return the corpus's folder."""
    clock, started = Clock(), time.process_time()
    corpus = build(sources, out, encoding_errors="replace", progress=clock)
    clock(None)
    total = time.process_time() - started
    n_bytes = sum(about["bytes"] for about in corpus.manifest["sources"].values())
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    stages = ", ".join(f"{stage or 'start'} {s:.1f}" for stage, s in clock.seconds.items() if s >= 0.05)
    print(f"build: {n_bytes / 1e6:.0f} MB in {total:.1f} CPU s, {n_bytes / 1e6 / total:.1f} MB/s ({stages})")
    print(
        f"       {n_bytes / 1e6 / clock.seconds['encode']:.1f} MB/s of encoding alone; most memory {rss / 1e6:.0f} MB"
    )
    return corpus.path


def library_alone(files: list[Path], tokenizer: Path, most: int = 10_000_000) -> None:
    """Print how fast the library encodes the same text without any of the rest."""
    texts, size = [], 0
    for path in files:
        texts.append(path.read_text(encoding="utf-8", errors="replace")[: most - size])
        size += len(texts[-1].encode())
        if size >= most:
            break
    loaded = load_tokenizer(tokenizer)
    started = time.process_time()
    for text in texts:
        loaded.encode_batch_fast([text], add_special_tokens=False)
    print(f"the library alone: {size / 1e6 / (time.process_time() - started):.1f} MB/s of encoding")


def large(files: list[Path], gigabytes: float, folder: Path) -> Path:
    """Write a jsonl of that size: documents of 20 paragraphs, drawn at random."""
    found = [
        p for f in files for p in f.read_text(encoding="utf-8", errors="replace").split("\n\n") if p.strip()
    ]
    rng, path, size = random.Random(0), folder / "large.jsonl", 0
    with path.open("w", encoding="utf-8") as out:
        while size < gigabytes * 1e9:
            size += out.write(json.dumps({"text": "\n\n".join(rng.choices(found, k=20))}) + "\n")
    return path


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--gigabytes", type=float)
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    files: list[Path] = asked.files
    if not files:
        library = Path(sysconfig.get_path("stdlib"))
        files = [
            p for p in sorted(library.rglob("*.py")) if "site-packages" not in p.parts and p.stat().st_size
        ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.only or asked.files:
            measure({f"s{i}": str(path) for i, path in enumerate(files)}, folder / "out")
            return
        path = measure({"library": [str(p) for p in files]}, folder / "out")  # type: ignore[dict-item]
        library_alone(files, path / "tokenizer.json")
        if asked.gigabytes:
            file = large(files, asked.gigabytes, folder)
            print(f"{file.stat().st_size / 1e9:.1f} GB:", flush=True)
            subprocess.run([sys.executable, __file__, str(file), "--only"], check=True)


if __name__ == "__main__":
    main()
