"""The Ray engine: every job a Ray task with its resources, over the store that all nodes share.

The engine holds no state: the store does. A driver that is killed and started again finds what was
done; a worker or a node that dies loses the job it was at, which Ray runs again elsewhere. Running
a job twice is harmless, since its bytes are equal. Sampling uses no collectives, so the numbers
do not depend on how many devices there are.
"""

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import roots
from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError, run_job
from cmbench.engine.local_engine import LocalEngine
from cmbench.engine.progress import Progress
from cmbench.engine.schedule import Schedule, needed_jobs
from cmbench.engine.supervised_engine import TRIES
from cmbench.engine.watchdog import hang_log, hung, watched
from cmbench.store.jobs import Job
from cmbench.store.shared import SharedStore, open_store
from cmbench.store.store import Address
from cmbench.suite.planner import Plan

__all__ = ["RayEngine", "RayOptions"]

_POLL_SECONDS = 1.0
_COUNT_SECONDS = 10.0
"""Between two looks at how large the cluster is: nodes come and go."""
_FEWEST = 64
"""Tasks that may be with Ray at once, on a small cluster."""


@dataclass(frozen=True)
class RayOptions:
    """Where the cluster is and what a job gets.

    Args:
        address: A running cluster (`auto`, `HOST:6379`, `ray://...`); none starts one here.
        cpus: CPUs a job gets; its threads are as many.
        gpus: GPUs a job that runs networks gets; below 1 several share one.
        timeout: Seconds without a sign of life after which a job counts as hung, is killed and
            tried again; none: never.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    timeout: float | None = None


class RayEngine(LocalEngine):
    """Runs the jobs of a plan as Ray tasks; `make` waits for the one that is asked for.

    Args:
        context: The driver's store and device; workers open the same store by its path, or with
            `CMBENCH_STORE` each a folder of its own node (`CMBENCH_CACHE` there) on that storage.
        progress: Where progress is shown.
        options: The cluster and what a job gets.

    Raises:
        Pending: If Ray is not installed.
        UserError: If the cluster can't be reached.
    """

    def __init__(self, context: JobContext, progress: Progress, options: RayOptions) -> None:
        super().__init__(context, progress)
        self.options = options
        self._ray = _connect(options.address)
        self._task = self._ray.remote(_work)
        self._plan: Plan | None = None
        self._schedule = Schedule({}, ())
        self._running: dict[Any, tuple[Address, float]] = {}
        self._tries: dict[Address, int] = {}
        self._most, self._counted = _FEWEST, -_COUNT_SECONDS

    def begin(self, plan: Plan) -> None:
        """Hands over what the plan needs and the store lacks, as far as its needs are there."""
        self._plan = plan
        listed = needed_jobs(plan, self.context.store)
        self._schedule = Schedule(plan.jobs, (a for a, there in listed.items() if not there))
        self._submit()

    def make(self, plan: Plan, address: Address) -> None:
        """Waits until an output is there.

        Raises:
            JobFailedError: If it, or something it needs, can't be made.
            OSError: If a worker's disk is full or may not be written.
        """
        while address in self._schedule:
            self._submit()
            self._settle()
        if address in self._failed:
            raise self._failed[address]
        super().make(plan, address)

    def close(self) -> None:
        """Cancels what still runs and leaves the cluster."""
        for handle in self._running:
            with contextlib.suppress(Exception):
                self._ray.cancel(handle, force=True)
        self._ray.shutdown()

    def _submit(self) -> None:
        """Keeps every worker busy and a task waiting for each; Ray's waits grow with the rest."""
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
        """Waits a little for any running job, and takes in how all that ended did."""
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
            self._give_up(job, cause)
        except self._ray.exceptions.RayError as error:
            stuck = hung(self.context.store, job)
            why = f"no sign of life for {self.options.timeout:g} s" if stuck else ""
            log = str(hang_log(self.context.store, job)) if stuck else ""
            self._again(job, why or f"its worker died ({type(error).__name__})", log)
        else:
            self._schedule.done(job.address)
            self.progress.end_job(f"{seconds:.1f} s with its queue")

    def _give_up(self, job: Job, failure: JobFailedError) -> None:
        self._failed[job.address] = failure
        for address in self._schedule.failed(job.address):
            self._failed[address] = failure
        self.progress.end_job("FAILED")

    def _again(self, job: Job, why: str, log: str) -> None:
        tries = self._tries.get(job.address, 0) + 1
        self._tries[job.address] = tries
        if tries >= TRIES:
            self._give_up(job, JobFailedError(job, f"{why}, {tries} times", log))
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
    """What workers must know of the driver: where plugins are, and the shared storage."""
    told = {"CMBENCH_PATH": os.pathsep.join(map(str, roots()))}
    url = os.environ.get("CMBENCH_STORE")
    return told | {"CMBENCH_STORE": url} if url else told


def _reach(address: str) -> None:
    """Ray itself waits minutes for an address that nobody listens at."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise _silent(address, error) from None


def _silent(address: str | None, error: Exception) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address}: {error}",
        fix="ray start --head, then --address auto; or leave --address out",
    )


@lru_cache(maxsize=1)
def _bench(root: Path | None, device: torch.device) -> JobContext:
    """One for each worker process: it keeps the last networks and extractors built."""
    return JobContext(open_store(root), device)


def _work(job: Job, root: Path | None, threads: int, limit: float | None) -> None:
    """What a worker does: one job, under its lease, on the device that Ray gave it."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    context = _bench(root, device)
    with context.store.lease(job.address), watched(context.store, job, limit, _quiet) as alive:
        if not context.store.has(job.address):
            run_job(job, context, alive)


def _quiet(done: int, total: int, note: str = "") -> None:
    """Progress is shown by the driver, a line a job."""
