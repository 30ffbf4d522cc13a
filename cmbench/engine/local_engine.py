"""The local engine: runs a plan's jobs in this process, each at most once, whole or not at all."""

from collections.abc import Callable

from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError, run_job
from cmbench.engine.progress import Progress
from cmbench.store.jobs import Job
from cmbench.store.store import Address
from cmbench.suite.planner import Plan

__all__ = ["LocalEngine"]


class LocalEngine:
    """Makes outputs on demand: what is in the store and whole is not made again.

    Args:
        context: Store, device and caches.
        progress: Where progress is shown.
    """

    def __init__(self, context: JobContext, progress: Progress) -> None:
        self.context, self.progress = context, progress
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
        if self.context.store.has(address):
            return
        job = plan.jobs[address]
        for need in job.needs:
            self.make(plan, need)
        with self.context.store.lease(address, waiting=self._waiting(job)):
            if not self.context.store.has(address):
                self._run(job)

    def _run(self, job: Job) -> None:
        self.progress.start_job(job.title)
        try:
            self._work(job)
        except JobFailedError as failure:
            self._failed[job.address] = failure
            self.progress.end_job("FAILED")
            raise
        self.progress.end_job()

    def _work(self, job: Job) -> None:
        run_job(job, self.context, self.progress.tick)

    def _waiting(self, job: Job) -> Callable[[str], None]:
        return lambda owner: self.progress.say(f"waiting for {owner}, which works on: {job.title}")
