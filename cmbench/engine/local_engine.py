"""The local engine: runs jobs in this process, or with a time limit in a child process."""

from typing import ClassVar

from pydantic import Field

from cmbench.engine.base import Engine, EngineOptions, InProcessEngine
from cmbench.engine.context import JobContext
from cmbench.engine.job import run_job
from cmbench.engine.progress import Progress
from cmbench.engine.supervised import SupervisedEngine
from cmbench.store.jobs import Job

__all__ = ["LocalEngine"]


class LocalOptions(EngineOptions):
    """Options of the local engine."""

    timeout: float | None = Field(
        default=None, ge=1, description="seconds without progress after which a job counts as hung"
    )


class LocalEngine(InProcessEngine):
    """Runs each job in this process, on demand."""

    Options: ClassVar[type[EngineOptions]] = LocalOptions

    @classmethod
    def open(cls, context: JobContext, progress: Progress, options: EngineOptions) -> Engine:
        """Opens the engine; with `timeout`, jobs run in a supervised child process."""
        assert isinstance(options, LocalOptions)
        if options.timeout is None:
            return cls(context, progress)
        return SupervisedEngine(context, progress, options.timeout)

    def _work(self, job: Job) -> None:
        run_job(job, self.context, self.progress.tick)
