"""What `cmbench verify` finds: claims held against each other, and numbers against new ones."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cmbench.core.digests import digest
from cmbench.record.schema import Record, ScoreRecord

__all__ = ["Finding", "Options", "compared", "contradictions", "table_faults"]


@dataclass(frozen=True)
class Options:
    """What is checked and how strictly.

    Args:
        fraction: Share of the claimed shards that is sampled again, at least one.
        seed: Of the choice of shards.
        levels: Grey levels by which pixels may differ (0: to the bit). For another device.
        relative: Relative difference that scores may show (rounding of another machine).
        of_error: Also allowed, as a share of the score's standard error.
        retrain: Train again what is not in the cache.
    """

    fraction: float = 0.1
    seed: int = 0
    levels: int = 0
    relative: float = 1e-5
    of_error: float = 0.01
    retrain: bool = False


@dataclass(frozen=True)
class Finding:
    """One thing looked at: a claim that holds, that does not, or that can't be checked here."""

    verdict: Literal["confirmed", "differs", "unchecked"]
    cell: str
    what: str
    detail: str = ""


def contradictions(record: Record) -> Iterator[Finding]:
    """Claims of a record that contradict each other."""

    def differs(what: str, detail: str) -> Finding:
        return Finding("differs", record.cell, what, detail)

    if digest(record.identity)[:16] != record.cell:
        yield differs("identity", "the cell's id is not the hash of its identity")
    for name in ("seed", "images"):
        if record.identity.get(name) != getattr(record, name):
            yield differs(name, f"{getattr(record, name)}, its identity says "
                          f"{record.identity.get(name)}")  # fmt: skip
    for score in record.scores:
        if digest(score.protocol) != score.fingerprint:
            yield differs(score.title, "its fingerprint is not the hash of its protocol")
        if score.count != record.images or score.protocol.get("images") != record.images:
            yield differs(
                score.title, f"scored on {score.count} images, the cell has {record.images}"
            )


def table_faults(folder: Path, records: Sequence[Record]) -> Iterator[Finding]:
    """Numbers of leaderboard.csv that are not the records'."""
    path = folder / "leaderboard.csv"
    if not path.is_file():
        return
    claimed = {(r.cell, s.name, s.fingerprint[:12]): s.value for r in records for s in r.scores}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = (row.get("cell", ""), row.get("score", ""), row.get("fingerprint", ""))
            if row.get("value") and (key not in claimed or float(row["value"]) != claimed[key]):
                known = claimed.get(key)
                yield Finding("differs", key[0], f"leaderboard.csv: {key[1]}",
                              f"{row['value']}, the record says {known}")  # fmt: skip


def compared(
    record: Record, claimed: ScoreRecord, ours: dict[str, Any], options: Options, key: str
) -> Finding:
    """A number, its error, interval and count against those made again.

    Args:
        record: The cell.
        claimed: What it claims.
        ours: What was made again.
        options: How strictly.
        key: Of the job that made it again. Another than the claimed one's, for the same samples,
            is another version of the metric's code: then its interval can't be held against ours.
    """
    room = options.of_error * (ours["error"] or 0.0)
    pairs = [("value", claimed.value, ours["value"]), ("error", claimed.error, ours["error"])]
    ends = zip(("low", "high"), claimed.interval or (), ours["interval"] or (), strict=False)
    for name, one, two in [*pairs, *ends]:
        if (one is None) != (two is None):
            return Finding(
                "differs", record.cell, claimed.title, f"{name} {one}, made again {two}"
            )
        if one is not None and abs(one - two) > max(options.relative * abs(two), room):
            if name in ("low", "high") and claimed.key != key:
                return Finding("unchecked", record.cell, claimed.title,
                               "value and error come out again, its interval was made by another "
                               "version of the metric")  # fmt: skip
            return Finding("differs", record.cell, claimed.title,
                           f"{name} {one:.8g} claimed, {two:.8g} made again")  # fmt: skip
    if claimed.count != ours["count"]:
        return Finding("differs", record.cell, claimed.title,
                       f"{claimed.count} images claimed, {ours['count']} made again")  # fmt: skip
    gap = abs(claimed.value - ours["value"])
    detail = "to the last digit" if gap == 0 else f"within {gap:.1g}"
    return Finding("confirmed", record.cell, claimed.title, f"{claimed.value:.6g} {detail}")
