"""The local engine with a time limit: jobs run in one child process, which is replaced if it hangs
or dies. A job fails with its log if that happened three times; the run continues.
"""

import os
import signal
import threading
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from cmbench.core.errors import CmbenchError
from cmbench.engine.base import TRIES, InProcessEngine
from cmbench.engine.context import JobContext, Tick
from cmbench.engine.job import JobFailedError, run_job
from cmbench.engine.progress import Progress
from cmbench.engine.watchdog import hang_log, hung, watched
from cmbench.store.jobs import Job
from cmbench.store.shared import open_store
from cmbench.store.store import Store

__all__ = ["Child", "ChildEndedError", "SupervisedEngine"]


class ChildEndedError(CmbenchError):
    """Says that the process of a job hung or died; `log` holds the stacks if it hung."""

    def __init__(self, reason: str, log: str = "") -> None:
        self.reason, self.log = reason, log
        super().__init__(reason)


class Child:
    """A process that runs jobs one by one and caches the last networks that it built.

    Args:
        store: The store, which the child opens by its path.
        device: The device on which networks run.
        limit: Seconds without progress after which a job counts as hung.
    """

    def __init__(self, store: Store, device: torch.device, limit: float | None) -> None:
        self.store, self.device, self.limit = store, device, limit
        self._pipe, far = get_context("spawn").Pipe()
        self._process = get_context("spawn").Process(
            target=_serve,
            args=(far, store.root, str(device), torch.get_num_threads(), limit, os.getpid()),
            daemon=True,
        )
        self._process.start()
        far.close()

    def run(self, job: Job, tick: Tick) -> None:
        """Runs one job whose inputs are in the store.

        Raises:
            JobFailedError: If it fails.
            OSError: If the disk is full or can't be written.
            ChildEndedError: If the process hung or died; this child can't be used again.
        """
        try:
            self._pipe.send(job)
            while (message := self._pipe.recv()) is not None:
                if isinstance(message, BaseException):
                    raise message
                tick(*message)
        except (EOFError, ConnectionError):
            raise self._ended(job) from None

    def close(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _ended(self, job: Job) -> ChildEndedError:
        self._process.join()
        if hung(self.store, job):
            log = hang_log(self.store, job)
            return ChildEndedError(f"no sign of life for {self.limit:g} s", str(log))
        code = self._process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ChildEndedError(f"its process died ({how})")


class SupervisedEngine(InProcessEngine):
    """Runs jobs in a child process, with a limit on the time without progress.

    Args:
        context: Store, device and caches.
        progress: Where progress is shown.
        limit: Seconds without progress after which a job counts as hung.
    """

    def __init__(self, context: JobContext, progress: Progress, limit: float) -> None:
        super().__init__(context, progress)
        self.limit = limit
        self._child: Child | None = None

    def close(self) -> None:
        """Kills the child process."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _work(self, job: Job) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                self._started().run(job, self.progress.tick)
                return
            except ChildEndedError as ended:
                self.close()
                if attempt == TRIES:
                    reason = f"{ended.reason}, {TRIES} times"
                    raise JobFailedError(job, reason, ended.log) from None
                self.progress.say(f"    {job.title}: {ended.reason}; it is tried again")

    def _started(self) -> Child:
        if self._child is None:
            self._child = Child(self.context.store, self.context.device, self.limit)
        return self._child


def _serve(
    pipe: Connection, root: Path, device: str, threads: int, limit: float | None, parent: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    context = JobContext(open_store(root), torch.device(device))
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(job, context, limit, pipe))


def _outcome(
    job: Job, context: JobContext, limit: float | None, pipe: Connection
) -> Exception | None:
    def tick(done: int, total: int, note: str = "") -> None:
        pipe.send((done, total, note))

    try:
        with watched(context.store, job, limit, tick) as alive:
            run_job(job, context, alive)
    except (JobFailedError, OSError) as error:
        return error
    return None


def _end_with(parent: int) -> None:
    """Ends this process when its parent dies: it would go on without a lease."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
