"""Frechet distance of features from the reference's: FID on Inception's, FD-... on others.

d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), pool features (Heusel et al., 2017,
https://arxiv.org/abs/1706.08500, equation 6). The interval covers the expected distance at this
count: the distance is biased upward by about `details.bias`, so only equal counts compare.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

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

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """The distance; details: bias at this count, mean_term, reference_count."""
        return {"frechet_distance": frechet_score(generated, reference, "pool")}

    def title_of(self, output: str, extractor: FeatureExtractor) -> str:
        """The distance's own name in this space: only Inception's is FID."""
        return extractor.distance_name

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """First-order term of each generated sample, (N,), mean 0."""
        return {"frechet_distance": frechet(generated, reference, "pool").influence}
