"""The Ray engine: every job is a Ray task with its resources; all nodes share the store.

The engine keeps all state in the store. A restarted driver reuses finished outputs; if a worker or
a node dies, its job is restarted elsewhere. Running a job twice is harmless, since its bytes are
equal. Sampling uses no collectives, so the numbers do not depend on the number of devices.
"""

import contextlib
import os
import socket
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field

from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import roots
from cmbench.engine.base import TRIES, ClusterEngine, Engine, EngineOptions
from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError, run_job
from cmbench.engine.progress import Progress
from cmbench.engine.watchdog import hang_log, hung, watched
from cmbench.store.jobs import Job
from cmbench.store.shared import SharedStore, open_store
from cmbench.store.store import Address

__all__ = ["RayEngine"]

_POLL_SECONDS = 1.0
_COUNT_SECONDS = 10.0
"""Seconds between two queries of the cluster's size: nodes come and go."""
_FEWEST = 64
"""Minimum number of tasks submitted to Ray at once, for small clusters."""


class RayOptions(EngineOptions):
    """Options of the Ray engine: the cluster, and the resources of a job."""

    address: str | None = Field(
        default=None,
        description="a running cluster (auto, HOST:6379, ray://...); None starts one here",
    )
    cpus: float = Field(default=1.0, ge=0.1, description="CPUs of a job, and its threads")
    gpus: float = Field(
        default=0.0, ge=0, description="GPUs of a job that runs networks; below 1 several share"
    )
    timeout: float | None = Field(
        default=None,
        ge=1,
        description="seconds without progress after which a job counts as hung and is retried",
    )


class RayEngine(ClusterEngine):
    """Runs the jobs of a plan as Ray tasks.

    Args:
        context: The driver's store and device; workers open the same store by its path, or with
            `CMBENCH_STORE` each a folder of its own node (`CMBENCH_CACHE` there) on that storage.
        progress: Where progress is shown.
        options: The cluster and the resources of a job.

    Raises:
        Pending: If Ray is not installed.
        UserError: If the cluster can't be reached.
    """

    Options: ClassVar[type[EngineOptions]] = RayOptions

    def __init__(self, context: JobContext, progress: Progress, options: RayOptions) -> None:
        super().__init__(context, progress)
        self.options = options
        self._ray = _connect(options.address)
        self._task = self._ray.remote(_work)
        self._running: dict[Any, tuple[Address, float]] = {}
        self._tries: dict[Address, int] = {}
        self._most, self._counted = _FEWEST, -_COUNT_SECONDS

    @classmethod
    def open(cls, context: JobContext, progress: Progress, options: EngineOptions) -> Engine:
        """Connects to the cluster, or starts one on this machine."""
        assert isinstance(options, RayOptions)
        return cls(context, progress, options)

    def close(self) -> None:
        """Cancels what still runs and leaves the cluster."""
        for handle in self._running:
            with contextlib.suppress(Exception):
                self._ray.cancel(handle, force=True)
        self._ray.shutdown()

    def _submit(self, missing: list[Address]) -> None:
        self._fill()

    def _advance(self, address: Address) -> None:
        self._fill()
        self._settle()

    def _fill(self) -> None:
        """Submits two tasks per slot and no more: Ray's overhead grows with waiting tasks."""
        if time.monotonic() - self._counted > _COUNT_SECONDS:
            self._counted = time.monotonic()
            cpus = self._ray.cluster_resources().get("CPU", 1.0)
            self._most = max(_FEWEST, int(2 * cpus / self.options.cpus))
        while len(self._running) < self._most and (job := self._schedule.take()) is not None:
            self._start(job)

    def _start(self, job: Job) -> None:
        runs_network = job.address.kind != "score"
        task = self._task.options(
            num_cpus=self.options.cpus,
            num_gpus=self.options.gpus if runs_network else 0,
            max_retries=0,
            name=job.title[:100],
        )
        threads = max(1, int(self.options.cpus))
        shared = isinstance(self.context.store, SharedStore)
        root = None if shared else self.context.store.root
        handle = task.remote(job, root, threads, self.options.timeout)
        self._running[handle] = (job.address, time.monotonic())

    def _settle(self) -> None:
        """Waits briefly for any running job, and collects all that have ended."""
        if not self._running:
            return
        assert self._plan is not None
        handles = list(self._running)
        done, _ = self._ray.wait(handles, num_returns=1, timeout=_POLL_SECONDS)
        if done:
            done, _ = self._ray.wait(handles, num_returns=len(handles), timeout=0)
        for handle in done:
            address, began = self._running.pop(handle)
            self._take(handle, self._plan.jobs[address], time.monotonic() - began)

    def _take(self, handle: Any, job: Job, seconds: float) -> None:
        self.progress.start_job(job.title)
        try:
            self._ray.get(handle)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, OSError):
                self.progress.end_job("FAILED")
                raise cause from None
            if not isinstance(cause, JobFailedError):
                cause = JobFailedError(job, repr(cause))
            self._give_up(cause)
        except self._ray.exceptions.RayError as error:
            stuck = hung(self.context.store, job)
            why = f"no sign of life for {self.options.timeout:g} s" if stuck else ""
            log = str(hang_log(self.context.store, job)) if stuck else ""
            self._again(job, why or f"its worker died ({type(error).__name__})", log)
        else:
            self._schedule.done(job.address)
            self.progress.end_job(f"{seconds:.1f} s with its queue")

    def _again(self, job: Job, why: str, log: str) -> None:
        tries = self._tries.get(job.address, 0) + 1
        self._tries[job.address] = tries
        if tries >= TRIES:
            self._give_up(JobFailedError(job, f"{why}, {tries} times", log))
            return
        self._schedule.again(job.address)
        self.progress.end_job(f"{why}; it is tried again")


def _connect(address: str | None) -> Any:
    try:
        import ray
    except ImportError:
        raise Pending(
            "the package ray is not installed", command="pip install 'cmbench[ray]'"
        ) from None
    if address is not None:
        _reach(address)
    local: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            ignore_reinit_error=True,
            runtime_env={"env_vars": _variables()},
            **local,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _silent(address, error) from None
    return ray


def _variables() -> dict[str, str]:
    """Returns environment variables of workers: the plugin search path and the shared storage."""
    variables = {"CMBENCH_PATH": os.pathsep.join(map(str, roots()))}
    url = os.environ.get("CMBENCH_STORE")
    return variables | {"CMBENCH_STORE": url} if url else variables


def _reach(address: str) -> None:
    """Tries to connect for 10 s, because Ray itself waits minutes for an unreachable address."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise _silent(address, error) from None


def _silent(address: str | None, error: Exception) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address}: {error}",
        fix="ray start --head, then --address auto; or omit --address",
    )


@lru_cache(maxsize=1)
def _context(root: Path | None, device: torch.device) -> JobContext:
    """Returns the context of a worker process, which caches built networks and extractors."""
    return JobContext(open_store(root), device)


def _work(job: Job, root: Path | None, threads: int, limit: float | None) -> None:
    """Runs one job in a worker, under its lease, on the device that Ray assigned."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    context = _context(root, device)
    with context.store.lease(job.address), watched(context.store, job, limit, _quiet) as alive:
        if not context.store.has(job.address):
            run_job(job, context, alive)


def _quiet(done: int, total: int, note: str = "") -> None:
    """Ignores progress: the driver prints one line per job."""
