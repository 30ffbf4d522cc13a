"""Findings: statements about a board that its numbers confirm, contradict or leave undecided.

    findings:
      - claim: One evaluation of a distilled student beats the teacher at five or fewer
        better: {label: CD (l2), nfe: 1}
        worse: {label: EDM (Heun), nfe: [1, 3, 5]}

A claim holds if every cell of `better` beats every cell of `worse`. Seeds and trainings are
combined first (`cmbench.stats.rows`), so that a pair is two rows. For each pair Student's t of the
difference, with the degrees of freedom of Welch and Satterthwaite, gives one-sided p-values in
both directions.

- Confirmed: every pair lies beyond the error, each at 2.5% (an intersection-union test: whatever
  the number of pairs, a false claim is confirmed in at most 2.5% of boards).
- Contradicted: some pair surely goes the other way. The smallest of the p-values is multiplied by
  the number of pairs (Holm's first step), so that a true claim is contradicted in at most 2.5%.
- Undecided otherwise.

Two rows are taken as independent; the same noise behind both makes that cautious.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cmbench.record.schema import Record
from cmbench.stats.intervals import difference_of, t_quantile, upper_tail
from cmbench.stats.rows import Row, rows_of

__all__ = ["Cells", "Comparison", "Finding", "Judgement", "judge"]

Verdict = Literal["confirmed", "contradicted", "undecided", "not measured"]
_LEVEL = 0.025
"""Greatest share of boards on which either verdict may be wrong."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cells(_Part):
    """Some rows of a board.

    Args:
        label: Labels of the rows, as the board shows them.
        nfe: Evaluations per image of the rows; all of them by default.
    """

    label: Annotated[list[str], BeforeValidator(_listed)]
    nfe: Annotated[list[float], BeforeValidator(_listed)] | None = None


class Finding(_Part):
    """A claim: every cell of `better` beats every one of `worse`.

    Args:
        claim: The statement, for people.
        better: Cells that are claimed to be better.
        worse: Cells that they are claimed to beat.
        score: Name of the score; its direction is its own.
    """

    claim: str = Field(min_length=1)
    better: Cells
    worse: Cells
    score: str = "frechet_distance"


@dataclass(frozen=True)
class Comparison:
    """One pair: how much better the one is, in the score's own units, with its 95% interval.

    Args:
        gain: Difference, above 0 where `better` is better.
        error: Its standard error; infinite where one of the two is unknown.
        degrees: Degrees of freedom of the error.
    """

    better: Row
    worse: Row
    gain: float
    error: float
    degrees: float = math.inf

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the gain."""
        reach = t_quantile(self.degrees) * self.error
        return self.gain - reach, self.gain + reach

    @property
    def surety(self) -> float:
        """The gain in standard errors."""
        return self.gain / self.error if self.error > 0 else math.copysign(math.inf, self.gain)

    @property
    def p_not_better(self) -> float:
        """One-sided p-value of a gain of 0 or less: small where it is surely better."""
        return upper_tail(self.gain, self.error, self.degrees)

    @property
    def p_not_worse(self) -> float:
        """One-sided p-value of a gain of 0 or more: small where it is surely worse."""
        return upper_tail(-self.gain, self.error, self.degrees)


@dataclass(frozen=True)
class Judgement:
    """A finding with its verdict, and the pair that is hardest for it."""

    finding: Finding
    verdict: Verdict
    hardest: Comparison | None
    pairs: int


def judge(finding: Finding, records: Sequence[Record]) -> Judgement:
    """Holds a claim against the records of a suite, under the first protocol of its score."""
    rows = rows_of(record for record in records if record.status == "done")
    better, worse = _chosen(finding.better, rows), _chosen(finding.worse, rows)
    pairs = [
        found
        for one in better
        for other in worse
        if (found := _compared(one, other, finding.score)) is not None
    ]
    whole = _every_label(finding.better, better) and _every_label(finding.worse, worse)
    if not whole or len(pairs) < len(better) * len(worse):
        return Judgement(finding, "not measured", None, len(pairs))
    hardest = max(pairs, key=lambda pair: (pair.p_not_better, -pair.surety))
    against = min(pair.p_not_worse for pair in pairs) * len(pairs)
    verdict: Verdict = "undecided"
    if hardest.p_not_better < _LEVEL:
        verdict = "confirmed"
    elif against < _LEVEL:
        verdict = "contradicted"
    return Judgement(finding, verdict, hardest, len(pairs))


def _chosen(cells: Cells, rows: Sequence[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if row.label in cells.label and (cells.nfe is None or row.nfe in cells.nfe)
    ]


def _every_label(cells: Cells, found: Sequence[Row]) -> bool:
    return {row.label for row in found} >= set(cells.label)


def _compared(one: Row, other: Row, name: str) -> Comparison | None:
    mine, theirs = one.score(name), other.score(name)
    if mine is None or theirs is None or mine.fingerprint != theirs.fingerprint:
        return None
    sign = 1 if mine.higher_is_better else -1
    gain = sign * (mine.value - theirs.value)
    found = difference_of(mine.estimate, theirs.estimate)
    error = math.inf if found.error is None else found.error
    return Comparison(one, other, gain, error, found.degrees)
