"""What stands beside the records, as far as it can be checked: speeds, provenance, trainings.

A time or the name of a machine can't be made again: what is left unchecked is listed as such.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cmbench.audit.claims import Finding, close, field_findings
from cmbench.audit.selection import selections
from cmbench.core.digests import text_sha256
from cmbench.core.errors import UserError
from cmbench.core.files import read_regular
from cmbench.engine.cell_results import cell_speed, training_logs
from cmbench.engine.context import JobContext
from cmbench.record.folder import (
    read_provenance,
    read_speeds,
    read_training_logs,
)
from cmbench.record.schema import Provenance, Record, Speed, TrainingLog
from cmbench.stats.selection import expected_gain
from cmbench.store.store import Store
from cmbench.suite.planner import Cell, Plan

__all__ = [
    "log_findings",
    "provenance_findings",
    "selection_findings",
    "speed_findings",
    "training_findings",
]

_PLAUSIBLE = 100.0
"""By this factor two machines may differ in speed, one of them under load."""


def speed_findings(
    folder: Path, records: Sequence[Record], cells: dict[str, Cell], stores: Sequence[Store]
) -> Iterator[Finding]:
    """Yields what of speed.json is missing, of no cell, or unlike what a store has measured.

    Args:
        folder: The results folder.
        records: Its finished cells.
        cells: The plan's cells by id.
        stores: The cache, and the store of what was made again.
    """
    faults: list[str] = []
    speeds = read_speeds(folder, tell=faults.append)
    for fault in faults:
        yield Finding("differs", "", "speed.json", fault)
    done = {record.cell for record in records}
    for cell in sorted(speeds.keys() - done):
        yield Finding("differs", cell, "speed.json", "a speed of no finished cell")
    for cell in sorted(done - speeds.keys()):
        yield Finding("differs", cell, "speed.json", "the finished cell has no speed")
    trusted = 0
    for cell in sorted(done & speeds.keys() & cells.keys()):
        found = _speed_finding(speeds[cell], cells[cell], stores)
        trusted += found is None
        yield from [found] if found is not None else []
    if trusted:
        yield Finding("on trust", "", "speed.json", f"seconds per image of {trusted} cells")


def _speed_finding(claimed: Speed, cell: Cell, stores: Sequence[Store]) -> Finding | None:
    """What a claimed speed is worth; None where nothing here speaks for or against it."""
    measured = [
        cell_speed(cell, store)
        for store in stores
        if cell.shards and all(store.present(shard) for shard in cell.shards)
    ]
    if claimed in measured:
        return Finding("confirmed", cell.id, "speed.json", "as the cache measured it")
    alike = [ours for ours in measured if ours.device == claimed.device]
    seconds = claimed.seconds_per_image
    if alike and not any(_plausible(seconds, ours.seconds_per_image) for ours in alike):
        ours = min(alike, key=lambda speed: speed.seconds_per_image)
        detail = f"{seconds:.2g} seconds per image claimed, {ours.seconds_per_image:.2g} here"
        return Finding("unchecked", cell.id, "speed.json", detail)
    if claimed.device == "cpu" and alike and claimed.batch not in {s.batch for s in alike}:
        detail = f"batches of {claimed.batch} claimed, {alike[0].batch} here"
        return Finding("unchecked", cell.id, "speed.json", detail)
    return None


def _plausible(one: float, two: float) -> bool:
    return max(one, two) <= _PLAUSIBLE * min(one, two)


def provenance_findings(folder: Path, plan: Plan) -> Iterator[Finding]:
    """Yields what of provenance.json contradicts the suite, its data, or itself."""
    faults: list[str] = []
    told = read_provenance(folder, tell=faults.append)
    if told is None:
        yield Finding(
            "differs" if faults else "unchecked",
            "",
            "provenance.json",
            faults[0] if faults else "it is missing",
        )
        return
    faults = list(_contradictions(folder, told, plan))
    for fault in faults:
        yield Finding("differs", "", "provenance.json", fault)
    devices = {speed.device for speed in read_speeds(folder, tell=faults.append).values()}
    if devices and not any(told.device.startswith(device) for device in devices):
        yield Finding(
            "unchecked",
            "",
            "provenance.json",
            f"run on {told.device}, but no cell was timed there",
        )
    yield Finding("on trust", "", "provenance.json", "commit, versions, machine, times, command")


def _contradictions(folder: Path, told: Provenance, plan: Plan) -> Iterator[str]:
    suite = read_regular(folder / "suite.yaml").decode("utf-8", "replace")
    if told.suite_digest != text_sha256(suite):
        yield "suite_digest: not the digest of suite.yaml"
    for name, fingerprint in plan.fingerprints.items():
        if told.data.get(name) != fingerprint:
            yield f"data.{name}: {told.data.get(name)} claimed, {fingerprint} here"
    for name in sorted(told.data.keys() - plan.fingerprints.keys()):
        if not plan.waiting and not any(cell.pending for cell in plan.cells):
            yield f"data.{name}: the suite uses no such data set"
    if not told.command.startswith("cmbench"):
        yield f"command: {told.command} is no command of cmbench"
    try:
        if datetime.fromisoformat(told.started) > datetime.fromisoformat(told.finished):
            yield f"started {told.started}, after it finished ({told.finished})"
    except (ValueError, TypeError):
        yield f"started {told.started} or finished {told.finished} is no time"


def training_findings(
    folder: Path, records: Sequence[Record], cells: dict[str, Cell], stores: Sequence[Store]
) -> Iterator[Finding]:
    """Yields logs that are missing, of no training of the suite, or unlike those in a store."""
    faults: list[str] = []
    claimed = read_training_logs(folder, tell=faults.append)
    for fault in faults:
        yield Finding("differs", "", "training", fault)
    done = [cells[r.cell] for r in records if r.cell in cells]
    jobs = {j.address.key[:16]: j for c in done for j in (c.network.jobs if c.network else ())}
    for name in sorted(claimed.keys() - jobs.keys()):
        yield Finding("differs", "", f"training/{name}.json", "no model of the suite trained so")
    for name in sorted(jobs.keys() - claimed.keys()):
        yield Finding("differs", "", f"training/{name}.json", "the training's log is missing")
    kept: dict[str, TrainingLog] = {}
    for cell, store in [(cell, store) for cell in done for store in stores]:
        if cell.network and all(store.has(job.address) for job in cell.network.jobs):
            kept |= training_logs(cell, store)
    shown = claimed.keys() & jobs.keys()
    for name in sorted(shown & kept.keys()):
        yield from log_findings(name, claimed[name], kept[name])
    for name in sorted(shown - kept.keys()):
        title = jobs[name].title.removeprefix("train ")
        yield from field_findings(
            "", f"training/{name}.json", {"label": claimed[name].label}, {"label": title}
        )
        yield Finding(
            "on trust", "", f"training/{name}.json", "its losses: the training is not in the cache"
        )


def log_findings(
    name: str, claimed: TrainingLog, expected: TrainingLog, relative: float = 1e-5
) -> Iterator[Finding]:
    """Yields what of a training's log is not as it was made again."""
    what = f"training/{name}.json"
    plain = [log.model_dump(mode="json", exclude={"points"}) for log in (claimed, expected)]
    faults = list(field_findings("", what, plain[0], plain[1]))
    points = [
        [_numbers(point.model_dump()) for point in log.points] for log in (claimed, expected)
    ]
    alike = len(points[0]) == len(points[1]) and all(
        one.keys() == two.keys() and all(close(one[k], two[k], relative) for k in two)
        for one, two in zip(*points, strict=True)
    )
    if not alike:
        faults.append(Finding("differs", "", what, "other losses than the training's"))
    yield from faults or [Finding("confirmed", "", what, "as the training logged it")]


