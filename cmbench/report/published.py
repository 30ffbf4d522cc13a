"""Published numbers beside measured ones, where the two are of the same thing.

A published FID is a Frechet distance in Inception's features over 50,000 images, of the authors'
own weights. It stands beside a measured number of the same score and number of evaluations only if
that one has as many images, the same weights of the extractor, the training split as reference and
the authors' weights; where not, the report says which differs. Published numbers come without an
error: the difference is given in standard errors of the measured one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cmbench.record.schema import PublishedScore, Record
from cmbench.stats.rows import Row, RowScore

__all__ = [
    "PUBLISHED_NOTE",
    "Beside",
    "Printed",
    "beside",
    "published_beside",
    "published_of",
    "published_waiting",
    "spreadsheet_columns",
]

PUBLISHED_NOTE = (
    "Measured less published, at equal metric and NFE, in standard errors of the measured number; "
    "what was published has no error, and its protocol is its source's. No difference is told "
    "where images, extractor, reference or weights are not the authors'."
)
_OF_INCEPTION = {"frechet_distance": "fid"}
_RESERVED = {"fid", "sfid", "kid", "inception_score", "precision", "recall"}
_IMAGES = 50_000
"""Images behind a published number of the field."""
_INCEPTION = "6726825d"
"""First digits of the SHA-256 of Inception's weights of 2015, as every published FID uses them."""


@dataclass(frozen=True)
class Beside:
    """A published number and the measured one of the same score and number of evaluations."""

    record: Row
    score: RowScore
    published: PublishedScore

    @cached_property
    def why_not(self) -> str:
        """The reason not to compare the two; empty where they are comparable."""
        return _why_not(self.record, self.score)

    @property
    def difference(self) -> float | None:
        """Measured less published; None where they are not to be compared."""
        return None if self.why_not else self.score.value - self.published.value

    @property
    def errors(self) -> float | None:
        """The difference in standard errors of the measured number; None if it has none."""
        if self.difference is None or not self.score.error:
            return None
        return self.difference / self.score.error

    @property
    def difference_text(self) -> str:
        """`+0.12`, or why there is none."""
        return self.why_not if self.difference is None else f"{self.difference:+.3g}"

    @property
    def errors_text(self) -> str:
        """`+2.1`, or a dash where there is no difference or error."""
        return "–" if self.errors is None else f"{self.errors:+.1f}"


def beside(row: Row, score: RowScore) -> list[Beside]:
    """The published numbers for this score of this row: the same metric at the same NFE."""
    printed = [p for p in row.first.published if p.nfe == row.nfe]
    return [Beside(row, score, p) for p in published_of(printed, score)]


def published_of(printed: Iterable[PublishedScore], score: RowScore) -> list[PublishedScore]:
    """The published numbers that are of this score, at any number of evaluations."""
    given = list(printed)
    name = _metric(score) if given else ""
    return [p for p in given if _plain(p.metric) == name]


def published_beside(rows: Iterable[Row]) -> list[Beside]:
    """All pairs of the rows, in their order."""
    return [pair for r in rows for s in r.scores for pair in beside(r, s)]


@dataclass(frozen=True)
class Printed:
    """A number that authors printed for a model that waits."""

    model: str
    published: PublishedScore


def published_waiting(records: Iterable[Record]) -> list[Printed]:
    """Published numbers for the models of these waiting records, each number once."""
    found = {(r.model, p.metric, p.nfe, p.source): Printed(r.model, p)
             for r in records for p in r.published}  # fmt: skip
    return [found[key] for key in sorted(found)]


def spreadsheet_columns(pairs: list[Beside]) -> dict[str, object]:
    """Published value, difference, the same in errors, source; `;` between two sources."""
    heads = ("published", "difference", "difference_in_errors", "published_source",
             "not_comparable")  # fmt: skip
    rows = [
        (p.published.value, p.difference, p.errors, p.published.source, p.why_not) for p in pairs
    ]
    if len(rows) < 2:
        return dict(zip(heads, rows[0], strict=True)) if rows else {}
    joined = ("; ".join(map(_shown, column)) for column in zip(*rows, strict=True))
    return dict(zip(heads, joined, strict=True))


def _shown(value: object) -> str:
    return "" if value is None else str(value)


def _why_not(row: Row, score: RowScore) -> str:
    protocol = score.protocol
    if "train" in (row.first.identity.get("weights") or {}):
        return "trained here, not the authors' weights"
    if score.count != _IMAGES:
        return f"{score.count:,} images, published: {_IMAGES:,}"
    weights = protocol.get("weights")
    if _is_inception(score) and weights and not str(weights).startswith(_INCEPTION):
        return "other weights of Inception"
    dataset = (protocol.get("reference") or {}).get("dataset") or {}
    if isinstance(dataset, dict) and dataset.get("split") == "test":
        return "another reference: the test split"
    return ""


def _is_inception(score: RowScore) -> bool:
    return (score.protocol.get("extractor") or {}).get("name") == "inception"


def _metric(score: RowScore) -> str:
    """Authors' name of the score: `fid`, `inception_score`; in other features, its title."""
    if _is_inception(score):
        return _OF_INCEPTION.get(score.name, _plain(score.name))
    # Authors' plain names mean Inception's features; other spaces are told by their own title.
    title = _plain(score.title)
    return title if title not in _RESERVED else ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
