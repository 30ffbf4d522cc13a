"""Progress of a run: live bars on a terminal, plain lines in a log."""

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
    """Receives the progress of a run."""

    def start_job(self, title: str) -> None:
        """Reports that a job begins."""
        ...

    def tick(self, done: int, total: int, note: str = "") -> None:
        """Reports the running job's progress; `note` is extra text, such as the loss."""
        ...

    def end_job(self, note: str = "") -> None:
        """Reports that the running job ended; `note` says how, unless it just succeeded."""
        ...

    def say(self, line: str) -> None:
        """Prints a line for the user."""
        ...


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "", style="progress.data.speed")


class LiveProgress:
    """Two bars: all jobs of the run, and the running job with its rate and time left."""

    def __init__(self, progress: RichProgress, jobs: int) -> None:
        self.progress = progress
        self.overall = progress.add_task("whole run", total=jobs)
        self.current = progress.add_task("", total=None, visible=False)
        self.title, self.fresh = "", True

    def start_job(self, title: str) -> None:
        """Shows the job's bar from zero."""
        self.title, self.fresh = title, True
        self.progress.reset(self.current, total=None, visible=True, description=title)

    def tick(self, done: int, total: int, note: str = "") -> None:
        """Moves the job's bar; steps before the first call do not count in the rate."""
        if self.fresh:
            self.progress.reset(self.current, total=total, completed=done, visible=True)
            self.fresh = False
        title = f"{self.title}  {note}" if note else self.title
        self.progress.update(self.current, completed=done, total=total, description=title)

    def end_job(self, note: str = "") -> None:
        """Moves the bar of the run."""
        self.progress.update(self.current, visible=False)
        self.progress.advance(self.overall)
        if note:
            self.say(note)

    def say(self, line: str) -> None:
        """Prints above the bars."""
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


class PlainProgress:
    """Lines for logs and pipes: one when a job ends, and one every `every` seconds until then."""

    def __init__(self, console: Console, jobs: int, every: float = 30.0) -> None:
        self.console, self.jobs, self.every = console, jobs, every
        self.done, self.title = 0, ""
        self.began = self.printed_at = time.monotonic()
        self.first: tuple[float, int] | None = None

    def start_job(self, title: str) -> None:
        """Remembers the job."""
        self.title, self.first = title, None
        self.began = self.printed_at = time.monotonic()

    def tick(self, done: int, total: int, note: str = "") -> None:
        """Prints the job's progress, at most every `every` seconds.

        Steps before the first call, as in a resumed training, do not count in the rate.
        """
        now = time.monotonic()
        self.first = self.first or (now, done)
        since, before = self.first
        if now - self.printed_at < self.every or done <= before:
            return
        self.printed_at = now
        rate = (done - before) / (now - since)
        left = (total - done) / rate
        beside = f", {note}" if note else ""
        self.say(
            f"    {self.title}: {done:,} of {total:,}, {rate:,.1f}/s, {left:.0f} s left{beside}"
        )

    def end_job(self, note: str = "") -> None:
        """Prints that the job ended and how long it took."""
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
    """Shows the progress of a run of `jobs` jobs on standard error."""
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
