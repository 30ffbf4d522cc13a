"""sFID: the Frechet distance on a spatial layer (Nash et al., 2021, https://arxiv.org/abs/2103.03841).

The layer is the first 7 channels of Inception's mixed_6/conv, 17 x 17, flattened in the order H,
W, C: 2023 features.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

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

    @override
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Returns the distance, with the details of `frechet_distance`."""
        return {"sfid": frechet_score(generated, reference, "spatial")}

    @override
    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """Returns the influence of each generated image, (N,), mean 0."""
        return {"sfid": frechet(generated, reference, "spatial").influence}
