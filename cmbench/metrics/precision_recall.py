"""Improved precision and recall (Kynkaanniemi et al., 2019, https://arxiv.org/abs/1904.06991).

A ball around each row reaches to its k-th nearest neighbour. Precision: share of generated rows in
some reference ball. Recall: share of reference rows in some generated ball. Both fall or rise with
the two counts, which belong to the protocol.
"""

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cmbench.metrics._base import Features, Metric, Reference, Score
from cmbench.metrics._half_precision import half_precision_hits
from cmbench.metrics._neighbours import balls_of, neighbours_of, radii_of
from cmbench.metrics._occupancy import Holders, reached_score
from cmbench.metrics._recall_error import recall_variance
from cmbench.metrics._rows import feature_rows, reference_features, reference_rows
from cmbench.metrics._wilson import share_score

__all__ = ["PrecisionRecall"]


class PrecisionRecall(Metric):
    """Share of each set inside the other's manifold of k-nearest-neighbour balls."""

    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (0.0, 1.0)
    outputs: ClassVar[tuple[str, ...]] = ("precision", "recall")
    k: int = Field(3, ge=1, description="neighbour that a ball reaches to")
    arithmetic: Literal["exact", "adm"] = Field(
        "exact", description="exact: float32 products, ties in float64; adm: float16 throughout"
    )

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Precision (probes: generated rows) and recall (probes: reference rows)."""
        inside, covered = self._hits(generated, reference)
        n, m = len(inside), len(covered.counts)
        details = {"reference_count": float(m)}
        return {
            "precision": share_score(int(inside.sum()), n, count=n, details=details),
            "recall": reached_score(
                covered, self._variance(generated, reference, covered), count=n, details=details
            ),
        }

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """Hit or miss less its mean: by generated row (precision), by reference row (recall)."""
        inside, covered = self._hits(generated, reference)
        hits, reached = inside.astype(np.float64), (covered.counts > 0).astype(np.float64)
        return {"precision": hits - hits.mean(), "recall": reached - reached.mean()}

    def _variance(
        self, generated: Features, reference: Reference | None, covered: Holders
    ) -> float:
        rows, other = self._pair(generated, reference)
        near = neighbours_of(generated, rows, "pool", self.k)
        return recall_variance(rows, other, near, covered, self.k)

    def _pair(
        self, generated: Features, reference: Reference | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = feature_rows(generated, "pool", least=self.k + 1)
        return rows, reference_rows(reference, "pool", least=self.k + 1, width=rows.shape[1])

    def _hits(
        self, generated: Features, reference: Reference | None
    ) -> tuple[NDArray[np.bool_], Holders]:
        rows, other = self._pair(generated, reference)
        if self.arithmetic == "adm":
            return half_precision_hits(rows, other, self.k)
        balls = balls_of(
            rows,
            other,
            reference_radii=radii_of(reference_features(reference), other, "pool", self.k),
            generated_radii=radii_of(generated, rows, "pool", self.k),
        )
        assert balls.held is not None
        return balls.held_by > 0, balls.held
