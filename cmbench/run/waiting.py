"""Estimates the cost of a plan's pending cells, and lists the commands that get their files."""

from collections import Counter
from dataclasses import dataclass, field
from math import prod

import torch
from pydantic import ValidationError

from cmbench.core.errors import CmbenchError, Pending
from cmbench.core.loader import create
from cmbench.denoise.model import Model
from cmbench.run.probe import probe_network
from cmbench.suite.planner import Cell, Plan

__all__ = ["Waiting", "estimate_waiting", "waiting_lines"]

_LONGEST = 20
"""Evaluations of the longest chain that is probed."""


@dataclass(frozen=True)
class Waiting:
    """The pending cells of a plan.

    Args:
        cells: Number of pending cells.
        evaluations: Forward passes of their networks, where the number is known.
        uncounted: Labels of cells whose evaluations are known only after a run.
        seconds: Their time on this machine, for networks that could be probed.
        unprobed: Networks whose time is unknown.
        bytes: Disk space of their images and features.
        commands: Commands that get missing files, with the number of cells that wait for each.
    """

    cells: int = 0
    evaluations: float = 0.0
    uncounted: list[str] = field(default_factory=list)
    seconds: float = 0.0
    unprobed: list[str] = field(default_factory=list)
    bytes: int = 0
    commands: dict[str, int] = field(default_factory=dict)


def estimate_waiting(plan: Plan, device: torch.device) -> Waiting:
    """Estimates the pending cells from their cards; networks are probed with random weights."""
    cells = [cell for cell in plan.cells if cell.pending is not None]
    evaluations = {cell.id: _evaluations(cell) for cell in cells}
    each = _seconds_each(cells, device)
    names = [cell.card.full_name for cell in cells]
    return Waiting(
        cells=len(cells),
        evaluations=sum(n * c.images for c in cells if (n := evaluations[c.id]) is not None),
        uncounted=sorted({c.label for c in cells if evaluations[c.id] is None}),
        seconds=sum(
            (evaluations[c.id] or 0) * c.images * (each[c.card.full_name] or 0.0) for c in cells
        ),
        unprobed=sorted({name for name in names if each[name] is None}),
        bytes=sum(_bytes(plan, cell) for cell in cells),
        commands=_commands(plan),
    )


def waiting_lines(plan: Plan) -> list[str]:
    """Returns one line per reason why cells, or scores of cells, are pending."""
    counters: dict[tuple[str, str], Counter[str]] = {}
    for cell in plan.cells:
        for what, reason in _reasons(cell):
            counters.setdefault((reason.reason, reason.command), Counter())[what] += 1
    return [
        f"pending: {', '.join(what + _cells(n) for what, n in counts.items())}: {reason}; "
        f"bring it with: {command}"
        for (reason, command), counts in counters.items()
    ]


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count > 1 else ''}"


def _reasons(cell: Cell) -> list[tuple[str, Pending]]:
    if cell.pending is not None:
        return [("", cell.pending)]
    return [(f"{s.metric.name} of ", s.pending) for s in cell.scores if s.pending is not None]


def _evaluations(cell: Cell) -> int | None:
    """Returns the sampler's NFE; if the model determines it, the NFE that its authors state."""
    nfe = cell.sampler.nfe() if cell.sampler else None
    if nfe is not None:
        return nfe
    printed = cell.card.card.published
    return printed[0].nfe if printed else None


def _seconds_each(cells: list[Cell], device: torch.device) -> dict[str, float | None]:
    """Returns the seconds per evaluation of one image, by card; None if not probed."""
    shortest: dict[str, Cell] = {}
    for cell in cells:
        known = shortest.setdefault(cell.card.full_name, cell)
        if _length(cell) < _length(known):
            shortest[cell.card.full_name] = cell
    return {name: _tried(cell, device) for name, cell in shortest.items()}


def _length(cell: Cell) -> float:
    nfe = cell.sampler.nfe() if cell.sampler else None
    return float("inf") if nfe is None else float(nfe)


def _tried(cell: Cell, device: torch.device) -> float | None:
    """Probes a cell's network; None also for the longest chains, which would take minutes."""
    if cell.sampler is None or _length(cell) > _LONGEST:
        return None
    try:
        model: Model = create("model", {"name": cell.card.family, **cell.card.card.config})
        return probe_network(model, cell.sampler, device)
    except (CmbenchError, ValidationError):
        # The configuration is in the missing file.
        return None


def _bytes(plan: Plan, cell: Cell) -> int:
    """Estimates a cell's disk space: 1 byte per value of the images, 4 bytes per feature."""
    extractors = [e.features or plan.suite.features[0] for e in plan.suite.metrics]
    widths = {str(spec): sum(create("features", spec).layers.values()) for spec in extractors}
    values = prod(cell.card.card.shape or (3, 32, 32))
    # The width of raw pixels is that of the images.
    return cell.images * (values + 4 * sum(width or values for width in widths.values()))


def _commands(plan: Plan) -> dict[str, int]:
    """Counts the cells that wait for each command, in the order of the cells, then of scores."""
    commands: Counter[str] = Counter(
        c.pending.command for c in plan.cells if c.pending is not None
    )
    for reason in [*plan.waiting.values(), *_data(plan)]:
        commands[reason.command] = max(commands[reason.command], len(plan.cells))
    return dict(commands)


def _data(plan: Plan) -> list[Pending]:
    """Returns the reason if the reference's images are missing and no file replaces them."""
    reference = plan.suite.reference
    extractors = [e.features or plan.suite.features[0] for e in plan.suite.metrics]
    names = {s if isinstance(s, str) else str(s.get("name")) for s in extractors}
    if names <= set(reference.files):
        return []
    try:
        plan.data.fingerprint(create("dataset", reference.dataset or plan.suite.dataset))
    except Pending as reason:
        return [reason]
    return []
