"""Density and coverage (Naeem et al., 2020, https://arxiv.org/abs/2002.09797).

density = mean over generated rows of (reference balls that hold it) / k, may exceed 1;
coverage = share of reference balls that hold a generated row. A row on the rim is outside.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cmbench.metrics._rows import feature_rows, reference_features, reference_rows
from cmbench.metrics.base import Bounds, Features, Metric, Reference, Score
from cmbench.metrics.neighbours.occupancy import reached_score
from cmbench.metrics.neighbours.search import Balls, balls_of, in_range, radii_of

__all__ = ["DensityCoverage"]


class DensityCoverage(Metric):
    """How often reference balls hold generated rows, and how many of them hold any."""

    aliases: ClassVar[tuple[str, ...]] = ("prdc", "dc", "density", "coverage")
    by_reference: ClassVar[tuple[str, ...]] = ("coverage",)
    revision: ClassVar[int] = 2
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("density", "coverage")
    k: int = Field(5, ge=1, le=10_000, description="neighbour that a reference ball reaches to")

    def fewest_reference(self) -> int:
        """One more than a ball has neighbours."""
        return self.k + 1

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Density (error: spread over generated rows) and coverage (see `_occupancy`)."""
        balls = self._balls(generated, reference)
        counts = balls.held_by / self.k
        n, m = len(counts), len(balls.holds.counts)
        value, error = float(counts.mean()), float(counts.std(ddof=1) / np.sqrt(n))
        interval = (max(value - 1.96 * error, 0.0), value + 1.96 * error)
        details = {"reference_count": float(m)}
        return {
            "density": Score(value, error, interval, n, details),
            "coverage": reached_score(
                balls.holds, balls.holds.variance(), count=n, details=details
            ),
        }

    def bounds_of(self, output: str) -> Bounds:
        """Coverage is a share; density has no upper bound."""
        return (0.0, 1.0) if output == "coverage" else self.bounds

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """Terms less their mean: by generated row for density, by reference row for coverage."""
        balls = self._balls(generated, reference)
        counts, holds = balls.held_by / self.k, (balls.holds.counts > 0).astype(np.float64)
        return {"density": counts - counts.mean(), "coverage": holds - holds.mean()}

    def _balls(self, generated: Features, reference: Reference | None) -> Balls:
        rows = feature_rows(generated, "pool", least=2)
        other = reference_rows(reference, "pool", least=self.k + 1, width=rows.shape[1])
        radii = radii_of(reference_features(reference), other, "pool", self.k)
        rows, other, exponent = in_range(rows, other)
        radii = np.ldexp(radii, -2 * exponent)
        return balls_of(rows, other, reference_radii=radii, strict=True)
