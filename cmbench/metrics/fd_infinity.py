"""Frechet distance at an infinite count, by the jackknife over shards.

With m shards, F the distance of all samples and F_(-i) without shard i: m F - (m - 1) mean F_(-i).
It removes the bias in 1/N without random draws, where Chong and Forsyth (2020,
https://arxiv.org/abs/1911.07023) draw a line through redrawn sizes.
"""

from typing import ClassVar

import numpy as np
from pydantic import Field

from cmbench.metrics._rows import feature_rows
from cmbench.metrics.base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics.frechet.distance import moment_distance
from cmbench.metrics.frechet.error import frechet, quadratic_variance
from cmbench.metrics.frechet.moments import MomentSum, reference_moments
from cmbench.metrics.frechet.reference import target_of_moments
from cmbench.metrics.intervals.skewed import tailed_interval

__all__ = ["FrechetInfinity"]


class FrechetInfinity(Metric):
    """Jackknife-corrected squared Frechet distance; sample i belongs to shard i mod `shards`."""

    aliases: ClassVar[tuple[str, ...]] = ("fid_infinity", "fid_inf")
    needs_rows: ClassVar[bool] = False
    revision: ClassVar[int] = 2
    outputs: ClassVar[tuple[str, ...]] = ("fd_infinity",)
    least: ClassVar[int] = 4
    shards: int = Field(20, ge=2, le=10_000, description="shards left out one at a time")

    def fewest(self) -> int:
        """Two in each shard."""
        return 2 * self.shards

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """The corrected distance; details: plain distance, shards.

        Raises:
            MetricError: If there are fewer than two samples a shard, or fewer than dimensions.
        """
        rows = feature_rows(generated, "pool", least=2)
        if len(rows) < 2 * self.shards:
            raise MetricError(
                f"{len(rows)} samples are too few for {self.shards} shards: "
                f"at least {2 * self.shards} are needed"
            )
        if len(rows) < rows.shape[1] + 2:
            raise MetricError(
                f"{len(rows)} samples are fewer than the {rows.shape[1]} dimensions: the bias is "
                "no multiple of 1/N there, and can't be drawn on to its limit"
            )
        other = reference_moments(reference, "pool", width=rows.shape[1])
        target = target_of_moments(other)
        parts = [MomentSum.of(rows[i :: self.shards]) for i in range(self.shards)]
        total = MomentSum.empty(rows.shape[1])
        for part in parts:
            total = total.merge(part)
        plain = moment_distance(total.moments(), other, target)
        quadratic = quadratic_variance(total.moments(), target)
        left = np.array(
            [moment_distance(total.without(p).moments(), other, target) for p in parts]
        )
        m = self.shards
        value = float(m * plain - (m - 1) * left.mean())
        spread = float((m - 1) / m * ((left - left.mean()) ** 2).sum())
        # The jackknife holds the variance of the quadratic part twice.
        error = float(np.sqrt(max(spread - quadratic, spread / 2)))
        details = {"frechet_distance": plain, "reference_count": float(other.count)}
        # The correction is nearly a constant: the draws are as skew as the distance's own.
        own = frechet(generated, reference, "pool")
        interval, tail = tailed_interval(value, error, own.influence, own.second)
        details |= tail
        return {"fd_infinity": Score(value, error, interval, len(rows), details)}
