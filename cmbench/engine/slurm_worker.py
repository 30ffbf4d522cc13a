"""A task of a Slurm array: runs jobs whose inputs are available, one by one, under leases.

A worker keeps no state. Before its time limit (SIGUSR2, sent by Slurm 90 s before the end) it
finishes its shard, or stops a training at a checkpoint, and requeues itself; on SIGTERM it does
the same but leaves requeueing to Slurm, which can tell preemption from `scancel`.
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
"""Bounds of the pause between two checks of jobs that others hold, in seconds."""


class Notes:
    """Messages between the workers of a run and its driver, as files in a shared folder.

    jobs.pkl          the jobs to run, in the plan's order
    failed/<key>      why a job failed
    begun/<key>       one byte per worker that began the job and has not ended it
    journal/<task>    one line per finished job: its key and its seconds

    Args:
        folder: The run's folder, which all nodes see under one path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("failed", "begun", "journal"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def hand_out(self, jobs: Sequence[Job]) -> None:
        """Writes the list of jobs to run."""
        write_bytes(self.folder / "jobs.pkl", pickle.dumps(list(jobs)))

    def jobs(self) -> list[Job]:
        """Reads the list of jobs to run."""
        jobs: list[Job] = pickle.loads((self.folder / "jobs.pkl").read_bytes())
        return jobs

    def begin(self, key: str) -> int:
        """Records that a job begins; returns how many workers began it before and died."""
        path = self.folder / "begun" / key
        with path.open("ab") as file:
            file.write(b".")
        return path.stat().st_size - 1

    def end(self, key: str) -> None:
        """Records that a job ended, with success or not."""
        (self.folder / "begun" / key).unlink(missing_ok=True)

    def fail(self, job: Job, reason: str, log: str = "") -> None:
        """Records that a job failed in this run."""
        write_json(self.folder / "failed" / job.address.key, {"reason": reason, "log": log})

    def has_failed(self, key: str) -> bool:
        """Tests whether a worker recorded that the job failed."""
        return (self.folder / "failed" / key).exists()

    def failures(self) -> dict[str, dict[str, str]]:
        """Returns reason and log of each failed job, by key."""
        files = (self.folder / "failed").glob("[0-9a-f]*")
        return {f.name: json.loads(f.read_text("utf-8")) for f in files}

    def add_entry(self, task: str, key: str, seconds: float) -> None:
        """Adds a line to a worker's journal."""
        with (self.folder / "journal" / task).open("a") as file:
            file.write(f"{key} {seconds:.3f}\n")

    def new_entries(self, read: dict[Path, int]) -> list[tuple[str, float]]:
        """Reads lines added to the journals since the last call; `read` holds the offsets."""
        entries = []
        for path in sorted((self.folder / "journal").iterdir()):
            with path.open("rb") as file:
                file.seek(read.get(path, 0))
                complete = file.read().rpartition(b"\n")[0]
            if complete:
                read[path] = read.get(path, 0) + len(complete) + 1
                lines = (line.split() for line in complete.decode().splitlines())
                entries += [(key, float(seconds)) for key, seconds in lines]
        return entries


@dataclass(frozen=True)
class SlurmWorker:
    """A worker, pickled by submitit and called in the task.

    Args:
        store: The store's folder.
        notes: The run's folder.
        index: Index of this worker; each starts at another position of the list.
        workers: Number of workers.
        threads: Number of torch's threads.
        limit: Seconds without progress after which a job counts as hung; None: never.
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
        """Runs jobs until none is left, or the worker is asked to stop."""
        os.environ["CMBENCH_PATH"] = self.search
        torch.set_num_threads(self.threads)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        stop = _Stop()
        with suppress(Interrupted):
            _Worker(self, JobContext(open_store(self.store), device), stop).work()
        stop.leave()

    def checkpoint(self) -> Any:
        """Returns what submitit requeues: this worker."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Stop:
    """Remembers that the worker was asked to stop; passes SIGTERM on to trainings."""

    def __init__(self) -> None:
        self.asked: set[int] = set()
        self._requeue = signal.getsignal(signal.SIGUSR2)
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._ask)

    def leave(self) -> None:
        """Exits if the worker was asked to stop, after requeueing the task on SIGUSR2."""
        if signal.SIGUSR2 in self.asked and callable(self._requeue):
            self._requeue(signal.SIGUSR2, None)
        if self.asked:
            sys.exit(128 + signal.SIGTERM)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked.add(number)
        if number == signal.SIGUSR2:
            os.kill(os.getpid(), signal.SIGTERM)


class _Worker:
    def __init__(self, worker: SlurmWorker, context: JobContext, stop: _Stop) -> None:
        self.context, self.stop, self.limit = context, stop, worker.limit
        self.notes = Notes(worker.notes)
        self.task = f"{worker.index}-{os.getpid()}"
        jobs = self.notes.jobs()
        first = worker.index * len(jobs) // worker.workers
        ordered = {job.address: job for job in [*jobs[first:], *jobs[:first]]}
        self.schedule = Schedule(ordered, ordered)

    def work(self) -> None:
        waiting: list[Job] = []
        pause = _SHORTEST
        while len(self.schedule) and not self.stop.asked:
            job = self.schedule.take()
            if job is None:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)
                while waiting:
                    self.schedule.again(waiting.pop().address)
                continue
            match self._outcome(job):
                case "held":
                    waiting.append(job)
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
        """Tests whether the output is stored, or was deleted because all its users are stored."""
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
        self.notes.add_entry(self.task, key, time.monotonic() - start)
        return "done"


def _quiet(done: int, total: int, note: str = "") -> None:
    """Ignores progress: the driver prints one line per job."""
