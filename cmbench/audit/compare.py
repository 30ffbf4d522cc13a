"""Two results folders side by side: what may be compared, why not, and by how much it differs.

Numbers with one protocol fingerprint are comparable. Their difference is paired where both cells
drew the same noise (seed, count) and their features are still in the cache: what the noise does to
both cancels (`cmbench.stats.paired`). The differences of a cell's seeds and trainings are combined
into one (`cmbench.stats.intervals`), whose interval and p-value hold the spread between them. All
p-values of one comparison are corrected by Holm.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbench.audit.cached import cached_samples, differing_fields
from cmbench.core.digests import canonical
from cmbench.core.errors import UserError
from cmbench.engine.context import JobContext
from cmbench.metrics.base import MetricError
from cmbench.record.folder import read_results
from cmbench.record.schema import Record, ScoreRecord
from cmbench.stats.intervals import (
    Estimate,
    combine_seeds,
    combine_trainings,
    difference_of,
    two_sided_p,
)
from cmbench.stats.paired import holm, paired_difference
from cmbench.stats.rows import Row as SeedRow
from cmbench.stats.rows import RowScore, rows_of

__all__ = ["Comparison", "Row", "compare_runs"]


@dataclass(frozen=True)
class Row:
    """One score of two rows; `difference` is A - B, None where they are not comparable.

    Args:
        repeats: Seeds and trainings whose differences were combined, in words; empty for one.
    """

    label: str
    nfe: float | None
    score: str
    a: float
    b: float
    comparable: bool
    fields: dict[str, tuple[Any, Any]]
    difference: float | None = None
    error: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    p_corrected: float | None = None
    paired: bool = False
    why_unpaired: str = ""
    repeats: str = ""


@dataclass(frozen=True)
class Comparison:
    """All rows, and the cells that only one side has."""

    rows: list[Row]
    only_a: list[str]
    only_b: list[str]

    @property
    def comparable(self) -> bool:
        """True if every score that both have stands under one protocol."""
        return bool(self.rows) and all(row.comparable for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Returns the comparison as JSON values."""
        return {"comparable": self.comparable, **asdict(self)}


def compare_runs(a: Path, b: Path, context: JobContext) -> Comparison:
    """Compares the rows of two results folders that bear the same label, axes, NFE and sampler.

    Where samplers differ, the same label and NFE; where labels differ, the same model and NFE;
    each only where it names one row on either side. Else a single row of each.

    Raises:
        UserError: If a folder holds no results, or the two have no cell in common.
    """
    one, two = _done(a), _done(b)
    pairs = _matched(one, two)
    if not pairs:
        raise UserError(
            f"{a} and {b} have no cell in common (label, or model, with NFE)",
            fix="cmbench explain A:CELL B:CELL, for two cells of your choice",
        )
    rows = [row for x, y in pairs for row in _rows(x, y, context)]
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    rows = [row if row.p is None else replace(row, p_corrected=next(adjusted)) for row in rows]
    names = [{x.cell for x, _ in pairs}, {y.cell for _, y in pairs}]
    return Comparison(
        rows,
        [_name(r) for r in one if r.cell not in names[0]],
        [_name(r) for r in two if r.cell not in names[1]],
    )


def _done(folder: Path) -> list[SeedRow]:
    return rows_of(r for r in read_results(folder) if r.status == "done")


def _matched(one: Sequence[SeedRow], two: Sequence[SeedRow]) -> list[tuple[SeedRow, SeedRow]]:
    pairs: list[tuple[SeedRow, SeedRow]] = []
    left, right = list(one), list(two)
    keys: list[Callable[[SeedRow], tuple[Any, ...]]] = [
        lambda r: (r.name, r.nfe, canonical(r.first.sampler)),
        lambda r: (r.name, r.nfe, r.first.sampler.get("name")),
        lambda r: (r.name, r.nfe),
        lambda r: (r.model, r.nfe),
    ]
    for key in keys:
        mine, theirs = _unique(left, key), _unique(right, key)
        for name, record in mine.items():
            if name in theirs:
                pairs.append((record, theirs[name]))
                left.remove(record)
                right.remove(theirs[name])
    if not pairs and len(one) == len(two) == 1:
        return [(one[0], two[0])]
    return pairs


def _unique(
    rows: Sequence[SeedRow], key: Callable[[SeedRow], tuple[Any, ...]]
) -> dict[tuple[Any, ...], SeedRow]:
    """The rows by a key, without those that share theirs: none of them is taken for another."""
    counts = Counter(map(key, rows))
    return {key(row): row for row in rows if counts[key(row)] == 1}


