"""Verifies that a results folder claims what its suite and its recorded seeds give.

Every field of every record is compared with the plan, and missing cells are reported. Then a
random fraction of the claimed shards is sampled again in a separate store and compared with the
recorded digests and images; the cells they belong to are scored again and each number is compared.
Scores of other cells are compared with those in the cache, where it has them. Speeds, provenance
and training logs are checked as far as possible, and the report is rendered again from the records
and compared file by file. Recomputation takes only trained weights from the cache, and any fault
of theirs shows in the comparison.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from cmbench.audit.again import Again, Verdict
from cmbench.audit.beside import (
    provenance_checks,
    selection_checks,
    speed_checks,
    training_checks,
)
from cmbench.audit.claims import Check, Options, contradictions
from cmbench.audit.planned import left_out, planned_checks
from cmbench.audit.rendered import rendered_checks
from cmbench.core.digests import text_sha256
from cmbench.core.errors import UserError
from cmbench.core.yaml_source import Source, read_yaml, validate
from cmbench.engine.context import JobContext
from cmbench.engine.progress import Progress
from cmbench.record.folder import on_stderr, read_results
from cmbench.record.schema import Record
from cmbench.store.store import Store
from cmbench.suite.networks import DataLookup
from cmbench.suite.planner import Cell, Plan, make_plan
from cmbench.suite.spec import Suite, find_suite

__all__ = ["verify_results"]


def verify_results(
    folder: Path,
    store: Store,
    device: torch.device,
    progress: Progress,
    *,
    options: Options | None = None,
    suite: Path | None = None,
    data: DataLookup | None = None,
) -> Verdict:
    """Verifies a results folder.

    Args:
        folder: A results folder of `cmbench run`.
        store: The cache, for trained weights.
        device: Where samples are recomputed.
        progress: Progress display.
        options: What is checked and how strictly.
        suite: The suite's file, needed if it refers to files beside it; by default looked up by
            the suite's name.
        data: Paths of data sets.

    Raises:
        UserError: If the folder holds no results, or its suite can't be read.
    """
    options, verdict = options or Options(), Verdict()
    faults: list[str] = []
    records = read_results(folder, tell=faults.append)
    for record in records:
        verdict.findings += contradictions(record)
    try:
        plan = _plan(folder, records, suite, data)
    except (UserError, OSError) as error:
        verdict.findings.append(Check("differs", "", "the suite's plan", str(error)))
        return verdict
    cells = {cell.id: cell for cell in plan.cells}
    verdict.findings += _unread(folder, faults, cells)
    verdict.findings += left_out(plan, records)
    for record in records:
        verdict.findings += planned_checks(plan, record, cells.get(record.cell))
    known = [(r, cells[r.cell]) for r in records if r.status == "done" and _can_be_made(r, cells)]
    with tempfile.TemporaryDirectory(prefix="cmbench-verify-") as scratch:
        fresh = Store(Path(scratch) / "store")
        again = Again(plan, store, fresh, device, progress, options, folder)
        again.check(known, verdict)
        verdict.findings += _beside(folder, plan, records, [store, fresh], device)
        (Path(scratch) / "report").mkdir()
        verdict.findings += rendered_checks(folder, Path(scratch) / "report")
    return verdict


def _unread(folder: Path, faults: Sequence[str], cells: dict[str, Cell]) -> Iterator[Check]:
    """Yields a check for each unreadable planned record; prints other unreadable files."""
    for fault in faults:
        cell = next((c for c in cells if f"/records/{c}.json:" in fault), None)
        if cell is None:
            on_stderr(fault)
        else:
            yield Check("differs", cell, "record", fault.removeprefix("skipped "))


def _can_be_made(record: Record, cells: dict[str, Cell]) -> bool:
    cell = cells.get(record.cell)
    return cell is not None and cell.pending is None


def _beside(
    folder: Path,
    plan: Plan,
    records: Sequence[Record],
    stores: Sequence[Store],
    device: torch.device,
) -> Iterator[Check]:
    cells = {cell.id: cell for cell in plan.cells}
    done = [record for record in records if record.status == "done"]
    yield from speed_checks(folder, done, cells, stores)
    yield from provenance_checks(folder, plan)
    yield from training_checks(folder, done, cells, stores)
    yield from selection_checks(folder, done, JobContext(stores[0], device))
    if (folder / "race.json").exists():
        yield Check("on trust", "", "race.json", "how the race went")


def _plan(
    folder: Path, records: Sequence[Record], suite: Path | None, data: DataLookup | None
) -> Plan:
    path = folder / "suite.yaml"
    if not path.is_file():
        raise UserError(f"{path} is missing, so nothing can be recomputed")
    source = read_yaml(path)
    origin = suite or _origin(records[0].suite, source.text)
    # The text is the one that was run; its path is where the files that it names are.
    placed = Source(origin or path, source.text, source.data, source.lines)
    validated = validate(placed, Suite)
    plan = make_plan(validated, placed, data=data)
    if _covered(plan, records) == len(records):
        return plan
    # A run with --retrain has other weights than the shipped ones, and therefore other cells.
    trained = make_plan(validated, placed, data=data, retrain=True)
    return trained if _covered(trained, records) > _covered(plan, records) else plan


def _covered(plan: Plan, records: Sequence[Record]) -> int:
    return len({cell.id for cell in plan.cells} & {record.cell for record in records})


def _origin(name: str, text: str) -> Path | None:
    try:
        path = find_suite(name)
    except UserError:
        return None
    return path if text_sha256(path.read_text("utf-8")) == text_sha256(text) else None
