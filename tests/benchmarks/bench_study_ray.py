"""Speed-up of a study on Ray over one worker, on simulated runs that only wait.

A cluster of four machines with eight processors each is started on this one. Workers are started, and import lawkit,
before anything is timed: on few processors that takes longer than the runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

from lawkit.study import Store, read_study
from lawkit.study.bench import make_bench
from lawkit.study.ray_executor import RayExecutor
from lawkit.study.training import train

SECONDS, EACH = float(os.environ.get("SECONDS_A_RUN", "8")), 2
STUDY = """
[backend]
name = "simulate"
law = "chinchilla"
sources = ["web"]
seconds = {seconds}
parameters = {{wiki = {{E = 1.7, A = 400.0, B = 410.0, alpha = 0.34, beta = 0.28}}}}
[[grid]]
sizes = [1e8]
tokens = [2e9]
mixtures = [{{web = 1.0}}]
seeds = {seeds}
"""


def timed(base: Path, executor: RayExecutor, workers: int, runs: int) -> float:
    """Seconds of a study of so many runs."""
    folder = base / f"{workers}-{time.monotonic_ns()}"
    folder.mkdir()
    (folder / "study.toml").write_text(STUDY.format(seconds=SECONDS, seeds=list(range(runs))))
    spec = read_study(folder)
    bench = make_bench(spec)
    executor._work, executor._workers = bench.work, workers
    with Store(folder) as store:
        store.propose(spec.plan(bench))
        begun = time.perf_counter()
        assert train(folder, bench, store, executor, 0, None) == runs
        return time.perf_counter() - begun


def main() -> None:
    script = Path(__file__).resolve().parent.parent / "ray_cluster.py"
    cluster = subprocess.Popen(
        [sys.executable, str(script), "4", "8"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert cluster.stdout is not None
    address = next(line for line in cluster.stdout if line.startswith("address ")).split()[1]
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        (base / "study.toml").write_text(STUDY.format(seconds=SECONDS, seeds=[0]))
        executor = RayExecutor(make_bench(read_study(base)).work, None, address=address)
        print(f"warm-up of 32 workers: {timed(base, executor, 32, 64):.0f} s", flush=True)
        one = None
        for workers in [int(w) for w in sys.argv[1:]] or (1, 2, 4, 8, 16, 32):
            took = timed(base, executor, workers, EACH * workers)
            rate = EACH * workers / took
            one = one or rate
            speed = f"{rate / one:5.2f} times one, {rate / one / workers:.2f} a worker"
            print(f"{workers:3d} workers: {took:5.1f} s, {speed}", flush=True)
        executor.close()
    assert cluster.stdin is not None
    cluster.stdin.close()
    cluster.wait(timeout=120)


if __name__ == "__main__":
    main()
