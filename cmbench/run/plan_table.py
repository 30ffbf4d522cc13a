"""Prints a plan: cells, jobs by kind, and their cost."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cmbench.run.estimate import PlanCost
from cmbench.run.waiting import Waiting
from cmbench.store.store import Address, Store
from cmbench.suite.planner import Cell, Plan

__all__ = ["plan_as_json", "print_plan"]


def print_plan(plan: Plan, store: Store, estimate: PlanCost, console: Console) -> None:
    """Prints the cells, then the jobs by kind with evaluations, time and disk."""
    cells = Table(title=plan.suite.title or plan.suite.suite, title_justify="left")
    for heading in ("model", "sampler", "NFE", "seed", "images", "state"):
        cells.add_column(
            heading, justify="right" if heading in ("NFE", "seed", "images") else "left"
        )
    present = store.survey()
    for cell in plan.cells:
        nfe = cell.sampler.nfe() if cell.sampler else None
        name = cell.sampler.name if cell.sampler else ""
        cells.add_row(
            cell.label,
            name,
            "counted" if nfe is None else str(nfe),
            str(cell.seed),
            f"{cell.images:,}",
            "pending" if cell.pending is not None else _state(cell, present),
        )
    console.print(cells)
    jobs = Table(title="jobs", title_justify="left")
    for heading in ("kind", "jobs", "cached", "evaluations", "time", "disk"):
        jobs.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind in estimate.kinds:
        seconds = "unknown" if kind.seconds is None else _duration(kind.seconds)
        jobs.add_row(
            kind.kind,
            str(kind.jobs),
            str(kind.cached),
            f"{kind.evaluations:,.0f}",
            seconds,
            _size(kind.bytes),
        )
    console.print(jobs)
    console.print(
        f"about {_duration(estimate.seconds)} here, {estimate.evaluations:,.0f} network "
        f"evaluations{_spared(estimate)}, {_size(estimate.bytes)} in {store.root}",
        highlight=False,
        soft_wrap=True,
    )
    if estimate.unprobed:
        console.print(
            f"time unknown for (too large to probe here): {', '.join(estimate.unprobed)}",
            highlight=False,
        )
    _print_waiting(estimate.waiting, console)


def _spared(estimate: PlanCost) -> str:
    if estimate.saved <= 0:
        return ""
    apart = estimate.evaluations + estimate.saved
    return f" ({estimate.saved:,.0f} of {apart:,.0f} saved by shared prefixes)"


def _print_waiting(waiting: Waiting, console: Console) -> None:
    """Prints the cost of pending cells, and the commands that complete them, without wrapping."""
    lines = []
    if waiting.cells:
        known = not waiting.unprobed
        lines.append(
            f"{waiting.cells} cells are pending: {waiting.evaluations:,.0f} network evaluations"
            + (f" (about {_duration(waiting.seconds)} here)" if known else "")
            + f" and {_size(waiting.bytes)} more, once their files are downloaded"
        )
    if waiting.uncounted:
        lines.append(f"evaluations known only after the run: {', '.join(waiting.uncounted)}")
    if waiting.unprobed:
        lines.append(f"time unknown here for: {', '.join(waiting.unprobed)}")
    lines += ["commands that get the missing files:"] if waiting.commands else []
    for command, cells in waiting.commands.items():
        lines.append(f"  {command}    # {cells} cell{'s' if cells > 1 else ''}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def plan_as_json(plan: Plan, store: Store, estimate: PlanCost) -> dict[str, Any]:
    """Returns the plan as a dictionary for JSON."""
    present = store.survey()
    return {
        "suite": plan.suite.suite,
        "cells": [
            {
                "cell": cell.id,
                "label": cell.label,
                "sampler": cell.sampler.spec() if cell.sampler else None,
                "nfe": cell.sampler.nfe() if cell.sampler else None,
                "seed": cell.seed,
                "images": cell.images,
                "state": _state(cell, present),
            }
            for cell in plan.cells
        ],
        "jobs": [kind.__dict__ for kind in estimate.kinds],
        "seconds": estimate.seconds,
        "evaluations": estimate.evaluations,
        "evaluations_saved": estimate.saved,
        "bytes": estimate.bytes,
        "unprobed": estimate.unprobed,
        "waiting": asdict(estimate.waiting),
    }


def _state(cell: Cell, present: Callable[[Address], bool]) -> str:
    if cell.pending is not None:
        return f"pending: {cell.pending.command}"
    wanted = [s.job for s in cell.scores if s.job]
    scored = sum(present(a) for a in wanted)
    waiting = len(cell.scores) - len(wanted)
    note = f", {waiting} scores pending" if waiting else ""
    if scored == len(wanted):
        return "cached" + note
    sampled = sum(present(a) for a in cell.shards)
    return (f"{sampled} of {len(cell.shards)} shards" if sampled else "to do") + note


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""
