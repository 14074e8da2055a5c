"""Worker processes: started, watched, ended with us, and their outcomes read."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lawkit.backends.torchtitan.process import PARENT
from lawkit.backends.torchtitan.records import LOG, RECORDS, Records
from lawkit.errors import BackendError

_MODULE = "lawkit.backends.torchtitan.worker"
#: Memory that a worker with a small model needs, most of it for torch itself.
_WORKER_BYTES = 1.5e9


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    folder
        Of the run.
    done
        What a finished run recorded of itself; None for a failed one.
    evals
        Its evaluations, in order.
    reason, message, step
        Why a failed run failed, and where: diverged, refused, disk, memory, error, killed, silent or late.
    """

    folder: Path
    done: dict[str, Any] | None = None
    evals: tuple[dict[str, Any], ...] = ()
    reason: str = ""
    message: str = ""
    step: int = 0

    @property
    def again(self) -> bool:
        """Whether it might go better another time: not so where the run itself is the cause."""
        return self.done is None and self.reason not in ("diverged", "refused")


def outcome(folder: str | Path, status: int | None = None) -> Outcome | None:
    """Read how the run of a folder ended; None where it has not, as far as its records tell.

    `status` is the exit status of its worker, where it is known to have ended.
    """
    records = Records(folder)
    done = records.last("done")
    if done:
        return Outcome(folder=Path(folder), done=done, evals=tuple(records.of("eval")), step=done["step"])
    if status is None:
        return None
    failed = records.last("failed")
    if failed and status > 0:
        return Outcome(
            folder=Path(folder),
            reason=failed["reason"],
            message=failed["message"],
            step=failed.get("step", 0),
        )
    last = records.last("train") or {}
    if status < 0:
        name = signal.Signals(-status).name
        message = f"the worker was killed by {name}" + (
            ", perhaps for want of memory" if status == -9 else ""
        )
        return Outcome(folder=Path(folder), reason="killed", message=message, step=last.get("step", 0))
    message = f"the worker ended with status {status}: {_last_line(Path(folder) / LOG)}"
    return Outcome(folder=Path(folder), reason="error", message=message, step=last.get("step", 0))


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1].strip()[:300] if lines else "it wrote nothing"


def slots(ranks: int = 1, workers: int | None = None, threads: int = 1) -> list[str | None]:
    """Where runs may be done at the same time on this machine: GPUs by their numbers, or None for a CPU.

    As many as there are groups of `ranks` GPUs or, without GPUs, as processors (for `threads` a rank) and memory allow;
    `workers` asks for another number.
    """
    gpus = _gpus()
    if gpus:
        groups = [gpus[i : i + ranks] for i in range(0, len(gpus) - ranks + 1, ranks)]
        if not groups:
            raise BackendError(f"{ranks} ranks are asked for, and this machine has {len(gpus)} GPUs")
        return list[str | None](",".join(group) for group in groups)[:workers]
    if workers is None:
        workers = max(1, min(_cores() // (ranks * threads), int(_free_memory() / (_WORKER_BYTES * ranks))))
    return [None] * workers


def _gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu.strip() not in ("", "-1")]
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    done = subprocess.run([command, "--list-gpus"], capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return [str(i) for i in range(len(found))]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    return float("inf")


@dataclass(kw_only=True)
class _Job:
    folder: Path
    process: subprocess.Popen[bytes]
    slot: str | None
    started: float = field(default_factory=time.monotonic)
    # What its files were when they last changed, and when we saw that: by a clock that does not jump, unlike theirs.
    signs: list[tuple[int, int]] = field(default_factory=list)
    changed: float = field(default_factory=time.monotonic)


class Pool:
    """Worker processes on this machine, each training one run.

    They die with this process. Closing the pool ends those that still run; they resume where they are started again.

    Parameters
    ----------
    where
        From `slots`.
    ranks
        Processes that train one run together.
    threads
        Processor threads of each process. Sums are taken in an order that depends on it, so that another number
        changes losses in their last bits.
    python
        Interpreter of the workers, which has torch; ours if not given.
    silent_s
        Seconds after which a worker that writes nothing is taken to hang, and killed.
    run_s
        Seconds after which any worker is killed; None: never.
    """

    def __init__(
        self,
        where: Sequence[str | None],
        *,
        ranks: int = 1,
        threads: int = 1,
        python: str | None = None,
        silent_s: float = 1800.0,
        run_s: float | None = None,
    ) -> None:
        self._free = list(where)
        self._ranks, self._python = ranks, python or sys.executable
        self._silent_s, self._run_s = silent_s, run_s
        self._threads = threads
        self._jobs: list[_Job] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> list[Path]:
        """Folders of the runs under way."""
        return [job.folder for job in self._jobs]

    @property
    def free(self) -> bool:
        """Whether another run can be started."""
        return bool(self._free)

    def start(self, folder: str | Path) -> int:
        """Start the run of a folder and return the number of its process.

        Raises
        ------
        BackendError
            When the process cannot be started.
        """
        slot = self._free.pop(0)
        environment = {**os.environ, PARENT: str(os.getpid()), "OMP_NUM_THREADS": str(self._threads)}
        if slot is not None:
            environment["CUDA_VISIBLE_DEVICES"] = slot
        command = [self._python, "-m", _MODULE, str(folder)]
        if self._ranks > 1:
            command += ["--ranks", str(self._ranks)]
        try:
            with (Path(folder) / LOG).open("ab") as log:
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            self._free.append(slot)
            raise BackendError(
                f"{error.filename or folder}: the worker cannot be started ({error.strerror})"
            ) from None
        self._jobs.append(_Job(folder=Path(folder), process=process, slot=slot))
        return process.pid

    def ended(self) -> list[Outcome]:
        """Outcomes of the runs that have ended since last asked."""
        found = []
        for job in list(self._jobs):
            status, late = job.process.poll(), None
            if status is None:
                late = self._too_long(job)
                if late is None:
                    continue
                self._kill(job)
            self._jobs.remove(job)
            self._free.append(job.slot)
            result = outcome(job.folder, job.process.returncode)
            assert result is not None
            if late and result.done is None:
                result = Outcome(folder=job.folder, reason=late[0], message=late[1], step=result.step)
            found.append(result)
        return found

    def close(self) -> None:
        """End the workers that still run."""
        for job in self._jobs:
            self._kill(job)
        self._jobs.clear()

    def _too_long(self, job: _Job) -> tuple[str, str] | None:
        now = time.monotonic()
        age = now - job.started
        if self._run_s is not None and age > self._run_s:
            return "late", f"killed after {age:.0f} s, the time limit of a run"
        signs = _signs(job.folder)
        if signs != job.signs:
            job.signs, job.changed = signs, now
        silent = now - job.changed
        if silent > self._silent_s:
            return "silent", f"killed for hanging: it wrote nothing for {silent:.0f} s"
        return None

    @staticmethod
    def _kill(job: _Job) -> None:
        # The whole session: ranks and all that they started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGKILL)
        job.process.wait()


def _signs(folder: Path) -> list[tuple[int, int]]:
    """Times and sizes of what a worker writes."""
    found = [path.stat() for path in (folder / RECORDS, folder / LOG) if path.is_file()]
    return [(stat.st_mtime_ns, stat.st_size) for stat in found]


def progress(folder: str | Path) -> dict[str, Any] | None:
    """The last training record of a run under way; None before its first."""
    return Records(folder).last("train")
