"""Rows of a board: the records of one cell's seeds and of one recipe's trainings as one.

Two records are repeats of each other if they have one label, family, sampler, number of
evaluations and count of images, the same axes but for a training's `seed`, and recipes that are
equal but for name and seed. No two of them may share both the seed of the images and that of the
training: if two do, every record stays a row of its own.
"""

import json
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cmbench.record.schema import PendingScore, Record, ScoreRecord
from cmbench.stats.intervals import Estimate, combine_seeds, combine_trainings

__all__ = ["TRAINING_SEED", "Row", "RowScore", "axes_apart", "rows_of", "training_seed"]

TRAINING_SEED = "seed"
"""The axis, a key of a recipe, whose values are trainings of one and the same thing."""

_SHARES = ("precision", "recall", "coverage")


@dataclass(frozen=True)
class RowScore:
    """One score of a row, combined over its records.

    Args:
        estimate: Value, error, 95% interval and degrees of freedom.
        first: The score in the row's first record: name, title, protocol.
    """

    estimate: Estimate
    first: ScoreRecord

    @property
    def value(self) -> float:
        """The number: the mean where there are several."""
        return self.estimate.value

    @property
    def error(self) -> float | None:
        """Standard error; None if unknown."""
        return self.estimate.error

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval; None if unknown."""
        return self.estimate.interval

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the error; infinite for a single record."""
        return self.estimate.degrees

    @property
    def name(self) -> str:
        """Machine name of the score."""
        return self.first.name

    @property
    def title(self) -> str:
        """Title of the score in tables."""
        return self.first.title

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the protocol."""
        return self.first.fingerprint

    @property
    def higher_is_better(self) -> bool:
        """True if a higher value is better."""
        return self.first.higher_is_better

    @property
    def count(self) -> int:
        """Images of each record."""
        return self.first.count

    @property
    def protocol(self) -> dict[str, Any]:
        """Protocol of the score, whose hash is the fingerprint."""
        return self.first.protocol


@dataclass(frozen=True)
class Row:
    """The records of one row, by training and seed; the first stands for what they share.

    Args:
        apart: The axes that tell its line from others of the same label, as `rho=5`; else empty.
    """

    records: tuple[Record, ...]
    apart: str = ""

    @property
    def first(self) -> Record:
        """The record of the lowest training seed and seed."""
        return self.records[0]

    @property
    def label(self) -> str:
        """The line that it belongs to."""
        return self.first.label

    @property
    def name(self) -> str:
        """The line's name where labels stand alone: the label, with what tells it apart."""
        return f"{self.label} ({self.apart})" if self.apart else self.label

    @property
    def cell(self) -> str:
        """Id of the first record's cell, which stands for the row."""
        return self.first.cell

    @property
    def model(self) -> str:
        """`family/card`; of several trainings, the first's."""
        return self.first.model

    @property
    def family(self) -> str:
        """Family of the model."""
        return self.first.family

    @property
    def sampler(self) -> dict[str, Any]:
        """Specification of the sampler."""
        return self.first.sampler

    @cached_property
    def nfe(self) -> float | None:
        """Network evaluations per image; the mean where an adaptive sampler spent several."""
        spent = [r.nfe for r in self.records if r.nfe is not None]
        return math.fsum(spent) / len(spent) if spent else None

    @cached_property
    def axes(self) -> dict[str, Any]:
        """The axes' values, but for the seeds of the trainings where there are several."""
        found = dict(self.first.axes)
        if self.trainings > 1:
            found.pop(TRAINING_SEED, None)
        return found

    @cached_property
    def seeds(self) -> list[int]:
        """Seeds of the images."""
        return sorted({r.seed for r in self.records})

    @cached_property
    def trainings(self) -> int:
        """Trainings that it holds, at least 1."""
        return len(self.by_training)

    @cached_property
    def by_training(self) -> list[list[Record]]:
        """The records of each training, by seed."""
        groups: dict[int | None, list[Record]] = {}
        for record in self.records:
            groups.setdefault(training_seed(record), []).append(record)
        return list(groups.values())

    @cached_property
    def scores(self) -> list[RowScore]:
        """The scores that all its records have, under one protocol each."""
        found = (self._score(score) for score in self.first.scores)
        return [score for score in found if score is not None]

    @cached_property
    def pending_scores(self) -> list[PendingScore]:
        """Scores that wait."""
        return self.first.pending_scores

    def score(self, name: str) -> RowScore | None:
        """The first score called `name`, or None."""
        return next((s for s in self.scores if s.name == name), None)

    def _score(self, first: ScoreRecord) -> RowScore | None:
        if len(self.records) == 1:
            return RowScore(Estimate(first.value, first.error, first.interval), first)
        trained = [[_same(record, first) for record in group] for group in self.by_training]
        scores = [score for group in trained for score in group if score is not None]
        if len(scores) < len(self.records):
            return None
        seeds = [
            combine_seeds([s.value for s in group if s], [s.error for s in group if s],
                          [s.interval for s in group if s])
            for group in trained
        ]  # fmt: skip
        return RowScore(_within_bounds(combine_trainings(seeds), scores), first)


