"""Records held against the suite's plan: all fields that it decides, and no cell left out."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from cmbench.audit.cached import differing_fields
from cmbench.audit.claims import Finding, field_findings
from cmbench.core.digests import digest
from cmbench.engine.cell_results import pending_scores, planned_record
from cmbench.record.schema import PendingScore, Record, ScoreRecord
from cmbench.suite.planner import Cell, Plan, PlannedScore, plan_of_tag

__all__ = ["left_out", "planned_findings"]

_COMPUTED = ("nfe", "parameters", "flops_per_image", "shape", "shards", "scores", "pending_scores")
"""Fields of a finished record that need the cell's outputs."""


def planned_findings(plan: Plan, record: Record, cell: Cell | None) -> Iterator[Finding]:
    """Yields what of a record is not as the plan says; nothing where all is."""
    if cell is None:
        yield _unplanned(plan, record)
        return
    yield from _decided(plan, record, cell)
    if record.status == "done":
        yield from _score_findings(record, cell)
    else:
        yield from _waiting_findings(record, cell)


def left_out(plan: Plan, records: Sequence[Record]) -> Iterator[Finding]:
    """Yields the cells of the plan that the folder has no record of."""
    known = {record.cell for record in records}
    missing = [c for c in plan.cells if c.id not in known and not _stands_for(c, records)]
    tag = _explaining_tag(plan, {cell.id for cell in missing}) if missing else None
    for cell in missing:
        if tag is not None:
            yield Finding(
                "unchecked",
                cell.id,
                cell.label,
                f"the folder holds the cells tagged '{tag}' alone",
            )
        else:
            yield Finding(
                "differs",
                cell.id,
                cell.label,
                "the suite plans this cell, the folder has no record of it",
            )


def _unplanned(plan: Plan, record: Record) -> Finding:
    pending = next((c for c in plan.cells if _is_like(c, record)), None)
    if pending is not None and pending.pending is not None:
        return Finding("unchecked", record.cell, record.label, str(pending.pending.reason))
    return Finding(
        "differs",
        record.cell,
        record.label,
        "the suite plans no such cell: another model, weights file, sampler, seed or count",
    )


def _is_like(cell: Cell, record: Record) -> bool:
    """Whether a cell that waits here, and so has no weights in its id, may be the record's."""
    sampler = cell.sampler.spec() if cell.sampler else {}
    return cell.pending is not None and (cell.card.full_name, sampler, cell.seed) == (
        record.model,
        record.sampler,
        record.seed,
    )


def _stands_for(cell: Cell, records: Sequence[Record]) -> bool:
    return any(record.status == "done" and _is_like(cell, record) for record in records)


def _explaining_tag(plan: Plan, missing: set[str]) -> str | None:
    """The tag whose cells alone were run, if one leaves out exactly what is missing."""
    for tag in sorted({t for run in plan.suite.runs for t in run.tags}):
        if plan_of_tag(plan, tag).left_out == missing:
            return tag
    return None


def _decided(plan: Plan, record: Record, cell: Cell) -> Iterator[Finding]:
    expected = planned_record(
        plan, cell, record.status, reason=record.reason, command=record.command
    )
    if record.status == "done":
        expected = expected.model_copy(update={"reason": "", "command": ""})
    left = set(_COMPUTED) if record.status == "done" else set()
    yield from field_findings(record.cell, "", _as_json(record, left), _as_json(expected, left))


def _as_json(record: Record, without: set[str]) -> dict[str, Any]:
    # Through text, as a record is written and read: tuples become lists.
    copy = Record.model_validate_json(record.model_dump_json())
    return copy.model_dump(mode="json", exclude=without)


def _waiting_findings(record: Record, cell: Cell) -> Iterator[Finding]:
    told = f"{record.status}: {record.reason or 'no reason'}"
    if cell.pending is None:
        yield Finding("unchecked", record.cell, record.label, f"{told}; here it can be made")
    elif (record.reason, record.command) != (cell.pending.reason, cell.pending.command):
        yield Finding(
            "unchecked",
            record.cell,
            record.label,
            f"{told}, by `{record.command}`; here it waits because "
            f"{cell.pending.reason}, by `{cell.pending.command}`",
        )


def _score_findings(record: Record, cell: Cell) -> Iterator[Finding]:
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
            yield Finding("differs", record.cell, score.title, "stands there more than once")
        else:
            yield from _decided_of_score(record, score, planned[place])
    for name, fingerprint in planned.keys() - counts.keys():
        yield Finding(
            "differs",
            record.cell,
            name,
            f"the suite plans this score ({fingerprint[:12]}), the record has none",
        )
    yield from _pending_findings(record, cell)


def _decided_of_score(
    record: Record, score: ScoreRecord, planned: PlannedScore
) -> Iterator[Finding]:
    claimed = {"title": score.title, "higher_is_better": score.higher_is_better}
    expected = {
        "title": planned.metric.title_of(score.name, planned.extractor),
        "higher_is_better": planned.metric.higher_is_better,
    }
    yield from field_findings(record.cell, f"scores.{score.name}", claimed, expected)
    if planned.job is not None and score.key != planned.job.key:
        yield Finding(
            "unchecked",
            record.cell,
            f"{score.title}: key",
            "another version of the metric made it, whose interval can't be compared",
        )


def _other_score(record: Record, score: ScoreRecord, cell: Cell) -> Finding:
    near = [s for s in cell.scores if s.metric.spec() == score.protocol.get("metric")]
    for planned in near:
        if planned.pending and planned.extractor.spec() == score.protocol.get("extractor"):
            return Finding("unchecked", record.cell, score.title, planned.pending.reason)
    fields = list(differing_fields(score.protocol, near[0].protocol)) if near else ["metric"]
    return Finding(
        "differs",
        record.cell,
        score.title,
        f"another protocol than the suite's: {', '.join(fields) or 'its name'}",
    )


def _pending_findings(record: Record, cell: Cell) -> Iterator[Finding]:
    expected = {(p.name, p.title): p for p in pending_scores(cell.scores)}
    claimed = {(p.name, p.title): p for p in record.pending_scores}
    titles = {s.title for s in record.scores}
    for place, score in claimed.items():
        if place not in expected:
            yield Finding(
                "differs",
                record.cell,
                score.title,
                "said to wait, but the suite plans no such score or it can be made",
            )
        elif score != expected[place]:
            yield Finding(
                "unchecked", record.cell, score.title, _other_reason(score, expected[place])
            )
    if len(record.pending_scores) != len(claimed):
        yield Finding("differs", record.cell, "pending_scores", "one stands there twice")
    for place in expected.keys() - claimed.keys():
        if place[1] not in titles:
            yield Finding(
                "differs",
                record.cell,
                place[1],
                "the suite plans this score, the record leaves it out",
            )


def _other_reason(claimed: PendingScore, expected: PendingScore) -> str:
    return (
        f"said to wait: {claimed.reason}, by `{claimed.command}`; here it waits: "
        f"{expected.reason}, by `{expected.command}`"
    )
