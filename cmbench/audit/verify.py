"""Does a results folder claim what its suite and its recorded seeds give?

Every field of every record is held against what the plan decides, and cells that were left out are
found. Then a random fraction of the claimed shards is sampled anew, in a store of its own, and
compared with the digests and pictures that were recorded; the cells they belong to are scored anew
and each number is compared. The scores of other cells are compared with those in the cache, where
it has them. Speeds, provenance and training logs are checked as far as they can be, and the report
is written again from the records and compared file by file. Of the cache, only trained weights are
used to make anything, and their effect shows in the comparison.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from cmbench.audit.again import Again, Verdict
from cmbench.audit.beside import (
    provenance_findings,
    selection_findings,
    speed_findings,
    training_findings,
)
from cmbench.audit.claims import Finding, Options, contradictions
from cmbench.audit.planned import left_out, planned_findings
from cmbench.audit.rendered import rendered_findings
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
        folder: What `cmbench run` wrote.
        store: The cache, for trained weights.
        device: Where the samples are made again.
        progress: Progress.
        options: What is checked and how strictly.
        suite: The suite's file, where it names files beside it; found by name otherwise.
        data: Paths of data sets.

    Raises:
        UserError: If the folder holds no results, or its suite does not read.
    """
    chosen, verdict = options or Options(), Verdict()
    faults: list[str] = []
    records = read_results(folder, tell=faults.append)
    for record in records:
        verdict.findings += contradictions(record)
    try:
        plan = _plan(folder, records, suite, data)
    except (UserError, OSError) as error:
        verdict.findings.append(Finding("differs", "", "the suite's plan", str(error)))
        return verdict
    cells = {cell.id: cell for cell in plan.cells}
    verdict.findings += _unread(folder, faults, cells)
    verdict.findings += left_out(plan, records)
    for record in records:
        verdict.findings += planned_findings(plan, record, cells.get(record.cell))
    known = [(r, cells[r.cell]) for r in records if r.status == "done" and _can_be_made(r, cells)]
    with tempfile.TemporaryDirectory(prefix="cmbench-verify-") as scratch:
        fresh = Store(Path(scratch) / "store")
        again = Again(plan, store, fresh, device, progress, chosen, folder)
        again.check(known, verdict)
        verdict.findings += _beside(folder, plan, records, [store, fresh], device)
        (Path(scratch) / "report").mkdir()
        verdict.findings += rendered_findings(folder, Path(scratch) / "report")
    return verdict


def _unread(folder: Path, faults: Sequence[str], cells: dict[str, Cell]) -> Iterator[Finding]:
    """Records that don't read: a planned cell's is a fault, a stray file is only told."""
    for fault in faults:
        cell = next((c for c in cells if f"/records/{c}.json:" in fault), None)
        if cell is None:
            on_stderr(fault)
        else:
            yield Finding("differs", cell, "record", fault.removeprefix("skipped "))


def _can_be_made(record: Record, cells: dict[str, Cell]) -> bool:
    cell = cells.get(record.cell)
    return cell is not None and cell.pending is None


def _beside(
    folder: Path,
    plan: Plan,
    records: Sequence[Record],
    stores: Sequence[Store],
    device: torch.device,
) -> Iterator[Finding]:
    cells = {cell.id: cell for cell in plan.cells}
    done = [record for record in records if record.status == "done"]
    yield from speed_findings(folder, done, cells, stores)
    yield from provenance_findings(folder, plan)
    yield from training_findings(folder, done, cells, stores)
    yield from selection_findings(folder, done, JobContext(stores[0], device))
    if (folder / "race.json").exists():
        yield Finding("on trust", "", "race.json", "how the race went")


def _plan(
    folder: Path, records: Sequence[Record], suite: Path | None, data: DataLookup | None
) -> Plan:
    kept = folder / "suite.yaml"
    if not kept.is_file():
        raise UserError(f"{kept} is missing, so nothing can be made again")
    source = read_yaml(kept)
    origin = suite or _origin(records[0].suite, source.text)
    # The text is the one that was run; its place is where the files that it names lie.
    placed = Source(origin or kept, source.text, source.data, source.lines)
    read = validate(placed, Suite)
    plan = make_plan(read, placed, data=data)
    if _covered(plan, records) == len(records):
        return plan
    # A run with --retrain has other weights than the shipped ones, and so other cells.
    trained = make_plan(read, placed, data=data, retrain=True)
    return trained if _covered(trained, records) > _covered(plan, records) else plan


def _covered(plan: Plan, records: Sequence[Record]) -> int:
    return len({cell.id for cell in plan.cells} & {record.cell for record in records})


def _origin(name: str, text: str) -> Path | None:
    try:
        found = find_suite(name)
    except UserError:
        return None
    return found if text_sha256(found.read_text("utf-8")) == text_sha256(text) else None
