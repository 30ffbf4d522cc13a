"""Ends the process of a job that makes no progress for too long, and logs where it hung.

The timer is faulthandler's: it runs outside the interpreter, so it also ends native code that
never returns and holds the interpreter's lock.
"""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cmbench.engine.context import Tick
from cmbench.store.jobs import Job
from cmbench.store.store import Store

__all__ = ["hang_log", "hung", "watched"]


@contextmanager
def watched(store: Store, job: Job, limit: float | None, tick: Tick) -> Iterator[Tick]:
    """Ends this process if `limit` seconds pass without a tick; None: never.

    Args:
        store: The store; the log is written under its `logs/`.
        job: The job that runs in the block.
        limit: Seconds without progress.
        tick: The callback that the yielded tick calls.
    """
    if limit is None:
        yield tick
        return
    log = hang_log(store, job)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:

        def alive(done: int, total: int, note: str = "") -> None:
            faulthandler.dump_traceback_later(limit, exit=True, file=file)
            tick(done, total, note)

        faulthandler.dump_traceback_later(limit, exit=True, file=file)
        try:
            yield alive
        finally:
            faulthandler.cancel_dump_traceback_later()
    log.unlink(missing_ok=True)


def hang_log(store: Store, job: Job) -> Path:
    """Returns the path of the log with the stacks of a hung job."""
    return store.root / "logs" / f"{job.address.key}.hung.txt"


def hung(store: Store, job: Job) -> bool:
    """Tests whether the job's last process was ended because it hung."""
    try:
        return hang_log(store, job).stat().st_size > 0
    except FileNotFoundError:
        return False
