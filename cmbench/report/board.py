"""The board of a suite: its rows and columns, which every table and plot draws from.

A row holds the seeds and trainings of one cell (`cmbench.stats.rows`); a column holds one score
under one protocol: two fingerprints are two columns, never one.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import TypeAdapter

from cmbench.record.schema import Record, ScoreRecord, Speed, read_records
from cmbench.report.disclosed import Disclosed, read_disclosed
from cmbench.stats.findings import Finding, Judgement, judge
from cmbench.stats.ranks import rank_ranges
from cmbench.stats.rows import Row, RowScore, axes_apart, rows_of

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

    def of(self, row: Row) -> RowScore | None:
        """This column's score of a row."""
        for score in row.scores:
            if score.name == self.name and score.fingerprint == self.fingerprint:
                return score
        return None


class Entry(NamedTuple):
    """What stands in one row and one column.

    Args:
        score: The score; None where the row has none.
        text: Value and interval, `pending`, or a dash.
        best: Whether it can't be told from the best of its column, while others can.
        rank: The first and last rank that it may hold; None for decoys and without a score.
        chosen: Out of how many it was chosen, in a few words; empty where nothing tells.
    """

    score: RowScore | None
    text: str
    best: bool
    rank: tuple[int, int] | None
    chosen: str = ""


@dataclass(frozen=True)
class Board:
    """The rows of one suite, in the order of their lines and evaluations."""

    suite: str
    title: str
    records: list[Record]
    speeds: dict[str, Speed]
    findings: tuple[Finding, ...] = ()
    disclosed: tuple[Disclosed, ...] = ()

    @cached_property
    def judgements(self) -> list[Judgement]:
        """Every finding of the suite with its verdict."""
        return [judge(finding, self.records) for finding in self.findings]

    @cached_property
    def done(self) -> list[Row]:
        """Rows with numbers: by line, evaluations and seed."""
        rows = rows_of(record for record in self.records if record.status == "done")
        return sorted(rows, key=lambda r: (r.name, r.nfe or 0, r.seeds))

    @cached_property
    def waiting(self) -> list[Record]:
        """Cells that failed or wait."""
        return [r for r in self.records if r.status != "done"]

    @cached_property
    def labels(self) -> list[str]:
        """Every line of the plots."""
        return list(self.lines)

    @cached_property
    def lines(self) -> dict[str, list[Row]]:
        """The rows of each line, by NFE."""
        found: dict[str, list[Row]] = {}
        for row in self.done:
            found.setdefault(row.name, []).append(row)
        return found

    @cached_property
    def axes(self) -> list[str]:
        """Axes that tell rows of one label apart: columns of their own in every long table."""
        found = axes_apart(self.done).values()
        return list(dict.fromkeys(key for keys in found for key in keys))

    @property
    def repeated(self) -> bool:
        """Whether a row holds several seeds or trainings."""
        return any(len(row.records) > 1 for row in self.done)

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
    def scores(self) -> dict[Column, list[RowScore | None]]:
        """Each column from top to bottom: a place for every row."""
        found: list[dict[tuple[str, str], RowScore]] = [{} for _ in self.done]
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
                told = "" if score is None else _told(chosen, record, column)
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
                best[record.name] = min(best[record.name], sign * score.value)
        kept = set(sorted(best, key=lambda label: best[label])[:MOST_LINES])
        return [label for label in self.labels if label in kept]

    def best(self, column: Column) -> set[str]:
        """Cells that no other is surely better than; none where all are so, or are equal."""
        ranks = self.column_ranks(column)
        best = {cell for cell, (first, _) in ranks.items() if first == 1}
        return best if len(best) < len(ranks) else set()

    def column_ranks(self, column: Column) -> dict[str, tuple[int, int]]:
        """First and last rank (from 1) that each honest cell may hold in a column, all at once."""
        paired = zip(self.done, self.scores[column], strict=True)
        scored = [(r.cell, s) for r, s in paired if s is not None and r.family != DECOY]
        ranges = rank_ranges(
            [s.value for _, s in scored],
            [s.error for _, s in scored],
            degrees=[s.degrees for _, s in scored],
            higher_is_better=column.higher_is_better,
        )
        return {cell: found for (cell, _), found in zip(scored, ranges, strict=True)}

    def seconds(self, row: Row) -> float | None:
        """Measured seconds per image; the mean where there are several."""
        speeds = [self.speeds[r.cell] for r in row.records if r.cell in self.speeds]
        return math.fsum(s.seconds_per_image for s in speeds) / len(speeds) if speeds else None

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


def read_board(folder: Path) -> Board:
    """Reads a suite's results folder.

    Raises:
        FileNotFoundError: If it holds no records.
    """
    records = read_records(folder)
    if not records:
        raise FileNotFoundError(f"{folder} holds no records")
    speeds: dict[str, Speed] = {}
    if (folder / "speed.json").is_file():
        text = (folder / "speed.json").read_bytes()
        speeds = TypeAdapter(dict[str, Speed]).validate_json(text)
    suite = records[0].suite
    given: dict[str, Any] = {}
    if (folder / "suite.yaml").is_file():
        given = yaml.safe_load((folder / "suite.yaml").read_text("utf-8")) or {}
    findings = tuple(Finding.model_validate(f) for f in given.get("findings") or ())
    title = str(given.get("title") or suite)
    return Board(suite, title, records, speeds, findings, read_disclosed(folder))


def _told(chosen: dict[tuple[str, str], str], row: Row, column: Column) -> str:
    """Out of how many the row was chosen: what was counted for the first of its cells."""
    found = (chosen.get((record.cell, column.title), "") for record in row.records)
    return next((text for text in found if text), "")


def _absent(column: Column, row: Row) -> str:
    return "pending" if any(p.name == column.name for p in row.pending_scores) else "–"


def number(score: RowScore | ScoreRecord) -> str:
    """`12.3 ± 0.4`, or `0.02 (0.01 to 0.05)` where the interval is skewed, as precise as it is."""
    if score.interval is None:
        return f"{score.value:.4g}"
    half = (score.interval[1] - score.interval[0]) / 2
    digits = 3
    while digits < 6 and half > 0 and half < 2 * 10**-digits:
        digits += 1
    while digits > 0 and half >= 2 * 10 ** -(digits - 1):
        digits -= 1
    value = round(score.value, digits) + 0.0  # no "-0.00"
    if not _skewed(score.value, score.interval):
        return f"{value:.{digits}f} ± {half:.{digits}f}"
    low, high = (round(end, digits) + 0.0 for end in score.interval)
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _skewed(value: float, interval: tuple[float, float]) -> bool:
    """Whether one side of the interval is longer than the other by more than a quarter."""
    down, up = value - interval[0], interval[1] - value
    return max(down, up) > 1.25 * min(down, up)
