"""The local engine: runs a plan's jobs in this process, each at most once, whole or not at all."""

from collections.abc import Callable

from cmbench.engine.context import Workbench
from cmbench.engine.job import JobFailedError, run_job
from cmbench.engine.progress import Board
from cmbench.store.jobs import Job
from cmbench.store.store import Address
from cmbench.suite.planner import Plan

__all__ = ["LocalEngine"]


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
