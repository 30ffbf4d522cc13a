"""The board of a suite: its records in the order of rows and columns.

A column holds one score under one protocol: two fingerprints are two columns, never one.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, Field

from cmbench.core.yaml_source import read_yaml, validate
from cmbench.record.folder import Tell, on_stderr, read_records, read_speeds
from cmbench.record.schema import Record, ScoreRecord, Speed
from cmbench.report.disclosed import Disclosed, read_disclosed
from cmbench.stats.findings import Finding, Judgement, judge
from cmbench.stats.ranks import rank_ranges

__all__ = ["DECOY", "MOST_LINES", "Board", "Column", "Entry", "number", "read_board"]

DECOY = "decoy"
"""The family of decoys, which hold no rank."""

MOST_LINES = 24
"""Labels that one plot or sheet shows: of more, no eye tells one from another."""


@dataclass(frozen=True)
class Column:
    """One score under one protocol."""

    name: str
    title: str
    fingerprint: str
    higher_is_better: bool
    count: int

    def of(self, record: Record) -> ScoreRecord | None:
        """This column's score of a record."""
        for score in record.scores:
            if score.name == self.name and score.fingerprint == self.fingerprint:
                return score
        return None


class Entry(NamedTuple):
    """What stands in one row and one column.

    Args:
        score: The score; None where the cell has none.
        text: Value and half interval, `pending`, or a dash.
        best: Whether it can't be told from the best of its column.
        rank: The first and last rank that it may hold; None for decoys and without a score.
        chosen: Out of how many it was chosen, in a few words; empty where nothing tells.
    """

    score: ScoreRecord | None
    text: str
    best: bool
    rank: tuple[int, int] | None
    chosen: str = ""


@dataclass(frozen=True)
class Board:
    """The records of one suite, in the order of their lines and evaluations."""

    suite: str
    title: str
    records: list[Record]
    speeds: dict[str, Speed]
    findings: tuple[Finding, ...] = ()
    disclosed: tuple[Disclosed, ...] = ()

    @cached_property
    def judgements(self) -> list[Judgement]:
        """Every finding of the suite with its verdict."""
        return [judge(finding, self.done) for finding in self.findings]

    @cached_property
    def done(self) -> list[Record]:
        """Cells with numbers: by label, evaluations and seed."""
        found = [r for r in self.records if r.status == "done"]
        return sorted(found, key=lambda r: (r.label, r.nfe or 0, r.seed))

    @cached_property
    def waiting(self) -> list[Record]:
        """Cells that failed or wait."""
        return [r for r in self.records if r.status != "done"]

    @cached_property
    def labels(self) -> list[str]:
        """Every line of the plots."""
        return list(self.lines)

    @cached_property
    def lines(self) -> dict[str, list[Record]]:
        """The cells with numbers of each label, by NFE."""
        found: dict[str, list[Record]] = {}
        for record in self.done:
            found.setdefault(record.label, []).append(record)
        return found

    @cached_property
    def columns(self) -> list[Column]:
        """Every score under every protocol, in order of appearance."""
        found: dict[tuple[str, str], Column] = {}
        for record in self.done:
            for s in record.scores:
                key = (s.name, s.fingerprint)
                column = Column(s.name, s.title, s.fingerprint, s.higher_is_better, s.count)
                found.setdefault(key, column)
        return list(found.values())

    @cached_property
    def scores(self) -> dict[Column, list[ScoreRecord | None]]:
        """Each column from top to bottom: a place for every cell with numbers."""
        found: list[dict[tuple[str, str], ScoreRecord]] = [{} for _ in self.done]
        for mine, record in zip(found, self.done, strict=True):
            for s in record.scores:
                mine.setdefault((s.name, s.fingerprint), s)
        return {c: [mine.get((c.name, c.fingerprint)) for mine in found] for c in self.columns}

    @cached_property
    def entries(self) -> list[list[Entry]]:
        """What stands in each row of `done`, in the columns' order: every table draws from it."""
        rows: list[list[Entry]] = [[] for _ in self.done]
        chosen = {(d.cell, d.score): d.beside for d in self.disclosed}
        for column, scores in self.scores.items():
            best, ranks = self.best(column), self.column_ranks(column)
            for row, record, score in zip(rows, self.done, scores, strict=True):
                text = _absent(column, record) if score is None else number(score)
                told = "" if score is None else chosen.get((record.cell, column.title), "")
                place = ranks.get(record.cell)
                row.append(Entry(score, text, record.cell in best, place, told))
        return rows

    def leading(self, column: Column | None = None) -> list[str]:
        """The labels that plots and sheets show: at most `MOST_LINES`, in their order.

        Of more, those whose best cell is best in a column, the first where none is given.
        """
        column = column or next(iter(self.columns), None)
        if len(self.labels) <= MOST_LINES or column is None:
            return self.labels[:MOST_LINES]
        sign = -1 if column.higher_is_better else 1
        best = dict.fromkeys(self.labels, math.inf)
        for record, score in zip(self.done, self.scores[column], strict=True):
            if score is not None:
                best[record.label] = min(best[record.label], sign * score.value)
        kept = set(sorted(best, key=lambda label: best[label])[:MOST_LINES])
        return [label for label in self.labels if label in kept]

    def best(self, column: Column) -> set[str]:
        """Cells that can't be told from the best: their 95% interval reaches the best's."""
        paired = zip(self.done, self.scores[column], strict=True)
        scored = [(r.cell, s) for r, s in paired if s is not None]
        if not scored:
            return set()
        sign = 1 if column.higher_is_better else -1
        _, top = max(scored, key=lambda item: sign * item[1].value)
        return {cell for cell, s in scored if s is top or _overlap(s, top)}

    def column_ranks(self, column: Column) -> dict[str, tuple[int, int]]:
        """First and last rank (from 1) that each honest cell may hold in a column.

        A cell is better than another if their difference is above 1.96 of its standard error.
        """
        paired = zip(self.done, self.scores[column], strict=True)
        scored = [(r.cell, s) for r, s in paired if s is not None and r.family != DECOY]
        ranges = rank_ranges(
            [s.value for _, s in scored],
            [s.error for _, s in scored],
            higher_is_better=column.higher_is_better,
        )
        return {cell: found for (cell, _), found in zip(scored, ranges, strict=True)}

    def seconds(self, record: Record) -> float | None:
        """Measured seconds an image."""
        speed = self.speeds.get(record.cell)
        return speed.seconds_per_image if speed else None

    def missing(self) -> list[tuple[str, str]]:
        """What failed or waits, in words, each with the command that brings it (or none)."""
        cells = Counter(
            (f"{r.label} ({r.sampler.get('name', '')})", r.status, r.reason, r.command)
            for r in self.waiting
        )
        scores = Counter(
            (p.title, "pending", p.reason, p.command) for r in self.done for p in r.pending_scores
        )
        told = []
        for (what, status, reason, command), count in sorted((cells | scores).items()):
            many = f", {count} cells" if count > 1 else ""
            told.append((f"{what}{many}: {status}: {reason}", command))
        return told


