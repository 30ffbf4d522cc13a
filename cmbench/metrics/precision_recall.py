"""Improved precision and recall (Kynkaanniemi et al., 2019, https://arxiv.org/abs/1904.06991).

A ball around each row reaches to its k-th nearest neighbour. Precision: share of generated rows in
some reference ball. Recall: share of reference rows in some generated ball. Both fall or rise with
the two counts, which belong to the protocol.
"""

from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cmbench.metrics._rows import feature_rows, reference_features, reference_rows
from cmbench.metrics.base import Features, Metric, Reference, Score
from cmbench.metrics.intervals.wilson import share_score
from cmbench.metrics.neighbours.half_precision import half_precision_hits
from cmbench.metrics.neighbours.occupancy import Holders, reached_score
from cmbench.metrics.neighbours.recall_error import near_pairs, recall_variance
from cmbench.metrics.neighbours.search import (
    Neighbours,
    Pairs,
    balls_of,
    in_range,
    neighbours_of,
    radii_of,
)

__all__ = ["PrecisionRecall"]


class PrecisionRecall(Metric):
    """Share of each set inside the other's manifold of k-nearest-neighbour balls."""

    aliases: ClassVar[tuple[str, ...]] = ("pr", "prc", "precision", "recall", "ipr")
    by_reference: ClassVar[tuple[str, ...]] = ("recall",)
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    outputs: ClassVar[tuple[str, ...]] = ("precision", "recall")
    k: int = Field(3, ge=1, le=10_000, description="neighbour that a ball reaches to")
    arithmetic: Literal["exact", "adm"] = Field(
        "exact", description="exact: float32 products, ties in float64; adm: float16 throughout"
    )

    def fewest(self) -> int:
        """One more than a ball has neighbours."""
        return self.k + 1

    def fewest_reference(self) -> int:
        """One more than a ball has neighbours."""
        return self.k + 1

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Precision (probes: generated rows) and recall (probes: reference rows)."""
        found = self._hits(generated, reference)
        n, m = len(found.inside), len(found.covered.counts)
        details = {"reference_count": float(m)}
        variance = recall_variance(found.close, found.near, found.covered, self.k)
        return {
            "precision": share_score(int(found.inside.sum()), n, count=n, details=details),
            "recall": reached_score(found.covered, variance, count=n, details=details),
        }

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """Hit or miss less its mean: by generated row (precision), by reference row (recall)."""
        found = self._hits(generated, reference)
        hits = found.inside.astype(np.float64)
        reached = (found.covered.counts > 0).astype(np.float64)
        return {"precision": hits - hits.mean(), "recall": reached - reached.mean()}

    def _pair(
        self, generated: Features, reference: Reference | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = feature_rows(generated, "pool", least=self.k + 1)
        return rows, reference_rows(reference, "pool", least=self.k + 1, width=rows.shape[1])

    def _hits(self, generated: Features, reference: Reference | None) -> "_Hits":
        rows, other = self._pair(generated, reference)
        near = neighbours_of(generated, rows, "pool", self.k)
        if self.arithmetic == "adm":
            inside, covered = half_precision_hits(rows, other, self.k)
            return _Hits(inside, covered, near_pairs(rows, other, near, covered), near)
        radii = radii_of(reference_features(reference), other, "pool", self.k)
        rows, other, exponent = in_range(rows, other)
        near, radii = near.reduced(exponent), np.ldexp(radii, -2 * exponent)
        balls = balls_of(rows, other, reference_radii=radii, near=near, k=self.k)
        assert balls.held is not None
        assert balls.close is not None
        return _Hits(balls.held_by > 0, balls.held, balls.close, near)


class _Hits(NamedTuple):
    """Generated rows inside, holders of reference rows, and what recall's error is made of."""

    inside: NDArray[np.bool_]
    covered: Holders
    close: Pairs
    near: Neighbours
