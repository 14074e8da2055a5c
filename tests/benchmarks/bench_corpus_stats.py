"""How fast the statistics of a corpus are, and in how much memory.

    python tests/benchmarks/bench_corpus_stats.py [--times N]

A corpus is built from Python's own library; its training text is then repeated N times (300), and described in a
process of its own: the unigrams and lengths alone, then with the search for copies. The slope between two sizes is the
speed; the most memory of each process is printed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from lawkit.corpus import build

PROGRAM = """
import json, sys, time
import scipy.optimize, tokenizers  # their time is not ours
from lawkit.corpus import stats
started = time.process_time()
found = stats(sys.argv[1], ['b'], domains=['b'], input=sys.argv[2] if len(sys.argv) > 2 else None)
peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]
print(json.dumps([found.n_tokens_read, time.process_time() - started, int(peak) / 1024]))
"""


def repeated(path: Path, times: int, folder: Path) -> Path:
    """Copy a corpus and repeat its training text."""
    shutil.copytree(path, folder)
    manifest = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    for name, about in manifest["sources"].items():
        file = folder / name / "train.bin"
        file.write_bytes(file.read_bytes() * times)
        about["train"]["tokens"] *= times
    (folder / "corpus.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=300)
    times = parser.parse_args().times
    library = sysconfig.get_path("stdlib")
    with tempfile.TemporaryDirectory() as name:
        sources = {"a": f"{library}/[a-h]*.py", "b": f"{library}/[i-z]*.py"}
        path = build(sources, Path(name) / "out", encoding_errors="replace").path
        few = max(times // 10, 1)
        for extra, what in (([], "unigrams, lengths, diversity"), (["a"], "and copies")):
            found = []
            for n in (few, times):
                folder = repeated(path, n, Path(name) / "repeated")
                done = subprocess.run(
                    [sys.executable, "-c", PROGRAM, str(folder), *extra], capture_output=True, check=True
                )
                shutil.rmtree(folder)
                found.append(json.loads(done.stdout))
                tokens, seconds, peak = found[-1]
                print(
                    f"{what}: {tokens / 1e6:.1f}M tokens read in {seconds:.2f} CPU s, most memory {peak:.0f} MiB"
                )
            slope = (found[1][0] - found[0][0]) / 1e6 / (found[1][1] - found[0][1])
            print(
                f"{what}: {slope:.0f} million tokens a CPU second beyond the first {found[0][0] / 1e6:.1f}M"
            )


if __name__ == "__main__":
    main()
