"""The local engine: runs a plan's jobs in this process, each at most once, whole or not at all."""

import errno
import traceback
from collections.abc import Callable

from cmbench.core.errors import CmbenchError, disk_error
from cmbench.core.files import write_text
from cmbench.record.store import Address, Store
from cmbench.run.progress import Board
from cmbench.run.work import WORK
from cmbench.run.workbench import Tick, Workbench
from cmbench.suite.jobs import Job
from cmbench.suite.plan import Plan

__all__ = ["JobFailedError", "LocalEngine", "run_job"]


class JobFailedError(CmbenchError):
    """A job that could not be done: its cells fail with this reason, the others go on."""

    def __init__(self, job: Job, reason: str, log: str = "") -> None:
        self.job, self.reason, self.log = job, reason, log
        super().__init__(f"{job.title}: {reason}" + (f" (log: {log})" if log else ""))

    def __reduce__(self) -> tuple[type["JobFailedError"], tuple[Job, str, str]]:
        """What travels from a worker to the driver."""
        return type(self), (self.job, self.reason, self.log)


def run_job(job: Job, bench: Workbench, tick: Tick) -> None:
    """Does one job whose needs are in the store, and puts its output there.

    Raises:
        JobFailedError: If it can't be done; an unforeseen fault leaves its log in the cache.
        OSError: If the disk is full or may not be written.
    """
    store = bench.store
    try:
        with store.writing(job.address, job.spec) as folder:
            WORK[job.address.kind](job, bench, folder, tick)
    except CmbenchError as error:
        raise JobFailedError(job, str(error)) from error
    # A plugin that calls sys.exit must not end the run.
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and _is_of_the_store(error, store):
            raise
        log = store.root / "logs" / f"{job.address.key}.txt"
        write_text(log, traceback.format_exc())
        raise JobFailedError(job, f"{type(error).__name__}: {error}", str(log)) from error
    store.finish_work(job.address)
    bench.release(job)


def _is_of_the_store(error: OSError, store: Store) -> bool:
    """Whether no job could write its output, or only this one met a file that it can't read."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return disk_error(error) is not None and str(error.filename).startswith(str(store.root))


class LocalEngine:
    """Makes outputs on demand: what is in the store and whole is not made again.

    Args:
        bench: Store, device and caches.
        board: Where progress is shown.
    """

    def __init__(self, bench: Workbench, board: Board) -> None:
        self.bench, self.board = bench, board
        self._failed: dict[Address, JobFailedError] = {}

    def begin(self, plan: Plan) -> None:
        """Called once before the first `make`: engines with workers set them to work."""

    def close(self) -> None:
        """Called at the end, however it came: engines with workers let them go."""

    def make(self, plan: Plan, address: Address) -> None:
        """Makes an output and all that it needs.

        Raises:
            JobFailedError: If it, or something it needs, can't be made.
            OSError: If the disk is full or may not be written.
        """
        if address in self._failed:
            raise self._failed[address]
        if self.bench.store.has(address):
            return
        job = plan.jobs[address]
        for need in job.needs:
            self.make(plan, need)
        with self.bench.store.lease(address, waiting=self._waiting(job)):
            if not self.bench.store.has(address):
                self._run(job)

    def _run(self, job: Job) -> None:
        self.board.start_job(job.title)
        try:
            self._work(job)
        except JobFailedError as failure:
            self._failed[job.address] = failure
            self.board.end_job("FAILED")
            raise
        self.board.end_job()

    def _work(self, job: Job) -> None:
        run_job(job, self.bench, self.board.tick)

    def _waiting(self, job: Job) -> Callable[[str], None]:
        return lambda owner: self.board.say(f"waiting for {owner}, which works on: {job.title}")
