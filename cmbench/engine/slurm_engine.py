"""The Slurm engine: one array of workers, through submitit, that pull jobs by their leases.

Nothing is sent to a worker but the list of jobs: which of them are free, done or waiting it sees
in the store, which all nodes share under one path. A driver that is killed and started again
submits an array of its own beside what still runs; the two share the work.
"""

import contextlib
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import roots
from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError
from cmbench.engine.local_engine import LocalEngine
from cmbench.engine.progress import Progress
from cmbench.engine.schedule import Schedule, needed_jobs
from cmbench.engine.slurm_worker import Notes, SlurmWorker
from cmbench.engine.supervised_engine import TRIES
from cmbench.store.store import Address
from cmbench.suite.planner import Plan

__all__ = ["SlurmEngine", "SlurmOptions"]

_POLL_SECONDS = 1.0
_ALIVE_SECONDS = 30.0
_REQUEUES = 10_000
"""submitit's bound to how often a task may run out of time: work left is reason enough."""


@dataclass(frozen=True)
class SlurmOptions:
    """The array and what a task gets.

    Args:
        workers: Tasks of the array.
        cpus: CPUs a task; its threads are as many.
        gpus: GPUs a task.
        timeout: Seconds without a sign of life after which a job counts as hung; none: never.
        parameters: submitit's, such as `partition`, `time` (minutes), `account`, `mem`.
    """

    workers: int = 1
    cpus: int = 1
    gpus: int = 0
    timeout: float | None = None
    parameters: dict[str, str] = field(default_factory=dict)


class SlurmEngine(LocalEngine):
    """Has a plan's jobs done by an array; `make` waits for the one that is asked for.

    Args:
        context: The driver's store; workers open it by its path.
        progress: Where progress is shown.
        options: The array.

    Raises:
        Pending: If submitit is not installed.
        UserError: If there is no Slurm here, or it knows no such parameter.
    """

    def __init__(self, context: JobContext, progress: Progress, options: SlurmOptions) -> None:
        super().__init__(context, progress)
        self.options = options
        place = context.store.root / "slurm"
        place.mkdir(exist_ok=True)
        self._notes = Notes(Path(tempfile.mkdtemp(dir=place)))
        self._executor = _executor(options, self._notes.folder / "logs")
        self._schedule = Schedule({}, ())
        self._by_key: dict[str, Address] = {}
        self._read: dict[Path, int] = {}
        self._tasks: list[Any] = []
        self._arrays = 0
        self._looked = 0.0

    def begin(self, plan: Plan) -> None:
        """Submits the array, if the store lacks anything."""
        self._plan = plan
        missing = [a for a, there in needed_jobs(plan, self.context.store).items() if not there]
        self._schedule = Schedule(plan.jobs, missing)
        self._by_key = {address.key: address for address in missing}
        if missing:
            wanted = set(missing)
            self._notes.hand_out([job for a, job in plan.jobs.items() if a in wanted])
            self._submit()

    def make(self, plan: Plan, address: Address) -> None:
        """Waits until an output is there.

        Raises:
            JobFailedError: If it, or something it needs, can't be made.
            UserError: If the workers end, array after array, without doing anything.
        """
        while address in self._schedule and not self._settled(address):
            time.sleep(_POLL_SECONDS)
        if address in self._failed:
            raise self._failed[address]
        super().make(plan, address)

    def close(self) -> None:
        """Cancels the array and drops the list of jobs; logs and failures stay."""
        for task in self._tasks:
            with contextlib.suppress(Exception):
                task.cancel()
        (self._notes.folder / "jobs.pkl").unlink(missing_ok=True)

    def _settled(self, address: Address) -> bool:
        """Takes in what the workers told; whether a job is done or failed."""
        for key, seconds in self._notes.told(self._read):
            self._arrays = 0
            self._done(self._by_key[key], f"{seconds:.1f} s on a worker")
        for key, told in self._notes.failures().items():
            self._give_up(self._by_key[key], told["reason"], told["log"])
        if address in self._schedule and self.context.store.present(address):
            self._done(address, "done by another run")
        if address not in self._schedule:
            return True
        self._keep_workers()
        return False

    def _done(self, address: Address, note: str) -> None:
        if address in self._schedule:
            self._schedule.done(address)
            self.progress.start_job(self._plan.jobs[address].title)
            self.progress.end_job(note)

    def _give_up(self, address: Address, reason: str, log: str) -> None:
        if address not in self._schedule:
            return
        failure = JobFailedError(self._plan.jobs[address], reason, log)
        for lost in (address, *self._schedule.failed(address)):
            self._failed[lost] = failure
        self.progress.start_job(failure.job.title)
        self.progress.end_job("FAILED")

    def _keep_workers(self) -> None:
        """Submits another array when no task of the last is left, as when all were cancelled."""
        if time.monotonic() - self._looked < _ALIVE_SECONDS:
            return
        self._looked = time.monotonic()
        self._tasks[0].watcher.update()
        if not all(_ended(task) for task in self._tasks):
            return
        if self._arrays >= TRIES:
            raise UserError(
                f"{TRIES} Slurm arrays in a row ended without a job done",
                where=str(self._notes.folder / "logs"),
                fix="read the workers' logs there",
            )
        self._submit()

    def _submit(self) -> None:
        workers = min(self.options.workers, len(self._schedule))
        search = os.pathsep.join(map(str, roots()))
        made = [
            SlurmWorker(
                self.context.store.root,
                self._notes.folder,
                index,
                workers,
                self.options.cpus,
                self.options.timeout,
                search,
            )
            for index in range(workers)
        ]
        with self._executor.batch():
            self._tasks = [self._executor.submit(worker) for worker in made]
        self._arrays += 1
        self._looked = time.monotonic()
        number = self._tasks[0].job_id.partition("_")[0]
        self.progress.say(
            f"Slurm job {number}: {workers} workers, logs in {self._notes.folder}/logs"
        )


def _ended(task: Any) -> bool:
    """Whether a task is over, by its result or by what sacct last said."""
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
            fix="run this where sbatch works, or take --engine local or ray",
        ) from None
    given: dict[str, Any] = {
        "job_name": "cmbench",
        "time": 60,
        "cpus_per_task": options.cpus,
        "array_parallelism": options.workers,
        "additional_parameters": {"requeue": True},
    }
    if options.gpus:
        given["gpus_per_node"] = options.gpus
    told = {key: int(v) if v.isdigit() else v for key, v in options.parameters.items()}
    try:
        executor.update_parameters(**given | told)
    except ValueError as error:
        raise UserError(f"--slurm: {error}") from None
    return executor
