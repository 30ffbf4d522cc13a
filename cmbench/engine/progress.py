"""Progress of a run: a live board on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)
from rich.text import Text

__all__ = ["LiveProgress", "PlainProgress", "Progress", "show_progress"]


class Progress(Protocol):
    """Where a run shows what it does."""

    def start_job(self, title: str) -> None:
        """A job begins."""
        ...

    def tick(self, done: int, total: int, note: str = "") -> None:
        """The running job has done so much; `note` is a word beside it, such as the loss."""
        ...

    def end_job(self, note: str = "") -> None:
        """The running job ended; `note` says how, if not simply well."""
        ...

    def say(self, line: str) -> None:
        """A line for the reader."""
        ...


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "", style="progress.data.speed")


class LiveProgress:
    """Two bars: the whole run in jobs, and the running job with its rate and time left."""

    def __init__(self, progress: RichProgress, jobs: int) -> None:
        self.progress = progress
        self.whole = progress.add_task("whole run", total=jobs)
        self.current = progress.add_task("", total=None, visible=False)
        self.title, self.fresh = "", True

    def start_job(self, title: str) -> None:
        """Shows the job's bar from zero."""
        self.title, self.fresh = title, True
        self.progress.reset(self.current, total=None, visible=True, description=title)

    def tick(self, done: int, total: int, note: str = "") -> None:
        """Moves the job's bar; what was done before the first call counts in no rate."""
        if self.fresh:
            self.progress.reset(self.current, total=total, completed=done, visible=True)
            self.fresh = False
        title = f"{self.title}  {note}" if note else self.title
        self.progress.update(self.current, completed=done, total=total, description=title)

    def end_job(self, note: str = "") -> None:
        """Moves the whole run's bar."""
        self.progress.update(self.current, visible=False)
        self.progress.advance(self.whole)
        if note:
            self.say(note)

    def say(self, line: str) -> None:
        """Prints above the bars."""
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


class PlainProgress:
    """A line when a job ends, and one now and then while it lasts: for logs and pipes."""

    def __init__(self, console: Console, jobs: int, every: float = 30.0) -> None:
        self.console, self.jobs, self.every = console, jobs, every
        self.done, self.title = 0, ""
        self.began = self.told = time.monotonic()
        self.first: tuple[float, int] | None = None

    def start_job(self, title: str) -> None:
        """Remembers the job."""
        self.title, self.first = title, None
        self.began = self.told = time.monotonic()

    def tick(self, done: int, total: int, note: str = "") -> None:
        """Says how far the job is, not oftener than every `every` seconds.

        What was done before the first call, as in a training that goes on, counts in no rate.
        """
        now = time.monotonic()
        self.first = self.first or (now, done)
        since, before = self.first
        if now - self.told < self.every or done <= before:
            return
        self.told = now
        rate = (done - before) / (now - since)
        left = (total - done) / rate
        beside = f", {note}" if note else ""
        self.say(
            f"    {self.title}: {done:,} of {total:,}, {rate:,.1f}/s, {left:.0f} s left{beside}"
        )

    def end_job(self, note: str = "") -> None:
        """Says that the job ended and how long it took."""
        self.done += 1
        spent = time.monotonic() - self.began
        self.say(
            f"[{self.done}/{self.jobs}] {self.title} ({spent:.1f} s)"
            + (f" {note}" if note else "")
        )

    def say(self, line: str) -> None:
        """Prints the line."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def show_progress(jobs: int, *, quiet: bool = False) -> Iterator[Progress]:
    """A board for a run of so many jobs, on standard error."""
    console = Console(stderr=True, quiet=quiet)
    if not console.is_terminal or quiet or not sys.stderr.isatty():
        yield PlainProgress(console, jobs)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console, transient=True) as progress:
        yield LiveProgress(progress, jobs)
