"""The Slurm engine: submits one array of workers through submitit, which pull jobs under leases.

A worker receives only the list of jobs; it sees in the store, which all nodes share under one
path, which jobs are free, done or held. A restarted driver submits another array; it shares the
work with workers that still run.
"""

import contextlib
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import roots
from cmbench.engine.base import TRIES, ClusterEngine, Engine, EngineOptions
from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError
from cmbench.engine.progress import Progress
from cmbench.engine.slurm_worker import Notes, SlurmWorker
from cmbench.store.jobs import Job
from cmbench.store.store import Address

__all__ = ["SlurmEngine"]

_POLL_SECONDS = 1.0
_ALIVE_SECONDS = 30.0
_REQUEUES = 10_000
"""submitit's bound on how often a task may time out; a task is requeued while jobs are left."""


class SlurmOptions(EngineOptions):
    """Options of the Slurm engine: the array, and the resources of a task."""

    workers: int = Field(default=1, ge=1, description="tasks of the array")
    cpus: float = Field(default=1.0, ge=0.1, description="CPUs of a task, and its threads")
    gpus: float = Field(default=0.0, ge=0, description="GPUs of a task")
    timeout: float | None = Field(
        default=None, ge=1, description="seconds without progress after which a job counts as hung"
    )
    slurm: dict[str, str] = Field(
        default_factory=dict,
        description="submitit's parameters: partition, time (minutes), account, mem",
    )


class SlurmEngine(ClusterEngine):
    """Runs a plan's jobs in an array of workers.

    Args:
        context: The driver's store; workers open it by its path.
        progress: Where progress is shown.
        options: The array.

    Raises:
        Pending: If submitit is not installed.
        UserError: If Slurm is not available, or a parameter is unknown.
    """

    Options: ClassVar[type[EngineOptions]] = SlurmOptions

    def __init__(self, context: JobContext, progress: Progress, options: SlurmOptions) -> None:
        super().__init__(context, progress)
        self.options = options
        folder = context.store.root / "slurm"
        folder.mkdir(exist_ok=True)
        self._notes = Notes(Path(tempfile.mkdtemp(dir=folder)))
        self._executor = _executor(options, self._notes.folder / "logs")
        self._by_key: dict[str, Address] = {}
        self._read: dict[Path, int] = {}
        self._tasks: list[Any] = []
        self._arrays = 0
        self._looked = 0.0

    @classmethod
    def open(cls, context: JobContext, progress: Progress, options: EngineOptions) -> Engine:
        """Locates Slurm; the array is submitted with the first jobs."""
        assert isinstance(options, SlurmOptions)
        return cls(context, progress, options)

    def close(self) -> None:
        """Cancels the array and deletes the list of jobs; logs and failures stay."""
        for task in self._tasks:
            with contextlib.suppress(Exception):
                task.cancel()
        (self._notes.folder / "jobs.pkl").unlink(missing_ok=True)

    def _submit(self, missing: list[Address]) -> None:
        self._by_key = {address.key: address for address in missing}
        self._notes.hand_out([self._job(address) for address in missing])
        self._submit_array()

    def _advance(self, address: Address) -> None:
        if not self._settled(address):
            time.sleep(_POLL_SECONDS)

    def _job(self, address: Address) -> Job:
        assert self._plan is not None
        return self._plan.jobs[address]

    def _settled(self, address: Address) -> bool:
        """Reads the workers' notes; returns whether the job has ended."""
        for key, seconds in self._notes.new_entries(self._read):
            self._arrays = 0
            self._done(self._by_key[key], f"{seconds:.1f} s on a worker")
        for key, failure in self._notes.failures().items():
            self._lose(self._by_key[key], failure["reason"], failure["log"])
        if address in self._schedule and self.context.store.present(address):
            self._done(address, "done by another run")
        if address not in self._schedule:
            return True
        self._keep_workers()
        return False

    def _done(self, address: Address, note: str) -> None:
        if address in self._schedule:
            self._schedule.done(address)
            self.progress.start_job(self._job(address).title)
            self.progress.end_job(note)

    def _lose(self, address: Address, reason: str, log: str) -> None:
        if address in self._schedule:
            job = self._job(address)
            self.progress.start_job(job.title)
            self._give_up(JobFailedError(job, reason, log))

    def _keep_workers(self) -> None:
        """Submits another array if all tasks of the last have ended, e.g. were cancelled."""
        if time.monotonic() - self._looked < _ALIVE_SECONDS:
            return
        self._looked = time.monotonic()
        self._tasks[0].watcher.update()
        if not all(_ended(task) for task in self._tasks):
            return
        if self._arrays >= TRIES:
            raise UserError(
                f"{TRIES} Slurm arrays in a row ended without finishing a job",
                where=str(self._notes.folder / "logs"),
                fix="read the workers' logs there",
            )
        self._submit_array()

    def _submit_array(self) -> None:
        workers = min(self.options.workers, len(self._schedule))
        search = os.pathsep.join(map(str, roots()))
        instances = [
            SlurmWorker(
                self.context.store.root,
                self._notes.folder,
                index,
                workers,
                max(1, math.ceil(self.options.cpus)),
                self.options.timeout,
                search,
            )
            for index in range(workers)
        ]
        with self._executor.batch():
            self._tasks = [self._executor.submit(worker) for worker in instances]
        self._arrays += 1
        self._looked = time.monotonic()
        number = self._tasks[0].job_id.partition("_")[0]
        self.progress.say(
            f"Slurm job {number}: {workers} workers, logs in {self._notes.folder}/logs"
        )


def _ended(task: Any) -> bool:
    """Tests whether a task has ended, by its result file or the last answer of sacct."""
    return task.paths.result_pickle.exists() or task.watcher.is_done(task.job_id, mode="cache")


def _executor(options: SlurmOptions, logs: Path) -> Any:
    try:
        from submitit import SlurmExecutor
    except ImportError:
        raise Pending(
            "the package submitit is not installed", command="pip install 'cmbench[slurm]'"
        ) from None
    try:
        executor = SlurmExecutor(logs, max_num_timeout=_REQUEUES)
    except RuntimeError:
        raise UserError(
            "no Slurm here: the command srun is not on PATH",
            fix="run this where sbatch works, or use --engine local or ray",
        ) from None
    parameters: dict[str, Any] = {
        "job_name": "cmbench",
        "time": 60,
        "cpus_per_task": max(1, math.ceil(options.cpus)),
        "array_parallelism": options.workers,
        "additional_parameters": {"requeue": True},
    }
    if options.gpus:
        parameters["gpus_per_node"] = math.ceil(options.gpus)
    custom = {key: int(v) if v.isdigit() else v for key, v in options.slurm.items()}
    try:
        executor.update_parameters(**parameters | custom)
    except ValueError as error:
        raise UserError(f"--slurm: {error}") from None
    return executor
