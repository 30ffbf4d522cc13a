"""Runs one job: reads its inputs from the store and writes its output there."""

import errno
import traceback

from cmbench.core.errors import CmbenchError, disk_error
from cmbench.core.files import write_text
from cmbench.engine.context import JobContext, Tick
from cmbench.engine.work import WORK
from cmbench.store.jobs import Job
from cmbench.store.store import Store

__all__ = ["JobFailedError", "run_job"]


class JobFailedError(CmbenchError):
    """Says that a job failed: its cells fail with this reason, the others continue."""

    def __init__(self, job: Job, reason: str, log: str = "") -> None:
        self.job, self.reason, self.log = job, reason, log
        super().__init__(f"{job.title}: {reason}" + (f" (log: {log})" if log else ""))

    def __reduce__(self) -> tuple[type["JobFailedError"], tuple[Job, str, str]]:
        """Pickles the error for its way from a worker to the driver."""
        return type(self), (self.job, self.reason, self.log)


def run_job(job: Job, context: JobContext, tick: Tick) -> None:
    """Runs one job whose inputs are in the store, and stores its output.

    Raises:
        JobFailedError: If it fails; an unexpected exception leaves its log in the cache.
        OSError: If the disk is full or can't be written.
    """
    store = context.store
    try:
        with store.writing(job.address, job.spec) as folder:
            WORK[job.address.kind](job, context, folder, tick)
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
    context.release(job)


def _is_of_the_store(error: OSError, store: Store) -> bool:
    """Tests whether the store itself fails, so that no job can write; else only this job fails."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return disk_error(error) is not None and str(error.filename).startswith(str(store.root))