def read_board(folder: Path, tell: Tell = on_stderr) -> Board:
    """Reads a suite's results folder; files that don't read are skipped and told.

    Raises:
        FileNotFoundError: If it holds no records.
    """
    records = read_records(folder, tell)
    if not records:
        raise FileNotFoundError(f"{folder} holds no records")
    speeds = read_speeds(folder, tell)
    suite = records[0].suite
    told = _read_told(folder / "suite.yaml")
    title, findings = told.title or suite, tuple(told.findings)
    return Board(suite, title, records, speeds, findings, read_disclosed(folder))


class _Told(BaseModel):
    """What a report takes from the suite as it was run."""

    title: str = ""
    findings: list[Finding] = Field(default_factory=list)


def _read_told(path: Path) -> _Told:
    source = read_yaml(path) if path.is_file() else None
    return validate(source, _Told) if source is not None and source.data is not None else _Told()


def _overlap(one: ScoreRecord, other: ScoreRecord) -> bool:
    """Whether two scores' difference is within 1.96 of its standard error (taken independent)."""
    if one.error is None or other.error is None:
        return one.value == other.value
    spread = (one.error**2 + other.error**2) ** 0.5
    return abs(one.value - other.value) <= 1.96 * spread


def _absent(column: Column, record: Record) -> str:
    return "pending" if any(p.name == column.name for p in record.pending_scores) else "–"


def number(score: ScoreRecord) -> str:
    """`12.3 ± 0.4`: as many digits as the interval bears out."""
    if score.interval is None:
        return f"{score.value:.4g}"
    half = (score.interval[1] - score.interval[0]) / 2
    digits = 3
    while digits < 6 and half > 0 and half < 2 * 10**-digits:
        digits += 1
    while digits > 0 and half >= 2 * 10 ** -(digits - 1):
        digits -= 1
    value = round(score.value, digits) + 0.0  # no "-0.00"
    return f"{value:.{digits}f} ± {half:.{digits}f}"
