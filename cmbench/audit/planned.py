"""Checks records against the suite's plan: every field that it determines, and no cell missing."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from cmbench.audit.cached import differing_fields
from cmbench.audit.claims import Check, field_checks
from cmbench.core.digests import digest
from cmbench.engine.cell_results import pending_scores, planned_record
from cmbench.record.schema import PendingScore, Record, ScoreRecord
from cmbench.suite.planner import Cell, Plan, PlannedScore, plan_of_tag

__all__ = ["left_out", "planned_checks"]

_COMPUTED = ("nfe", "parameters", "flops_per_image", "shape", "shards", "scores", "pending_scores")
"""Fields of a finished record that depend on the cell's outputs."""


def planned_checks(plan: Plan, record: Record, cell: Cell | None) -> Iterator[Check]:
    """Yields a check for each difference of a record from the plan."""
    if cell is None:
        yield _unplanned(plan, record)
        return
    yield from _decided(plan, record, cell)
    if record.status == "done":
        yield from _score_checks(record, cell)
    else:
        yield from _waiting_checks(record, cell)


def left_out(plan: Plan, records: Sequence[Record]) -> Iterator[Check]:
    """Yields a check for each planned cell that has no record in the folder."""
    known = {record.cell for record in records}
    missing = [c for c in plan.cells if c.id not in known and not _stands_for(c, records)]
    tag = _explaining_tag(plan, {cell.id for cell in missing}) if missing else None
    for cell in missing:
        if tag is not None:
            yield Check(
                "unchecked",
                cell.id,
                cell.label,
                f"the folder holds the cells tagged '{tag}' only",
            )
        else:
            yield Check(
                "differs",
                cell.id,
                cell.label,
                "the suite plans this cell, but the folder has no record of it",
            )


def _unplanned(plan: Plan, record: Record) -> Check:
    pending = next((c for c in plan.cells if _is_like(c, record)), None)
    if pending is not None and pending.pending is not None:
        return Check("unchecked", record.cell, record.label, str(pending.pending.reason))
    return Check(
        "differs",
        record.cell,
        record.label,
        "the suite plans no such cell: another model, weights file, sampler, seed or count",
    )


def _is_like(cell: Cell, record: Record) -> bool:
    """Tests whether a pending cell, which has no weights in its id, may be the record's."""
    sampler = cell.sampler.spec() if cell.sampler else {}
    return cell.pending is not None and (cell.card.full_name, sampler, cell.seed) == (
        record.model,
        record.sampler,
        record.seed,
    )


def _stands_for(cell: Cell, records: Sequence[Record]) -> bool:
    return any(record.status == "done" and _is_like(cell, record) for record in records)


def _explaining_tag(plan: Plan, missing: set[str]) -> str | None:
    """Finds the tag whose run leaves out exactly the missing cells; None if there is none."""
    for tag in sorted({t for run in plan.suite.runs for t in run.tags}):
        if plan_of_tag(plan, tag).left_out == missing:
            return tag
    return None


def _decided(plan: Plan, record: Record, cell: Cell) -> Iterator[Check]:
    expected = planned_record(
        plan, cell, record.status, reason=record.reason, command=record.command
    )
    if record.status == "done":
        expected = expected.model_copy(update={"reason": "", "command": ""})
    skip = set(_COMPUTED) if record.status == "done" else set()
    yield from field_checks(record.cell, "", _as_json(record, skip), _as_json(expected, skip))


def _as_json(record: Record, without: set[str]) -> dict[str, Any]:
    # A round trip through text turns tuples into lists, as in a record file.
    copy = Record.model_validate_json(record.model_dump_json())
    return copy.model_dump(mode="json", exclude=without)


def _waiting_checks(record: Record, cell: Cell) -> Iterator[Check]:
    status = f"{record.status}: {record.reason or 'no reason'}"
    if cell.pending is None:
        yield Check("unchecked", record.cell, record.label, f"{status}; here it can be computed")
    elif (record.reason, record.command) != (cell.pending.reason, cell.pending.command):
        yield Check(
            "unchecked",
            record.cell,
            record.label,
            f"{status}, by `{record.command}`; here it is pending because "
            f"{cell.pending.reason}, by `{cell.pending.command}`",
        )


def _score_checks(record: Record, cell: Cell) -> Iterator[Check]:
    planned = {
        (name, digest(score.protocol)): score
        for score in cell.scores
        if score.job is not None
        for name in score.metric.outputs
    }
    counts = Counter((score.name, score.fingerprint) for score in record.scores)
    for score in record.scores:
        place = (score.name, score.fingerprint)
        if place not in planned:
            yield _other_score(record, score, cell)
        elif counts[place] > 1:
            yield Check("differs", record.cell, score.title, "it is listed more than once")
        else:
            yield from _decided_of_score(record, score, planned[place])
    for name, fingerprint in planned.keys() - counts.keys():
        yield Check(
            "differs",
            record.cell,
            name,
            f"the suite plans this score ({fingerprint[:12]}), the record lacks it",
        )
    yield from _pending_checks(record, cell)


def _decided_of_score(
    record: Record, score: ScoreRecord, planned: PlannedScore
) -> Iterator[Check]:
    claimed = {"title": score.title, "higher_is_better": score.higher_is_better}
    expected = {
        "title": planned.metric.title_of(score.name, planned.extractor),
        "higher_is_better": planned.metric.higher_is_better,
    }
    yield from field_checks(record.cell, f"scores.{score.name}", claimed, expected)
    if planned.job is not None and score.key != planned.job.key:
        yield Check(
            "unchecked",
            record.cell,
            f"{score.title}: key",
            "another version of the metric made it, whose interval can't be compared",
        )


def _other_score(record: Record, score: ScoreRecord, cell: Cell) -> Check:
    near = [s for s in cell.scores if s.metric.spec() == score.protocol.get("metric")]
    for planned in near:
        if planned.pending and planned.extractor.spec() == score.protocol.get("extractor"):
            return Check("unchecked", record.cell, score.title, planned.pending.reason)
    fields = list(differing_fields(score.protocol, near[0].protocol)) if near else ["metric"]
    return Check(
        "differs",
        record.cell,
        score.title,
        f"another protocol than the suite's: {', '.join(fields) or 'its name'}",
    )


def _pending_checks(record: Record, cell: Cell) -> Iterator[Check]:
    expected = {(p.name, p.title): p for p in pending_scores(cell.scores)}
    claimed = {(p.name, p.title): p for p in record.pending_scores}
    titles = {s.title for s in record.scores}
    for place, score in claimed.items():
        if place not in expected:
            yield Check(
                "differs",
                record.cell,
                score.title,
                "claimed to be pending, but the suite plans no such score or it can be computed",
            )
        elif score != expected[place]:
            yield Check(
                "unchecked", record.cell, score.title, _other_reason(score, expected[place])
            )
    if len(record.pending_scores) != len(claimed):
        yield Check("differs", record.cell, "pending_scores", "a score is listed twice")
    for place in expected.keys() - claimed.keys():
        if place[1] not in titles:
            yield Check(
                "differs",
                record.cell,
                place[1],
                "the suite plans this score, but the record lacks it",
            )


def _other_reason(claimed: PendingScore, expected: PendingScore) -> str:
    return (
        f"claimed to be pending: {claimed.reason}, by `{claimed.command}`; here it is pending: "
        f"{expected.reason}, by `{expected.command}`"
    )
