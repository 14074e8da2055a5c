"""Where runs are done: on this machine, on a Ray cluster, or by what a third party adds.

A study hands an executor the folder of a run, with its spec.json in it, and is told how the run ended. Nothing else
knows which executor it is. Third parties add theirs by an entry point in the group ``lawkit.executors`` that loads a
function (work, workers, **options) -> Executor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from lawkit._options import check_options
from lawkit.backends.torchtitan.launch import Outcome, Pool, slots
from lawkit.errors import LawkitError, StudyError
from lawkit.study.spec import StudySpec

#: Seconds between two looks at a process.
POLL_S = 0.1


class Executor(Protocol):
    """Does runs, several at a time. Closing it ends those under way; they resume where they are started again."""

    @property
    def running(self) -> list[Path]:
        """Folders of the runs under way."""
        ...

    @property
    def free(self) -> bool:
        """Whether another run can be started now."""
        ...

    def start(self, folder: Path) -> int | None:
        """Start the run of a folder, and return the number of its process where it has one here."""
        ...

    def ended(self) -> list[Outcome]:
        """Outcomes of the runs that have ended since last asked."""
        ...

    def close(self) -> None:
        """End the runs under way."""
        ...


class Work(Protocol):
    """How a run is done, wherever that is; it travels to other machines by pickle."""

    @property
    def cpus(self) -> int:
        """Processors that a run takes."""
        ...

    @property
    def gpus(self) -> int:
        """GPUs that a run takes where there are any."""
        ...

    def do(self, folder: Path) -> Outcome:
        """Do the run of a folder here and now, from where it was left."""
        ...

    def local(self, workers: int | None) -> Executor:
        """What does several at a time on this machine; `workers` None for as many as it takes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Train:
    """Trains a run in a process of its own, or several; see `lawkit.backends.torchtitan.launch.Pool`."""

    ranks: int = 1
    threads: int = 1
    python: str | None = None
    silent_s: float = 1800.0
    run_s: float | None = None

    @property
    def cpus(self) -> int:
        """Processors that a run takes."""
        return self.ranks * self.threads

    @property
    def gpus(self) -> int:
        """GPUs that a run takes."""
        return self.ranks

    def do(self, folder: Path) -> Outcome:
        """Train the run of a folder on the first GPUs that this process may use."""
        with self._pool(1) as pool:
            pool.start(folder)
            while not (ended := pool.ended()):
                time.sleep(POLL_S)
        return ended[0]

    def local(self, workers: int | None) -> Pool:
        """Processes on this machine."""
        return self._pool(workers)

    def _pool(self, workers: int | None) -> Pool:
        return Pool(
            slots(self.ranks, workers, self.threads),
            ranks=self.ranks,
            threads=self.threads,
            python=self.python,
            silent_s=self.silent_s,
            run_s=self.run_s,
        )


class Threads:
    """Does work that only waits in threads of this process."""

    def __init__(self, work: Work, workers: int) -> None:
        self._work, self._workers = work, workers
        self._threads = ThreadPoolExecutor(workers)
        self._jobs: dict[Path, Future[Outcome]] = {}

    @property
    def running(self) -> list[Path]:
        """Folders of the runs under way."""
        return list(self._jobs)

    @property
    def free(self) -> bool:
        """Whether another run can be started now."""
        return len(self._jobs) < self._workers

    def start(self, folder: Path) -> None:
        """Start the run of a folder."""
        self._jobs[folder] = self._threads.submit(self._work.do, folder)

    def ended(self) -> list[Outcome]:
        """Outcomes of the runs that have ended since last asked."""
        over = [folder for folder, job in self._jobs.items() if job.done()]
        return [self._jobs.pop(folder).result() for folder in over]

    def close(self) -> None:
        """Forget the runs under way; their threads end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _local(work: Work, workers: int | None) -> Executor:
    return work.local(workers)


#: Names of our executors.
BUILTIN = ("local", "ray")


def names() -> list[str]:
    """Names of all executors that are known, ours first."""
    return [*BUILTIN, *sorted({p.name for p in entry_points(group="lawkit.executors")} - set(BUILTIN))]


def check_executor(spec: StudySpec) -> None:
    """Refuse an executor that nobody has, and options that it has not, or of another type.

    Raises
    ------
    StudyError
    """
    if spec.executor not in names():
        raise StudyError(
            f"{spec.path}: executor.name is {spec.executor!r}, which is not installed; there are {', '.join(names())}"
        )
    try:
        check_options(_maker(spec.executor), spec.executor_options, first=2)
    except LawkitError as error:
        raise StudyError(f"{spec.path}: executor.{error} (executor {spec.executor})") from None


def check_reachable(spec: StudySpec) -> None:
    """Refuse an address where nothing answers; nothing is started or joined.

    Raises
    ------
    StudyError
    """
    if spec.executor == "ray":
        from lawkit.study.ray_executor import check_cluster

        try:
            check_cluster(**spec.executor_options)
        except LawkitError as error:
            raise StudyError(f"{spec.path}: executor: {error}") from None


def _maker(name: str) -> Callable[..., Executor]:
    """What makes an executor of (work, workers, **options); its signature says which options there are."""
    if name == "local":
        return _local
    if name == "ray":
        from lawkit.study.ray_executor import RayExecutor

        return RayExecutor
    (point, *_) = entry_points(group="lawkit.executors", name=name)
    return point.load()


def make_executor(spec: StudySpec, work: Work, workers: int | None) -> Executor:
    """The executor of a study.

    Raises
    ------
    StudyError
        When it is not installed, its options make no sense, or it cannot be reached.
    """
    check_executor(spec)
    try:
        return _maker(spec.executor)(work, workers or spec.limits.workers, **spec.executor_options)
    except LawkitError as error:
        raise StudyError(f"{spec.path}: executor: {error}") from None
