"""Checks what is stored beside the records: speeds, provenance, training logs, selection.

A time or the name of a machine can't be reproduced; what is taken on trust is listed as such.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cmbench.audit.claims import Check, close, field_checks
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
    "log_checks",
    "provenance_checks",
    "selection_checks",
    "speed_checks",
    "training_checks",
]

_PLAUSIBLE = 100.0
"""Largest plausible ratio of two machines' speeds, one of them under load."""


def speed_checks(
    folder: Path, records: Sequence[Record], cells: dict[str, Cell], stores: Sequence[Store]
) -> Iterator[Check]:
    """Yields a check for each speed that is missing, of no cell, or unlike one measured here.

    Args:
        folder: The results folder.
        records: Records of its finished cells.
        cells: The plan's cells by id.
        stores: The cache, and the store of recomputed outputs.
    """
    faults: list[str] = []
    speeds = read_speeds(folder, tell=faults.append)
    for fault in faults:
        yield Check("differs", "", "speed.json", fault)
    done = {record.cell for record in records}
    for cell in sorted(speeds.keys() - done):
        yield Check("differs", cell, "speed.json", "a speed for no finished cell")
    for cell in sorted(done - speeds.keys()):
        yield Check("differs", cell, "speed.json", "the finished cell has no speed")
    trusted = 0
    for cell in sorted(done & speeds.keys() & cells.keys()):
        check = _speed_check(speeds[cell], cells[cell], stores)
        trusted += check is None
        yield from [check] if check is not None else []
    if trusted:
        yield Check("on trust", "", "speed.json", f"seconds per image of {trusted} cells")


def _speed_check(claimed: Speed, cell: Cell, stores: Sequence[Store]) -> Check | None:
    """Checks a claimed speed; None where nothing here confirms or contradicts it."""
    measured = [
        cell_speed(cell, store)
        for store in stores
        if cell.shards and all(store.present(shard) for shard in cell.shards)
    ]
    if claimed in measured:
        return Check("confirmed", cell.id, "speed.json", "as the cache measured it")
    alike = [ours for ours in measured if ours.device == claimed.device]
    seconds = claimed.seconds_per_image
    if alike and not any(_plausible(seconds, ours.seconds_per_image) for ours in alike):
        ours = min(alike, key=lambda speed: speed.seconds_per_image)
        detail = f"{seconds:.2g} seconds per image claimed, {ours.seconds_per_image:.2g} here"
        return Check("unchecked", cell.id, "speed.json", detail)
    if claimed.device == "cpu" and alike and claimed.batch not in {s.batch for s in alike}:
        detail = f"batches of {claimed.batch} claimed, {alike[0].batch} here"
        return Check("unchecked", cell.id, "speed.json", detail)
    return None


def _plausible(one: float, two: float) -> bool:
    return max(one, two) <= _PLAUSIBLE * min(one, two)


def provenance_checks(folder: Path, plan: Plan) -> Iterator[Check]:
    """Yields what in provenance.json contradicts the suite, its data or itself."""
    faults: list[str] = []
    provenance = read_provenance(folder, tell=faults.append)
    if provenance is None:
        yield Check(
            "differs" if faults else "unchecked",
            "",
            "provenance.json",
            faults[0] if faults else "it is missing",
        )
        return
    faults = list(_contradictions(folder, provenance, plan))
    for fault in faults:
        yield Check("differs", "", "provenance.json", fault)
    devices = {speed.device for speed in read_speeds(folder, tell=faults.append).values()}
    if devices and not any(provenance.device.startswith(device) for device in devices):
        yield Check(
            "unchecked",
            "",
            "provenance.json",
            f"run on {provenance.device}, but no cell was timed there",
        )
    yield Check("on trust", "", "provenance.json", "commit, versions, machine, times, command")


def _contradictions(folder: Path, provenance: Provenance, plan: Plan) -> Iterator[str]:
    suite = read_regular(folder / "suite.yaml").decode("utf-8", "replace")
    if provenance.suite_digest != text_sha256(suite):
        yield "suite_digest: not the digest of suite.yaml"
    for name, fingerprint in plan.fingerprints.items():
        if provenance.data.get(name) != fingerprint:
            yield f"data.{name}: {provenance.data.get(name)} claimed, {fingerprint} here"
    for name in sorted(provenance.data.keys() - plan.fingerprints.keys()):
        if not plan.waiting and not any(cell.pending for cell in plan.cells):
            yield f"data.{name}: the suite uses no such data set"
    if not provenance.command.startswith("cmbench"):
        yield f"command: {provenance.command} is no command of cmbench"
    try:
        if datetime.fromisoformat(provenance.started) > datetime.fromisoformat(
            provenance.finished
        ):
            yield f"started {provenance.started}, after it finished ({provenance.finished})"
    except (ValueError, TypeError):
        yield f"started {provenance.started} or finished {provenance.finished} is no time"


