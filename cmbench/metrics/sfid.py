"""sFID: the Frechet distance on a spatial layer (Nash et al., 2021, https://arxiv.org/abs/2103.03841).

The first 7 channels of Inception's mixed_6/conv, 17 x 17, flattened in the order H, W, C: 2023.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cmbench.metrics.base import Features, Metric, Reference, Score
from cmbench.metrics.frechet.error import frechet, frechet_score

__all__ = ["SpatialFrechetDistance"]


class SpatialFrechetDistance(Metric):
    """Squared Frechet distance of the extractor's `spatial` layer."""

    title: ClassVar[str] = "sFID"
    needs_rows: ClassVar[bool] = False
    revision: ClassVar[int] = 2
    bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("sfid",)
    layers: ClassVar[tuple[str, ...]] = ("spatial",)

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """The distance; details as of `frechet_distance`."""
        return {"sfid": frechet_score(generated, reference, "spatial")}

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """First-order term of each generated sample, (N,), mean 0."""
        return {"sfid": frechet(generated, reference, "spatial").influence}
