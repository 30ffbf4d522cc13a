"""The contract of an engine: it runs a plan's jobs, each at most once; all state is in the store.

An engine called NAME is one file, `NAME_engine.py` in this folder, whose `__all__` names one
subclass of `Engine`; its `Options` declare what the command line may give it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict

from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError
from cmbench.engine.progress import Progress
from cmbench.engine.schedule import Schedule, needed_jobs
from cmbench.store.jobs import Job
from cmbench.store.store import Address
from cmbench.suite.plan import Plan

__all__ = ["TRIES", "ClusterEngine", "Engine", "EngineOptions", "InProcessEngine"]

TRIES = 3
"""Number of attempts at a job that hangs or kills its process."""


class EngineOptions(BaseModel):
    """Options of an engine; a subclass adds its own as fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Engine(ABC):
    """Computes the outputs of a plan's jobs and keeps them in the store.

    Args:
        context: Store, device and caches of this process.
        progress: Where progress is shown.
    """

    Options: ClassVar[type[EngineOptions]] = EngineOptions

    def __init__(self, context: JobContext, progress: Progress) -> None:
        self.context, self.progress = context, progress
        self._failed: dict[Address, JobFailedError] = {}

    @classmethod
    def open(cls, context: JobContext, progress: Progress, options: EngineOptions) -> "Engine":
        """Opens the engine with its own `Options`; the default implementation ignores them.

        Raises:
            Pending: If a package that it needs is not installed.
            UserError: If the cluster does not answer.
        """
        return cls(context, progress)

    @abstractmethod
    def make(self, plan: Plan, address: Address) -> None:
        """Computes an output and its inputs; an intact output in the store is reused.

        Raises:
            JobFailedError: If its job, or one that it needs, fails.
            OSError: If the disk is full or can't be written.
        """

    def begin(self, plan: Plan) -> None:  # noqa: B027
        """Called once before the first `make`: engines with workers start them."""

    def close(self) -> None:  # noqa: B027
        """Called at the end, after errors too: engines with workers stop them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _raise_failure(self, address: Address) -> None:
        if address in self._failed:
            raise self._failed[address]


class InProcessEngine(Engine):
    """Runs jobs on demand, one after the other, from this process; `_work` runs one job."""

    @abstractmethod
    def _work(self, job: Job) -> None:
        """Runs one job whose inputs are in the store.

        Raises:
            JobFailedError: If it fails.
            OSError: If the disk is full or can't be written.
        """

    def make(self, plan: Plan, address: Address) -> None:
        """Computes an output and its inputs, depth first, each under its lease."""
        self._raise_failure(address)
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

    def _waiting(self, job: Job) -> Callable[[str], None]:
        return lambda owner: self.progress.say(f"waiting for {owner}, which works on: {job.title}")


class ClusterEngine(Engine):
    """Delegates jobs to workers; `make` waits for the requested output.

    The driver computes nothing. A subclass submits the jobs that `_schedule` has ready (`_submit`)
    and collects finished ones (`_advance`): for each it calls `_schedule.done` or `_give_up`.
    """

    def __init__(self, context: JobContext, progress: Progress) -> None:
        super().__init__(context, progress)
        self._plan: Plan | None = None
        self._schedule = Schedule({}, ())

    @abstractmethod
    def _submit(self, missing: list[Address]) -> None:
        """Starts workers on the missing jobs, in the plan's order."""

    @abstractmethod
    def _advance(self, address: Address) -> None:
        """Waits briefly and collects the jobs that have ended since the last call."""

    def begin(self, plan: Plan) -> None:
        """Schedules the plan's jobs that are missing in the store, and starts workers."""
        needed = needed_jobs(plan, self.context.store)
        self._schedule_jobs(plan, [a for a, there in needed.items() if not there])

    def make(self, plan: Plan, address: Address) -> None:
        """Waits for an output; one that was damaged in the meantime is recomputed."""
        while True:
            while address in self._schedule:
                self._advance(address)
            self._raise_failure(address)
            if self.context.store.has(address):
                return
            self._schedule_jobs(plan, self._lacking(plan, address))

    def _schedule_jobs(self, plan: Plan, missing: list[Address]) -> None:
        self._plan = plan
        self._schedule = Schedule(plan.jobs, missing)
        if missing:
            self._submit(missing)

    def _lacking(self, plan: Plan, address: Address) -> list[Address]:
        """Lists the output and its inputs that have no intact copy in the store, inputs first."""
        lacking: dict[Address, None] = {}

        def visit(wanted: Address) -> None:
            if wanted not in lacking and not self.context.store.has(wanted):
                for need in plan.jobs[wanted].needs:
                    visit(need)
                lacking[wanted] = None

        visit(address)
        return list(lacking)

    def _give_up(self, failure: JobFailedError) -> None:
        """Marks a job, and all jobs that depend on it, as failed."""
        address = failure.job.address
        for lost in (address, *self._schedule.failed(address)):
            self._failed[lost] = failure
        self.progress.end_job("FAILED")
