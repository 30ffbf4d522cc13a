"""What a plan's waiting cells will cost once their files are here, and what brings them."""

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
"""Evaluations of a chain that is still tried."""


@dataclass(frozen=True)
class Waiting:
    """The cells that can't run now.

    Args:
        cells: How many.
        evaluations: Forward passes of their networks, where the number is known.
        uncounted: Labels of cells whose evaluations only a run can tell.
        seconds: Time for them here, of the networks that could be tried.
        unprobed: Networks whose time is unknown.
        bytes: Disk for their images and features.
        commands: What brings what is missing, by the cells (or the scores) that it helps.
    """

    cells: int = 0
    evaluations: float = 0.0
    uncounted: list[str] = field(default_factory=list)
    seconds: float = 0.0
    unprobed: list[str] = field(default_factory=list)
    bytes: int = 0
    commands: dict[str, int] = field(default_factory=dict)


def estimate_waiting(plan: Plan, device: torch.device) -> Waiting:
    """Estimates what waits from the cards alone; networks are tried with random weights."""
    cells = [cell for cell in plan.cells if cell.pending is not None]
    spent = {cell.id: _evaluations(cell) for cell in cells}
    each = _seconds_each(cells, device)
    names = [cell.card.full_name for cell in cells]
    return Waiting(
        cells=len(cells),
        evaluations=sum(n * c.images for c in cells if (n := spent[c.id]) is not None),
        uncounted=sorted({c.label for c in cells if spent[c.id] is None}),
        seconds=sum(
            (spent[c.id] or 0) * c.images * (each[c.card.full_name] or 0.0) for c in cells
        ),
        unprobed=sorted({name for name in names if each[name] is None}),
        bytes=sum(_bytes(plan, cell) for cell in cells),
        commands=_commands(plan),
    )


def waiting_lines(plan: Plan) -> list[str]:
    """A line for each reason that cells, or scores of cells that run, wait for."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for cell in plan.cells:
        for what, reason in _reasons(cell):
            found.setdefault((reason.reason, reason.command), Counter())[what] += 1
    return [
        f"pending: {', '.join(what + _cells(n) for what, n in counts.items())}: {reason}; "
        f"bring it with: {command}"
        for (reason, command), counts in found.items()
    ]


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count > 1 else ''}"


def _reasons(cell: Cell) -> list[tuple[str, Pending]]:
    if cell.pending is not None:
        return [("", cell.pending)]
    return [(f"{s.metric.name} of ", s.pending) for s in cell.scores if s.pending is not None]


def _evaluations(cell: Cell) -> int | None:
    """The sampler's, or where the model decides, what its authors printed for their own."""
    spent = cell.sampler.nfe() if cell.sampler else None
    if spent is not None:
        return spent
    printed = cell.card.card.published
    return printed[0].nfe if printed else None


def _seconds_each(cells: list[Cell], device: torch.device) -> dict[str, float | None]:
    """Seconds of one evaluation of one image, by card; None where it can't be tried here."""
    shortest: dict[str, Cell] = {}
    for cell in cells:
        known = shortest.setdefault(cell.card.full_name, cell)
        if _length(cell) < _length(known):
            shortest[cell.card.full_name] = cell
    return {name: _tried(cell, device) for name, cell in shortest.items()}


def _length(cell: Cell) -> float:
    spent = cell.sampler.nfe() if cell.sampler else None
    return float("inf") if spent is None else float(spent)


def _tried(cell: Cell, device: torch.device) -> float | None:
    """None too for the longest chains: one batch of them would take minutes."""
    if cell.sampler is None or _length(cell) > _LONGEST:
        return None
    try:
        model: Model = create("model", {"name": cell.card.family, **cell.card.card.config})
        return probe_network(model, cell.sampler, device)
    except (CmbenchError, ValidationError):
        # Its configuration comes with the file that is missing.
        return None


def _bytes(plan: Plan, cell: Cell) -> int:
    """A byte a value of the images, four a feature; an extractor's own weights aren't needed."""
    extractors = [e.features or plan.suite.features[0] for e in plan.suite.metrics]
    widths = {str(spec): sum(create("features", spec).layers.values()) for spec in extractors}
    values = prod(cell.card.card.shape or (3, 32, 32))
    # The width of raw pixels is that of the images.
    return cell.images * (values + 4 * sum(width or values for width in widths.values()))


def _commands(plan: Plan) -> dict[str, int]:
    """Commands in the order of the cells, then what scores wait for."""
    found: Counter[str] = Counter(c.pending.command for c in plan.cells if c.pending is not None)
    for reason in [*plan.waiting.values(), *_data(plan)]:
        found[reason.command] = max(found[reason.command], len(plan.cells))
    return dict(found)


def _data(plan: Plan) -> list[Pending]:
    """The reference's images, where they are not here and no file of statistics stands in."""
    given = plan.suite.reference
    extractors = [e.features or plan.suite.features[0] for e in plan.suite.metrics]
    names = {s if isinstance(s, str) else str(s.get("name")) for s in extractors}
    if names <= set(given.files):
        return []
    try:
        plan.data.fingerprint(create("dataset", given.dataset or plan.suite.dataset))
    except Pending as reason:
        return [reason]
    return []
