"""Runs as tasks of a Ray cluster: one that is there, or one that is started here and ends with the study.

A task does a run exactly as this machine would (`lawkit.study.executors.Work.do`), in the run's folder. So the folder
of the study and the corpus must lie where all machines find them, or `storage` names a place (s3://, gs://, file://,
...) that carries them, see `lawkit.study.storage`. A machine that is lost takes its runs with it; they are started
again on another one and go on from their last checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from lawkit.backends.torchtitan.launch import Outcome, outcome
from lawkit.errors import StudyError
from lawkit.study.executors import Work
from lawkit.study.store import LOST

#: Seconds to wait for an address to answer, and between two looks at what the cluster has.
_PATIENCE_S, _LOOK_S = 5.0, 2.0
_DEFAULT_PORT = 6379
#: How HTTP/2 begins: its preface, and a frame of settings (kind 4), of which there are none.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


class RayExecutor:
    """See `lawkit.study.executors.Executor`.

    Parameters
    ----------
    work, workers
        How a run is done, and how many at a time at most; None: as many as the cluster has room for.
    address
        Of a cluster: ``host:port``, ``ray://host:port``, ``auto`` for the one of this machine; None starts one here.
    storage
        A place by fsspec's names that carries corpus and runs between machines without a shared disk.
    gpus, cpus
        GPUs and processors that a run takes; by default what `limits.ranks` and `limits.threads` say, and GPUs only
        where the cluster has some.

    Raises
    ------
    StudyError
        When Ray is not installed, the address does not answer, or the cluster has no machine large enough for a run.
    """

    def __init__(
        self,
        work: Work,
        workers: int | None,
        address: str | None = None,
        storage: str | None = None,
        gpus: float | None = None,
        cpus: float | None = None,
    ) -> None:
        check_cluster(address=address, storage=storage, gpus=gpus, cpus=cpus)
        self._jobs: dict[Any, Path] = {}
        self._workers, self._seen, self._room = workers, 0.0, 0
        ray = _connect(address)
        self._ray = ray
        total = ray.cluster_resources()
        if gpus is None:
            gpus = work.gpus if total.get("GPU", 0) >= work.gpus else 0
        self._needs = {"CPU": work.cpus if cpus is None else cpus, "GPU": gpus}
        if not self._rooms():
            needs = " and ".join(f"{count:g} {name}" for name, count in self._needs.items() if count)
            self.close()
            raise StudyError(
                f"no machine of the Ray cluster has the {needs} that a run takes: add one, or lower limits"
            )
        self._task = ray.remote(_do).options(
            num_cpus=self._needs["CPU"], num_gpus=self._needs["GPU"], max_retries=0
        )
        self._work = work
        self._storage = None
        if storage is not None:
            from lawkit.study.storage import Storage

            self._storage = Storage(storage)

    @property
    def running(self) -> list[Path]:
        """Folders of the runs under way."""
        return list(self._jobs.values())

    @property
    def free(self) -> bool:
        """Whether the cluster has room for another run: machines come and go."""
        if time.monotonic() > self._seen + _LOOK_S:
            self._room, self._seen = self._rooms(), time.monotonic()
        most = self._room if self._workers is None else min(self._workers, self._room)
        return len(self._jobs) < most

    def start(self, folder: Path) -> None:
        """Hand the run of a folder to the cluster."""
        folder = folder.resolve()
        if self._storage is not None:
            self._storage.offer(folder)
        self._jobs[self._task.remote(self._work, folder, self._storage)] = folder

    def ended(self) -> list[Outcome]:
        """Outcomes of the runs that have ended since last asked."""
        if not self._jobs:
            return []
        ready, _ = self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=0)
        return [self._outcome(job, self._jobs.pop(job)) for job in ready]

    def close(self) -> None:
        """End the runs under way, and the cluster if it was started here."""
        for job in self._jobs:
            with contextlib.suppress(Exception):
                self._ray.cancel(job, force=True)
        self._jobs.clear()
        self._ray.shutdown()

    def _outcome(self, job: Any, folder: Path) -> Outcome:
        errors = self._ray.exceptions
        try:
            found = self._ray.get(job)
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, BaseException) else error
            return Outcome(folder=folder, reason="error", message=f"{type(cause).__name__}: {cause}"[:300])
        except errors.OutOfMemoryError:
            return Outcome(
                folder=folder, reason="memory", message="Ray ended it for want of memory on its machine"
            )
        except errors.RayError as error:
            # Its worker or its machine is gone.
            known = outcome(folder)
            first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            return known or Outcome(folder=folder, reason=LOST, message=f"its machine was lost: {first}")
        if self._storage is not None:
            self._storage.take_back(folder)
        return found

    def _rooms(self) -> int:
        """How many runs the machines of the cluster have room for together."""
        rooms = 0
        for node in self._ray.nodes():
            has = node["Resources"]
            if node["Alive"]:
                rooms += int(min(has.get(name, 0) // count for name, count in self._needs.items() if count))
        return rooms


def _do(work: Work, folder: Path, storage: Any) -> Outcome:
    """A run, on whatever machine this is."""
    if storage is None:
        return work.do(folder)
    return storage.do(work, folder)


def check_cluster(
    address: str | None = None,
    storage: str | None = None,
    gpus: float | None = None,
    cpus: float | None = None,
) -> None:
    """Refuse options that make no sense, and an address where no cluster answers; none is joined.

    Raises
    ------
    StudyError
    """
    for name, value in (("address", address), ("storage", storage)):
        if value == "":
            raise StudyError(f"{name} is {value!r}: it must be text, or left out")
    if gpus is not None and not 0 <= gpus < math.inf:
        raise StudyError(f"gpus is {gpus!r}: it must be a number of 0 or more, or left out")
    if cpus is not None and not 0 < cpus < math.inf:
        raise StudyError(f"cpus is {cpus!r}: it must be a number above 0, or left out")
    named = os.environ.get("RAY_ADDRESS") or "auto" if address == "auto" else address
    if named == "auto":
        # Without a record Ray itself says at once that there is no cluster.
        with contextlib.suppress(OSError):
            _knock((record := _record()).read_text().strip(), f", which {record} names")
    elif named not in (None, "local"):
        _knock(named)


def _record() -> Path:
    """Where `ray start` notes the address of the last cluster that it started on this machine."""
    folder = os.environ.get("RAY_TMPDIR") or (sys.platform == "linux" and os.environ.get("TMPDIR")) or "/tmp"
    return Path(folder, "ray", "ray_current_cluster")


def _connect(address: str | None) -> Any:
    """Ray, connected to a cluster."""
    if address is None:
        # A cluster of one machine keeps its ports to itself.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise StudyError("ray is not installed here: pip install 'lawkit[ray]'") from None
    # Without an address Ray would first look for a cluster that is there.
    where: dict[str, Any] = {"address": address or "local"}
    if address is None:
        where["include_dashboard"] = False
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    except Exception as error:
        said = str(error).strip().strip("'").splitlines()
        raise StudyError(
            f"the Ray cluster at {address or 'this machine'} cannot be used: {said[0][:300] if said else error!r}"
        ) from None
    return ray


def _knock(address: str, known: str = "") -> None:
    """Refuse an address where nothing listens, at once; Ray itself would try for minutes.

    `known` follows the address in a message: how it is known.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise StudyError(
            f"address is {address!r}: write host:port (Ray's own port is {_DEFAULT_PORT}), or auto"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S) as line:
            if os.environ.get("RAY_USE_TLS", "0") in ("", "0"):
                line.sendall(_HELLO)
                # A server of gRPC, as Ray's are, begins with its settings, of whatever length.
                if line.recv(4)[3:] != _HELLO[-6:-5]:
                    raise StudyError(
                        f"what answers at {address}{known} is no Ray cluster (its own port is {_DEFAULT_PORT}; the "
                        "dashboard's, 8265, is not meant): correct executor.address"
                    )
    except OSError as error:
        raise StudyError(
            f"no Ray cluster answers at {address}{known} ({error.strerror or error}): start one with `ray start "
            "--head`, correct executor.address, or leave it out to start one here"
        ) from None