def _numbers(point: dict[str, Any]) -> dict[str, float]:
    return {**{k: v for k, v in point.items() if k != "extra"}, **point["extra"]}


def selection_findings(
    folder: Path, records: Sequence[Record], context: JobContext
) -> Iterator[Finding]:
    """Yields what of selection.json contradicts the records, itself or the cache's count."""
    path = folder / "selection.json"
    if not path.exists():
        return
    try:
        rows = json.loads(read_regular(path))
        claimed = {row["cell"]: row for row in rows}
    except (UserError, ValueError, TypeError, KeyError) as error:
        yield Finding("differs", "", "selection.json", f"it does not read: {error}")
        return
    known = {record.cell: record for record in records}
    counted = {found.cell: found.as_dict() for found in selections(records, context)}
    if len(claimed) != len(rows):
        yield Finding("differs", "", "selection.json", "a cell stands there twice")
    for cell, row in claimed.items():
        fault = _row_fault(row, known.get(cell))
        if fault:
            yield Finding("differs", cell, "selection.json", fault)
        elif cell not in counted:
            yield Finding(
                "on trust", cell, "selection.json", "the cache knows nothing of this cell"
            )
        elif counted[cell] != row:
            yield Finding(
                "unchecked",
                cell,
                "selection.json",
                f"best of {row['tried']} claimed, the cache counts {counted[cell]['tried']}",
            )
    for cell in sorted(counted.keys() - claimed.keys()):
        yield Finding("unchecked", cell, "selection.json", "the cell is left out")


def _row_fault(row: dict[str, Any], record: Record | None) -> str:
    if record is None or not record.scores:
        return "of no finished cell"
    told = (row.get("label"), row.get("nfe"), row.get("score"))
    if told != (record.label, record.nfe, record.scores[0].title):
        return f"it says {told}, the record says otherwise"
    same = row.get("same_seeds")
    if not isinstance(same, int) or not 1 <= same <= row.get("tried", 0):
        return f"{same} configurations on the reported seed, of {row.get('tried')} in all"
    if not close(row.get("gain", float("nan")), expected_gain(same), 1e-6, 1e-9):
        return f"a gain of {row.get('gain')} is not that of the best of {same}"
    return (
        "held out, though others were scored on its seed"
        if row.get("held_out") and same > 1
        else ""
    )