def training_seed(record: Record) -> int | None:
    """The seed that the record's network was trained from; None where it is unknown."""
    told = record.training.seed if record.training else None
    axis = record.axes.get(TRAINING_SEED)
    return told if told is not None else axis if isinstance(axis, int) else None


def rows_of(records: Iterable[Record]) -> list[Row]:
    """The rows of finished records, in the order of their first ones."""
    groups: dict[Hashable, list[Record]] = {}
    for record in records:
        groups.setdefault(_line(record), []).append(record)
    rows = [row for group in groups.values() for row in _rows(group)]
    apart = axes_apart(rows)
    return [replace(row, apart=_told_apart(row, apart)) for row in rows] if apart else rows


def axes_apart(rows: Iterable[Row]) -> dict[str, list[str]]:
    """The axes that tell apart rows of one label and number of evaluations, by label."""
    labels: dict[str, list[Row]] = {}
    for row in rows:
        labels.setdefault(row.label, []).append(row)
    found = {}
    for label, mine in labels.items():
        if len({row.nfe for row in mine}) == len(mine):
            continue
        keys = list(dict.fromkeys(key for row in mine for key in row.axes))
        found[label] = [k for k in keys if len({str(row.axes.get(k)) for row in mine}) > 1]
    return {label: keys for label, keys in found.items() if keys}


def _told_apart(row: Row, apart: dict[str, list[str]]) -> str:
    keys = [key for key in apart.get(row.label, ()) if key in row.axes]
    return ", ".join(f"{key.removeprefix('sampler.')}={row.axes[key]}" for key in keys)


def _rows(group: Sequence[Record]) -> list[Row]:
    draws = {(training_seed(r), r.seed) for r in group}
    if len(draws) < len(group):
        return [Row((record,)) for record in group]
    told = sorted(group, key=lambda r: (_order(training_seed(r)), r.seed))
    return [Row(tuple(told))]


def _order(seed: int | None) -> int:
    return -1 if seed is None else seed


def _line(record: Record) -> Hashable:
    """Key that all records of one row share."""
    axes = {k: v for k, v in record.axes.items() if k != TRAINING_SEED}
    training = record.training
    recipe = training and (training.recipe_digest_without_seed or training.recipe_digest)
    # An adaptive sampler spends another number on each seed: its parameters tell, not the number.
    nfe = record.nfe if record.nfe is not None and float(record.nfe).is_integer() else None
    return (record.suite, record.label, record.family, _text(axes), _text(record.sampler),
            nfe, record.images, recipe)  # fmt: skip


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _same(record: Record, first: ScoreRecord) -> ScoreRecord | None:
    """The record's score of the same name under the same protocol."""
    named = (first.name, first.fingerprint)
    return next((s for s in record.scores if (s.name, s.fingerprint) == named), None)


def _within_bounds(found: Estimate, scores: Sequence[ScoreRecord]) -> Estimate:
    """The interval cut at 0, and at 1 for shares, where no score's own interval reaches beyond."""
    spans = [s.interval for s in scores if s.interval is not None]
    if found.interval is None or len(spans) < len(scores):
        return found
    low, high = found.interval
    if all(span[0] >= 0 for span in spans):
        low = max(low, 0.0)
    if scores[0].name in _SHARES and all(span[1] <= 1 for span in spans):
        high = min(high, 1.0)
    return Estimate(found.value, found.error, (low, high), found.degrees, found.repeats)