def _rows(x: SeedRow, y: SeedRow, context: JobContext) -> Iterator[Row]:
    for mine in x.scores:
        other = _counterpart(mine, y)
        if other is None:
            continue
        fields = differing_fields(mine.protocol, other.protocol)
        label = x.name if x.name == y.name else f"{x.name} / {y.name}"
        row = Row(label, x.nfe, mine.title, mine.value, other.value,
                  mine.fingerprint == other.fingerprint, fields)  # fmt: skip
        yield _with_difference(row, (x, mine), (y, other), context) if row.comparable else row


def _counterpart(score: RowScore, row: SeedRow) -> RowScore | None:
    named = [s for s in row.scores if s.name == score.name]
    same = [s for s in named if s.fingerprint == score.fingerprint]
    space = [s for s in named if s.protocol.get("extractor") == score.protocol.get("extractor")]
    titled = [s for s in named if s.title == score.title]
    return next(iter(same or space or titled or (named if len(named) == 1 else [])), None)


def _with_difference(
    row: Row, one: tuple[SeedRow, RowScore], two: tuple[SeedRow, RowScore], context: JobContext
) -> Row:
    pairs = _same_draws(one[0], two[0])
    if pairs is None:
        found, paired, why = _of_means(one[1], two[1]), False, "the seeds differ"
    else:
        key = (one[1].name, one[1].fingerprint)
        made = [[_difference(x, y, key, context) for x, y in group] for group in pairs]
        every = [single for group in made for single in group]
        paired = all(single.paired for single in every)
        why = next((single.why for single in every if not single.paired), "")
        found = combine_trainings([_over_seeds(group) for group in made])
    row = replace(row, difference=found.value, why_unpaired=why, paired=paired)
    row = replace(row, repeats=_repeats(one[0], two[0]))
    if found.error is None:
        return row
    p = two_sided_p(found.value, found.error, found.degrees)
    return replace(row, error=found.error, interval=found.interval, p=p)


@dataclass(frozen=True)
class _Single:
    """The difference of two records, and whether what their noise does to both cancels in it."""

    estimate: Estimate
    paired: bool
    why: str = ""


def _difference(x: Record, y: Record, key: tuple[str, str], context: JobContext) -> _Single:
    mine, other = (
        next(s for s in record.scores if (s.name, s.fingerprint) == key) for record in (x, y)
    )
    terms, why = _paired_terms((x, mine), (y, other), context)
    if terms is not None:
        found = paired_difference(mine.value, terms[0], other.value, terms[1])
        return _Single(Estimate(found.value, found.error, found.interval), True)
    return _Single(difference_of(_alone(mine), _alone(other)), False, why)


def _alone(score: ScoreRecord) -> Estimate:
    return Estimate(score.value, score.error, score.interval)


def _of_means(mine: RowScore, other: RowScore) -> Estimate:
    return difference_of(mine.estimate, other.estimate)


def _over_seeds(group: Sequence[_Single]) -> Estimate:
    found = [single.estimate for single in group]
    return combine_seeds(
        [e.value for e in found], [e.error for e in found], [e.interval for e in found]
    )


def _same_draws(x: SeedRow, y: SeedRow) -> list[list[tuple[Record, Record]]] | None:
    """Pairs of the same seed, by training in the order of seeds; None where the draws differ."""
    one, two = x.by_training, y.by_training
    if [[r.seed for r in g] for g in one] != [[r.seed for r in g] for g in two]:
        return None
    return [list(zip(mine, other, strict=True)) for mine, other in zip(one, two, strict=True)]


def _repeats(x: SeedRow, y: SeedRow) -> str:
    counts = ((min(x.trainings, y.trainings), "trainings"),
              (min(len(x.seeds), len(y.seeds)), "seeds"))  # fmt: skip
    return ", ".join(f"{count} {what}" for count, what in counts if count > 1)


def _paired_terms(
    one: tuple[Record, ScoreRecord], two: tuple[Record, ScoreRecord], context: JobContext
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]] | None, str]:
    (x, mine), (y, other) = one, two
    if (x.seed, x.images) != (y.seed, y.images):
        return None, "other noise: the seeds or counts differ"
    terms = []
    for score in (mine, other):
        held = cached_samples(score, context)
        if held is None:
            return None, "the cache no longer has the features"
        try:
            found = held.metric.terms(held.features, held.reference, score.name)
        except MetricError as error:
            return None, str(error)
        if score.name in held.metric.by_reference:
            return None, "this score's terms belong to reference images"
        if found is None:
            return None, "the metric has no terms by image"
        terms.append(found)
    return (terms[0], terms[1]), ""


def _name(row: SeedRow) -> str:
    return f"{row.name} at {row.nfe:g} NFE" if row.nfe is not None else row.name
