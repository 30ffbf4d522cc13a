"""What each task of a Slurm array does: jobs whose needs are there, one by one, each by its lease.

A worker holds no state. When its time is up (SIGUSR2, sent by Slurm 90 s before the end) it ends
the shard that it is at, or leaves a training at a checkpoint, and has itself requeued; on SIGTERM
alone it does the same and leaves the requeueing to Slurm, which knows preemption from `scancel`.
"""

import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from cmbench.core.errors import Interrupted
from cmbench.core.files import write_bytes, write_json
from cmbench.engine.base import TRIES
from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError, run_job
from cmbench.engine.schedule import Schedule
from cmbench.engine.watchdog import hang_log, hung, watched
from cmbench.store.jobs import Job
from cmbench.store.shared import open_store

__all__ = ["Notes", "SlurmWorker"]

_SHORTEST, _LONGEST = 0.5, 30.0
"""Seconds between two looks at what others hold."""


class Notes:
    """What the workers of one run and its driver tell each other, as files in a shared folder.

    jobs.pkl          the jobs to be done, in the plan's order
    failed/<key>      why a job can't be done
    begun/<key>       a byte for each worker that began it and has not come to an end
    journal/<task>    a line for each job done: its key and its seconds

    Args:
        folder: The run's folder, which all nodes see under one path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("failed", "begun", "journal"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def hand_out(self, jobs: Sequence[Job]) -> None:
        """Writes down what is to be done."""
        write_bytes(self.folder / "jobs.pkl", pickle.dumps(list(jobs)))

    def jobs(self) -> list[Job]:
        """What is to be done."""
        jobs: list[Job] = pickle.loads((self.folder / "jobs.pkl").read_bytes())
        return jobs

    def begin(self, key: str) -> int:
        """Notes that a job begins; returns how many began it and never came to an end."""
        path = self.folder / "begun" / key
        with path.open("ab") as file:
            file.write(b".")
        return path.stat().st_size - 1

    def end(self, key: str) -> None:
        """Notes that a job came to an end, whatever that was."""
        (self.folder / "begun" / key).unlink(missing_ok=True)

    def fail(self, job: Job, reason: str, log: str = "") -> None:
        """Notes that a job can't be done in this run."""
        write_json(self.folder / "failed" / job.address.key, {"reason": reason, "log": log})

    def has_failed(self, key: str) -> bool:
        """Whether a worker noted that."""
        return (self.folder / "failed" / key).exists()

    def failures(self) -> dict[str, dict[str, str]]:
        """Reason and log by key."""
        files = (self.folder / "failed").glob("[0-9a-f]*")
        return {f.name: json.loads(f.read_text("utf-8")) for f in files}

    def tell(self, task: str, key: str, seconds: float) -> None:
        """Adds a line to a worker's journal."""
        with (self.folder / "journal" / task).open("a") as file:
            file.write(f"{key} {seconds:.3f}\n")

    def told(self, read: dict[Path, int]) -> list[tuple[str, float]]:
        """Lines of all journals that are new since the last call; `read` keeps the places."""
        found = []
        for path in sorted((self.folder / "journal").iterdir()):
            with path.open("rb") as file:
                file.seek(read.get(path, 0))
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                read[path] = read.get(path, 0) + len(whole) + 1
                lines = (line.split() for line in whole.decode().splitlines())
                found += [(key, float(seconds)) for key, seconds in lines]
        return found


@dataclass(frozen=True)
class SlurmWorker:
    """A worker, pickled by submitit and called in the task.

    Args:
        store: The store's folder.
        notes: The run's folder.
        index: Which worker this is; each begins at another place of the list.
        workers: How many there are.
        threads: Threads of torch.
        limit: Seconds without a sign of life after which a job counts as hung; None: never.
        search: The driver's search path for plugins.
    """

    store: Path
    notes: Path
    index: int
    workers: int
    threads: int
    limit: float | None
    search: str

    def __call__(self) -> None:
        """Works until nothing is left, or the time is up."""
        os.environ["CMBENCH_PATH"] = self.search
        torch.set_num_threads(self.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        stop = _Stop()
        with suppress(Interrupted):
            _Worker(self, JobContext(open_store(self.store), device), stop).work()
        stop.leave()

    def checkpoint(self) -> Any:
        """What submitit has requeued: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Stop:
    """Remembers that the worker is to stop; trainings, which heed SIGTERM, are told too."""

    def __init__(self) -> None:
        self.asked: set[int] = set()
        self._requeue = signal.getsignal(signal.SIGUSR2)
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._ask)

    def leave(self) -> None:
        """Returns if nobody asked; else has the task requeued, where that is ours, and exits."""
        if signal.SIGUSR2 in self.asked and callable(self._requeue):
            self._requeue(signal.SIGUSR2, None)
        if self.asked:
            sys.exit(128 + signal.SIGTERM)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked.add(number)
        if number == signal.SIGUSR2:
            os.kill(os.getpid(), signal.SIGTERM)


class _Worker:
    def __init__(self, told: SlurmWorker, context: JobContext, stop: _Stop) -> None:
        self.context, self.stop, self.limit = context, stop, told.limit
        self.notes = Notes(told.notes)
        self.task = f"{told.index}-{os.getpid()}"
        jobs = self.notes.jobs()
        first = told.index * len(jobs) // told.workers
        ordered = {job.address: job for job in [*jobs[first:], *jobs[:first]]}
        self.schedule = Schedule(ordered, ordered)

    def work(self) -> None:
        held: list[Job] = []
        pause = _SHORTEST
        while len(self.schedule) and not self.stop.asked:
            job = self.schedule.take()
            if job is None:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)
                while held:
                    self.schedule.again(held.pop().address)
                continue
            match self._outcome(job):
                case "held":
                    held.append(job)
                case "failed":
                    self.schedule.failed(job.address)
                case "done":
                    self.schedule.done(job.address)
                    pause = _SHORTEST

    def _outcome(self, job: Job) -> Literal["done", "failed", "held"]:
        if self.notes.has_failed(job.address.key):
            return "failed"
        if self._is_there(job):
            return "done"
        with self.context.store.lease_if_free(job.address) as mine:
            if not mine:
                return "held"
            if self._is_there(job):
                return "done"
            return self._done(job)

    def _is_there(self, job: Job) -> bool:
        """Whether the output is there, or was and has been dropped when all had it."""
        serves = job.transport.get("serves")
        if serves and all(self.context.store.present(address) for address in serves):
            return True
        return self.context.store.has(job.address)

    def _done(self, job: Job) -> Literal["done", "failed"]:
        store, key = self.context.store, job.address.key
        lost = self.notes.begin(key)
        if lost >= TRIES:
            stuck = hung(store, job)
            why = f"no sign of life for {self.limit:g} s" if stuck else "its worker died"
            log = str(hang_log(store, job)) if stuck else ""
            self.notes.fail(job, f"{why}, {lost} times", log)
            return "failed"
        start = time.monotonic()
        try:
            with watched(store, job, self.limit, _quiet) as alive:
                run_job(job, self.context, alive)
        except JobFailedError as failure:
            self.notes.fail(job, failure.reason, failure.log)
            return "failed"
        finally:
            self.notes.end(key)
        self.notes.tell(self.task, key, time.monotonic() - start)
        return "done"


def _quiet(done: int, total: int, note: str = "") -> None:
    """Progress is shown by the driver, a line a job."""
