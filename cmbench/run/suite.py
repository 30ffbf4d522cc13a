"""Runs a suite cell by cell; writes the record of each cell as soon as it is finished."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cmbench.core.errors import disk_error
from cmbench.engine.base import Engine
from cmbench.run.results import ResultsWriter
from cmbench.suite.planner import Plan

__all__ = ["Outcome", "run_suite"]


@dataclass(frozen=True)
class Outcome:
    """Number of cells done, cached, failed and pending."""

    done: int
    cached: int
    failed: int
    pending: int
    folder: Path


def run_suite(plan: Plan, engine: Engine, folder: Path) -> Outcome:
    """Runs every cell of a plan and writes its results; finished cells are kept.

    Args:
        plan: The plan.
        engine: Computes the outputs.
        folder: The suite's results folder.

    Raises:
        UserError: If the results folder can't be written, or the disk is full.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    writer = ResultsWriter(plan, engine, folder)
    counts: Counter[str] = Counter()
    try:
        writer.open()
        engine.begin(plan)
        try:
            for cell in plan.cells:
                counts[writer.settle(cell)] += 1
        finally:
            writer.close(started)
    except OSError as error:
        message = disk_error(
            error,
            place=f"{folder} or {engine.context.store.root}",
            then=" (--results, CMBENCH_CACHE), then run the same command again; "
            "finished cells are kept",
        )
        raise (message or error) from error
    return Outcome(counts["done"], counts["cached"], counts["failed"], counts["pending"], folder)
