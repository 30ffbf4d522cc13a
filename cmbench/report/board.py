"""The board of a suite: its rows and columns, which every table and plot draws from.

A row holds the seeds and trainings of one cell (`cmbench.stats.rows`); a column holds one score
under one protocol: two fingerprints are two columns, never one.
"""

import math
from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from cmbench.record.folder import Tell, on_stderr, read_records, read_speeds
from cmbench.record.schema import Record, ScoreRecord, Speed
from cmbench.report.disclosed import Disclosed, read_disclosed
from cmbench.report.layout import Layout, read_layout
from cmbench.stats.findings import Judgement, judge
from cmbench.stats.ranks import rank_ranges
from cmbench.stats.rows import Row, RowScore, axes_apart, rows_of

__all__ = ["DECOY", "MOST_LINES", "Board", "Column", "Entry", "number", "read_board"]

DECOY = "decoy"
"""The family of decoys, which hold no rank."""

MOST_LINES = 8
"""Lines that one plot shows: of more, no eye tells one from another."""


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
    """Content of one row in one column.

    Args:
        score: The score; None where the row has none.
        text: Value and interval, `pending`, or a dash.
        best: Whether it can't be told from the best of its column, while others can.
        rank: The first and last rank that it may hold; None for decoys and without a score.
        chosen: Out of how many it was chosen, in a few words; empty where that is unknown.
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
    layout: Layout = field(default_factory=Layout)
    disclosed: tuple[Disclosed, ...] = ()

    @cached_property
    def judgements(self) -> list[Judgement]:
        """Every finding of the suite with its verdict."""
        return [judge(finding, self.records) for finding in self.layout.findings]

    @cached_property
    def done(self) -> list[Row]:
        """Rows with numbers: in the suite's order, by line, evaluations and seed."""
        rows = rows_of(record for record in self.records if record.status == "done")
        return sorted(rows, key=lambda r: (self.layout.place(r), r.name, r.nfe or 0, r.seeds))

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
        """True if a row holds several seeds or trainings."""
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
        """Scores of each column from top to bottom, with a place for every row."""
        found: list[dict[tuple[str, str], RowScore]] = [{} for _ in self.done]
        for mine, record in zip(found, self.done, strict=True):
            for s in record.scores:
                mine.setdefault((s.name, s.fingerprint), s)
        return {c: [mine.get((c.name, c.fingerprint)) for mine in found] for c in self.columns}

    @cached_property
    def entries(self) -> list[list[Entry]]:
        """Entries of each row of `done`, in the columns' order: every table draws from them."""
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

    def leading(self, column: Column | None = None, most: int = MOST_LINES) -> list[str]:
        """The lines that a plot or sheet shows: at most `most`, in their order.

        Of more, those that the fewest others beat at no more evaluations: what leads at one
        evaluation stands beside what leads at a hundred. Teachers of others come first of all.

        Args:
            column: The score; the first where none is given.
        """
        column = column or next(iter(self.columns), None)
        if len(self.labels) <= most or column is None:
            return self.labels[:most]
        beaten = self._beaten(column)
        order = sorted(beaten, key=lambda name: (name not in self.teachers, beaten[name]))
        kept = set(order[:most])
        return [name for name in self.labels if name in kept]

    @cached_property
    def teachers(self) -> set[str]:
        """Lines whose model another of the board was distilled from, and no teacher's student."""
        taught = {row.first.training.teacher for row in self.done if row.first.training}
        return {
            row.name
            for row in self.done
            if row.model in taught and not (row.first.training and row.first.training.teacher)
        }

    def _beaten(self, column: Column) -> dict[str, tuple[int, float]]:
        """Returns for each line its least beaten cell, as a pair.

        The pair is the number of other lines that beat the cell at no more evaluations, and the
        cell's score with the sign that makes lower better.
        """
        sign = -1 if column.higher_is_better else 1
        scored = [
            (row.nfe or 0.0, sign * score.value, row.name)
            for row, score in zip(self.done, self.scores[column], strict=True)
            if score is not None
        ]
        found: dict[str, tuple[int, float]] = {}
        held: dict[str, float] = {}
        order: list[float] = []
        for _, value, name in sorted(scored):
            # Within one number of evaluations the better come first, so none is counted too late.
            rank = bisect_left(order, value)
            place = (rank - (held.get(name, math.inf) < value), value)
            found[name] = min(found.get(name, place), place)
            if value < held.get(name, math.inf):
                if name in held:
                    del order[bisect_left(order, held[name])]
                held[name] = value
                insort(order, value)
        return {name: found.get(name, (len(scored), math.inf)) for name in self.labels}

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
        """Failed or pending cells and scores in words, each with the command to run (or none)."""
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
    """Reads a suite's results folder; unreadable files are skipped with a message.

    Raises:
        FileNotFoundError: If it holds no records.
    """
    records = read_records(folder, tell)
    if not records:
        raise FileNotFoundError(f"{folder} holds no records")
    speeds = read_speeds(folder, tell)
    suite = records[0].suite
    layout = read_layout(folder, tell)
    return Board(suite, layout.title or suite, records, speeds, layout, read_disclosed(folder))


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
    """Returns whether one side of the interval is over a quarter longer than the other."""
    down, up = value - interval[0], interval[1] - value
    return max(down, up) > 1.25 * min(down, up)
