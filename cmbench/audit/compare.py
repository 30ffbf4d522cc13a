"""Compares two results folders: which numbers are comparable, why not, and how they differ.

Numbers with the same protocol fingerprint are comparable. Their difference is paired where both
cells drew the same noise (seed, count) and their features are still in the cache: the effect of
the noise on both cancels (`cmbench.stats.paired`). All p-values of a comparison are
Holm-corrected.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cmbench.audit.cached import cached_samples, differing_fields
from cmbench.core.errors import UserError
from cmbench.engine.context import JobContext
from cmbench.metrics.base import MetricError
from cmbench.record.folder import read_results
from cmbench.record.schema import Record, ScoreRecord
from cmbench.stats.paired import holm, paired_difference

__all__ = ["Comparison", "Row", "compare_runs"]


@dataclass(frozen=True)
class Row:
    """A score of two cells; `difference` is A - B, None where they are not comparable."""

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


@dataclass(frozen=True)
class Comparison:
    """All compared scores, and the cells that only one folder has."""

    rows: list[Row]
    only_a: list[str]
    only_b: list[str]

    @property
    def comparable(self) -> bool:
        """Whether every score that both have was computed under the same protocol."""
        return bool(self.rows) and all(row.comparable for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Returns the comparison as JSON-compatible values."""
        return {"comparable": self.comparable, **asdict(self)}


def compare_runs(a: Path, b: Path, context: JobContext) -> Comparison:
    """Compares the cells of two results folders that share label, NFE and seed.

    Cells without such a partner are matched by model, NFE and seed; two folders of a single cell
    each are compared in any case.

    Raises:
        UserError: If a folder holds no results, or the two have no cell in common.
    """
    one, two = _done(a), _done(b)
    pairs = _matched(one, two)
    if not pairs:
        raise UserError(
            f"{a} and {b} have no cell in common (label, or model, with NFE and seed)",
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


def _done(folder: Path) -> list[Record]:
    return [r for r in read_results(folder) if r.status == "done"]


def _matched(one: Sequence[Record], two: Sequence[Record]) -> list[tuple[Record, Record]]:
    pairs: list[tuple[Record, Record]] = []
    first, second = list(one), list(two)
    keys: list[Callable[[Record], tuple[Any, ...]]] = [
        lambda r: (r.label, r.nfe, r.seed),
        lambda r: (r.model, r.nfe, r.seed),
    ]
    for key in keys:
        named = {key(r): r for r in reversed(second)}
        for record in list(first):
            other = named.pop(key(record), None)
            if other is not None:
                pairs.append((record, other))
                first.remove(record)
                second.remove(other)
    if not pairs and len(one) == len(two) == 1:
        return [(one[0], two[0])]
    return pairs


def _rows(x: Record, y: Record, context: JobContext) -> Iterator[Row]:
    for mine in x.scores:
        other = _counterpart(mine, y)
        if other is None:
            continue
        fields = differing_fields(mine.protocol, other.protocol)
        label = x.label if x.label == y.label else f"{x.label} / {y.label}"
        row = Row(label, x.nfe, mine.title, mine.value, other.value,
                  mine.fingerprint == other.fingerprint, fields)  # fmt: skip
        yield _with_difference(row, (x, mine), (y, other), context) if row.comparable else row


def _counterpart(score: ScoreRecord, record: Record) -> ScoreRecord | None:
    named = [s for s in record.scores if s.name == score.name]
    same = [s for s in named if s.fingerprint == score.fingerprint]
    space = [s for s in named if s.protocol.get("extractor") == score.protocol.get("extractor")]
    titled = [s for s in named if s.title == score.title]
    return next(iter(same or space or titled or (named if len(named) == 1 else [])), None)


def _with_difference(
    row: Row, one: tuple[Record, ScoreRecord], two: tuple[Record, ScoreRecord], context: JobContext
) -> Row:
    mine, other = one[1], two[1]
    terms, why = _paired_terms(one, two, context)
    if terms is not None:
        paired = paired_difference(mine.value, terms[0], other.value, terms[1])
        return replace(row, difference=paired.value, error=paired.error, interval=paired.interval,
                       p=paired.p, paired=True)  # fmt: skip
    value = mine.value - other.value
    if mine.error is None or other.error is None:
        return replace(row, difference=value, why_unpaired=why)
    # Independent errors are too wide for cells that share noise, never too narrow.
    error = float(np.hypot(mine.error, other.error))
    p = float(2 * stats.norm.sf(abs(value) / error)) if error > 0 else float(value == 0)
    interval = (value - 1.96 * error, value + 1.96 * error)
    return replace(row, difference=value, error=error, interval=interval, p=p, why_unpaired=why)


def _paired_terms(
    one: tuple[Record, ScoreRecord], two: tuple[Record, ScoreRecord], context: JobContext
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]] | None, str]:
    (x, mine), (y, other) = one, two
    if (x.seed, x.images) != (y.seed, y.images):
        return None, "other noise: the seeds or counts differ"
    terms = []
    for score in (mine, other):
        samples = cached_samples(score, context)
        if samples is None:
            return None, "the cache no longer has the features"
        try:
            influence = samples.metric.terms(samples.features, samples.reference, score.name)
        except MetricError as error:
            return None, str(error)
        if score.name in samples.metric.by_reference:
            return None, "this score's terms belong to reference images"
        if influence is None:
            return None, "the metric has no terms per image"
        terms.append(influence)
    return (terms[0], terms[1]), ""


def _name(record: Record) -> str:
    return f"{record.label} at {record.nfe:g} NFE" if record.nfe is not None else record.label
