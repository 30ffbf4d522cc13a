"""What authors printed beside what was measured, where metric and evaluations are the same.

A published FID is a Frechet distance in Inception's features, so it stands beside no other
distance, however alike their names. Published numbers come without an error: the difference is
told in standard errors of the measured one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cmbench.record.schema import PublishedScore
from cmbench.stats.rows import Row, RowScore

__all__ = ["PUBLISHED_NOTE", "Beside", "beside", "published_beside", "spreadsheet_columns"]

PUBLISHED_NOTE = (
    "Measured less published, at equal metric and NFE, in standard errors of the measured number; "
    "what was published has no error, and its protocol is its source's."
)
_OF_INCEPTION = {"frechet_distance": "fid"}


@dataclass(frozen=True)
class Beside:
    """A published number and the measured one that it stands beside."""

    record: Row
    score: RowScore
    published: PublishedScore

    @property
    def difference(self) -> float:
        """Measured less published."""
        return self.score.value - self.published.value

    @property
    def errors(self) -> float | None:
        """The difference in standard errors of the measured number; None if it has none."""
        return self.difference / self.score.error if self.score.error else None

    @property
    def difference_text(self) -> str:
        """`+0.12`."""
        return f"{self.difference:+.3g}"

    @property
    def errors_text(self) -> str:
        """`+2.1`, or a dash where the measured number has no error."""
        return "–" if self.errors is None else f"{self.errors:+.1f}"


def beside(record: Row, score: RowScore) -> list[Beside]:
    """The published numbers for this score of this cell: the same metric at the same NFE."""
    printed = [p for p in record.first.published if p.nfe == record.nfe]
    if not printed:
        return []
    name = _metric(score)
    return [Beside(record, score, p) for p in printed if _plain(p.metric) == name]


def published_beside(records: Iterable[Row]) -> list[Beside]:
    """All pairs of the records, in their order."""
    return [pair for r in records for s in r.scores for pair in beside(r, s)]


def spreadsheet_columns(pairs: list[Beside]) -> dict[str, object]:
    """Published value, difference, the same in errors, source; `;` between two sources."""
    heads = ("published", "difference", "difference_in_errors", "published_source")
    rows = [(p.published.value, p.difference, p.errors, p.published.source) for p in pairs]
    if len(rows) < 2:
        return dict(zip(heads, rows[0], strict=True)) if rows else {}
    joined = ("; ".join(map(str, column)) for column in zip(*rows, strict=True))
    return dict(zip(heads, joined, strict=True))


def _metric(score: RowScore) -> str:
    """What authors call the score: `fid`, `inception_score`; in other features, its title."""
    extractor = score.protocol.get("extractor") or {}
    if extractor.get("name") == "inception":
        return _OF_INCEPTION.get(score.name, _plain(score.name))
    # Authors' plain names mean Inception's features; other spaces are told by their own title.
    title = _plain(score.title)
    return title if title not in _RESERVED else ""


_RESERVED = {"fid", "sfid", "kid", "inception_score", "precision", "recall"}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
