"""Frechet distance between generated and reference features: FID on Inception's, FD-* on others.

d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), pool features (Heusel et al., 2017,
https://arxiv.org/abs/1706.08500, equation 6). The interval covers the expected distance at this
number of images: it is biased upward by about `details.bias`, so only equal counts compare.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from cmbench.features.base import FeatureExtractor
from cmbench.metrics.base import Features, Metric, Reference, Score
from cmbench.metrics.frechet.error import frechet, frechet_score

__all__ = ["FrechetDistance"]


class FrechetDistance(Metric):
    """Squared Frechet distance between Gaussians fitted to generated and reference features."""

    aliases: ClassVar[tuple[str, ...]] = ("fid", "fd", "frechet_inception_distance")
    needs_rows: ClassVar[bool] = False
    revision: ClassVar[int] = 2
    bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("frechet_distance",)

    @override
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Returns the distance; its details: bias at this count, mean_term, reference_count."""
        return {"frechet_distance": frechet_score(generated, reference, "pool")}

    @override
    def title_of(self, output: str, extractor: FeatureExtractor) -> str:
        """Names the distance in this feature space: only Inception's is FID."""
        return extractor.distance_name

    @override
    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """Returns the influence of each generated image, (N,), mean 0."""
        return {"frechet_distance": frechet(generated, reference, "pool").influence}
