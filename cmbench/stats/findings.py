"""Findings: statements about a board that its numbers confirm, contradict or leave undecided.

    findings:
      - claim: One evaluation of a distilled student beats the teacher at five or fewer
        better: {label: CD (l2), nfe: 1}
        worse: {label: EDM (Heun), nfe: [1, 3, 5]}

A claim holds if every cell of `better` beats every cell of `worse`: it is confirmed when each
difference lies beyond 1.96 of its standard error (an intersection of tests, so each at its own
level), contradicted when one lies beyond it on the other side, and undecided otherwise. The two
scores are taken as independent; the same noise behind both makes that cautious.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cmbench.record.schema import Record, ScoreRecord

__all__ = ["Cells", "Comparison", "Finding", "Judgement", "judge"]

Verdict = Literal["confirmed", "contradicted", "undecided", "not measured"]


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
    """One pair: how much better the one is, in the score's own units, with its 95% interval."""

    better: Record
    worse: Record
    gain: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the gain."""
        return self.gain - 1.96 * self.error, self.gain + 1.96 * self.error


@dataclass(frozen=True)
class Judgement:
    """A finding with its verdict, and the pair that is hardest for it."""

    finding: Finding
    verdict: Verdict
    hardest: Comparison | None
    pairs: int


def judge(finding: Finding, records: Sequence[Record]) -> Judgement:
    """Holds a claim against the records of a suite, under the first protocol of its score."""
    better, worse = _chosen(finding.better, records), _chosen(finding.worse, records)
    pairs = [
        found
        for one in better
        for other in worse
        if (found := _compared(one, other, finding.score)) is not None
    ]
    whole = _every_label(finding.better, better) and _every_label(finding.worse, worse)
    if not whole or len(pairs) < len(better) * len(worse):
        return Judgement(finding, "not measured", None, len(pairs))
    hardest = min(pairs, key=_surety)
    low, high = hardest.interval
    verdict: Verdict = "confirmed" if low > 0 else "contradicted" if high < 0 else "undecided"
    return Judgement(finding, verdict, hardest, len(pairs))


def _surety(pair: Comparison) -> float:
    """The gain in standard errors."""
    if pair.error > 0:
        return pair.gain / pair.error
    return math.copysign(math.inf, pair.gain)


def _chosen(cells: Cells, records: Sequence[Record]) -> list[Record]:
    return [
        r
        for r in records
        if r.status == "done"
        and r.label in cells.label
        and (cells.nfe is None or r.nfe in cells.nfe)
    ]


def _every_label(cells: Cells, found: Sequence[Record]) -> bool:
    return {record.label for record in found} >= set(cells.label)


def _compared(one: Record, other: Record, name: str) -> Comparison | None:
    mine, theirs = one.score(name), other.score(name)
    if mine is None or theirs is None or mine.fingerprint != theirs.fingerprint:
        return None
    sign = 1 if mine.higher_is_better else -1
    error = math.hypot(_error(mine), _error(theirs))
    return Comparison(one, other, sign * (mine.value - theirs.value), error)


def _error(score: ScoreRecord) -> float:
    return score.error if score.error is not None else math.inf