def training_checks(
    folder: Path, records: Sequence[Record], cells: dict[str, Cell], stores: Sequence[Store]
) -> Iterator[Check]:
    """Yields a check for each training log: missing, of no training here, or compared."""
    faults: list[str] = []
    claimed = read_training_logs(folder, tell=faults.append)
    for fault in faults:
        yield Check("differs", "", "training", fault)
    done = [cells[r.cell] for r in records if r.cell in cells]
    jobs = {j.address.key[:16]: j for c in done for j in (c.network.jobs if c.network else ())}
    for name in sorted(claimed.keys() - jobs.keys()):
        yield Check("differs", "", f"training/{name}.json", "no model of the suite trained so")
    for name in sorted(jobs.keys() - claimed.keys()):
        yield Check("differs", "", f"training/{name}.json", "the training's log is missing")
    kept: dict[str, TrainingLog] = {}
    for cell, store in [(cell, store) for cell in done for store in stores]:
        if cell.network and all(store.has(job.address) for job in cell.network.jobs):
            kept |= training_logs(cell, store)
    shown = claimed.keys() & jobs.keys()
    for name in sorted(shown & kept.keys()):
        yield from log_checks(name, claimed[name], kept[name])
    for name in sorted(shown - kept.keys()):
        title = jobs[name].title.removeprefix("train ")
        yield from field_checks(
            "", f"training/{name}.json", {"label": claimed[name].label}, {"label": title}
        )
        yield Check(
            "on trust", "", f"training/{name}.json", "its losses: the training is not in the cache"
        )


def log_checks(
    name: str, claimed: TrainingLog, expected: TrainingLog, relative: float = 1e-5
) -> Iterator[Check]:
    """Yields the differences of a training log from the expected one, or that there are none."""
    what = f"training/{name}.json"
    plain = [log.model_dump(mode="json", exclude={"points"}) for log in (claimed, expected)]
    faults = list(field_checks("", what, plain[0], plain[1]))
    points = [
        [_numbers(point.model_dump()) for point in log.points] for log in (claimed, expected)
    ]
    alike = len(points[0]) == len(points[1]) and all(
        one.keys() == two.keys() and all(close(one[k], two[k], relative) for k in two)
        for one, two in zip(*points, strict=True)
    )
    if not alike:
        faults.append(Check("differs", "", what, "other losses than the training's"))
    yield from faults or [Check("confirmed", "", what, "as the training logged it")]


def _numbers(point: dict[str, Any]) -> dict[str, float]:
    return {**{k: v for k, v in point.items() if k != "extra"}, **point["extra"]}


def selection_checks(
    folder: Path, records: Sequence[Record], context: JobContext
) -> Iterator[Check]:
    """Yields what in selection.json contradicts the records, itself or the cache."""
    path = folder / "selection.json"
    if not path.exists():
        return
    try:
        rows = json.loads(read_regular(path))
        claimed = {row["cell"]: row for row in rows}
    except (UserError, ValueError, TypeError, KeyError) as error:
        yield Check("differs", "", "selection.json", f"it does not read: {error}")
        return
    known = {record.cell: record for record in records}
    counted = {s.cell: s.as_dict() for s in selections(records, context)}
    if len(claimed) != len(rows):
        yield Check("differs", "", "selection.json", "a cell is listed twice")
    for cell, row in claimed.items():
        fault = _row_fault(row, known.get(cell))
        if fault:
            yield Check("differs", cell, "selection.json", fault)
        elif cell not in counted:
            yield Check("on trust", cell, "selection.json", "the cache knows nothing of this cell")
        elif counted[cell] != row:
            yield Check(
                "unchecked",
                cell,
                "selection.json",
                f"best of {row['tried']} claimed, the cache counts {counted[cell]['tried']}",
            )
    for cell in sorted(counted.keys() - claimed.keys()):
        yield Check("unchecked", cell, "selection.json", "the cell is missing")


def _row_fault(row: dict[str, Any], record: Record | None) -> str:
    if record is None or not record.scores:
        return "it belongs to no finished cell"
    claimed = (row.get("label"), row.get("nfe"), row.get("score"))
    if claimed != (record.label, record.nfe, record.scores[0].title):
        return f"it says {claimed}, the record says otherwise"
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
