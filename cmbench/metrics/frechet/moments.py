"""Means and covariances in float64, streamed by blocks and merged over shards (Chan's formula).

For shards a, b with n = n_a + n_b and d = m_b - m_a: m = m_a + d n_b / n and M = M_a + M_b + d
d^T n_a n_b / n, M the sum of centred products. Merging in the order of the shards' indices gives
the same bits for any number of workers.

Many float32 rows at once are shifted by their first block's mean and multiplied in float32, a
block at a time, and added in float64: 1e-7 of a covariance's scale, 1e-9 of a distance's, in half
the time. A covariance that is near to singular could not bear it, and is made again in float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.linalg import blas

from cmbench.metrics._range import largest, pair_exponent, scaled
from cmbench.metrics._rows import feature_rows
from cmbench.metrics.base import Features, MetricError, Moments, Reference

__all__ = ["MomentSum", "moments_of", "moments_of_rows", "reference_moments"]

_BLOCK = 2048
_SHARE = 3e-5
"""Of a feature's variance: rounding is 1e-7 to 5e-6 of it."""


@dataclass(frozen=True)
class MomentSum:
    """Count, mean (d,) and sum of centred products (d, d) of some rows."""

    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @classmethod
    def empty(cls, width: int) -> "MomentSum":
        """Of no rows at all."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    @classmethod
    def of(cls, rows: NDArray[np.floating]) -> "MomentSum":
        """Of rows (n, d), n at least 1, centred and multiplied in float64."""
        exact = rows.astype(np.float64)
        mean = exact.mean(axis=0)
        exact -= mean
        return cls(len(rows), mean, exact.T @ exact)

    def merge(self, other: "MomentSum") -> "MomentSum":
        """Of the rows of both."""
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        cross = np.outer(shift, shift) * (self.count * other.count / count)
        return MomentSum(count, mean, self.scatter + other.scatter + cross)

    def without(self, part: "MomentSum") -> "MomentSum":
        """Of the rows that are not in `part`: Chan's formula in reverse."""
        count = self.count - part.count
        mean = (self.mean * self.count - part.mean * part.count) / count
        shift = part.mean - mean
        cross = np.outer(shift, shift) * (count * part.count / self.count)
        return MomentSum(count, mean, self.scatter - part.scatter - cross)

    def moments(self) -> Moments:
        """Mean and covariance, divided by n - 1.

        Raises:
            MetricError: If there are fewer than 2 rows.
        """
        if self.count < 2:
            raise MetricError(f"{self.count} samples are too few for a covariance: 2 are needed")
        return Moments(self.mean, self.scatter / (self.count - 1), self.count)


def moments_of_rows(rows: NDArray[np.floating]) -> Moments:
    """Moments of feature rows (n, d), added up by blocks."""
    if rows.dtype == np.float32 and len(rows) > _BLOCK:
        exponent = pair_exponent(largest(rows), 0.0)
        found = _single_precision(scaled(rows, exponent)).reduced(-exponent)
        if _far_from_singular(found.covariance):
            return found
    total = MomentSum.empty(rows.shape[1])
    for start in range(0, len(rows), _BLOCK):
        total = total.merge(MomentSum.of(rows[start : start + _BLOCK]))
    return total.moments()


def _single_precision(rows: NDArray[np.floating]) -> Moments:
    """By float32 products of rows less the first block's mean."""
    count, width = rows.shape
    shift = rows[:_BLOCK].mean(axis=0, dtype=np.float64).astype(np.float32)
    sums, scatter = np.zeros(width), np.zeros((width, width))
    buffer = np.empty((min(2 * _BLOCK, count), width), np.float32)
    for start in range(0, count, len(buffer)):
        part = rows[start : start + len(buffer)]
        gaps = np.subtract(part, shift, out=buffer[: len(part)])
        sums += gaps.sum(axis=0, dtype=np.float64)
        # The triangle that `gaps.T @ gaps` makes and then copies into the other, block by block.
        scatter += blas.ssyrk(1.0, gaps.T).T
    del gaps, buffer
    for i in range(width):
        scatter[:i, i] = scatter[i, :i]
    sums /= count
    scatter -= np.outer(sums, count * sums)
    scatter /= count - 1
    return Moments(shift + sums, scatter, count)


def _far_from_singular(covariance: NDArray[np.float64]) -> bool:
    """Whether all features but one in 500 keep a share of their variance that float32 can tell
    from rounding, once the features before them are known.
    """
    try:
        factor = linalg.cholesky(covariance, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return False
    weak = np.diag(factor) ** 2 < _SHARE * np.diag(covariance)
    return int(weak.sum()) <= len(weak) // 500


def moments_of(features: Features, layer: str, *, owner: str = "generated") -> Moments:
    """Moments of a layer, made once and kept in the features' cache.

    Raises:
        MetricError: If the layer is absent, too short or not finite.
    """
    rows = feature_rows(features, layer, least=2, owner=owner)
    key = f"moments/{layer}"
    kept = features.cache.get(key)
    if not isinstance(kept, Moments):
        kept = features.cache[key] = moments_of_rows(rows)
    return kept


def reference_moments(reference: Reference | None, layer: str, *, width: int) -> Moments:
    """The reference's moments of a layer: those stored, or those of its features.

    Raises:
        MetricError: If it has neither, they are not finite, or of another width.
    """
    if reference is None:
        raise MetricError("a Frechet distance needs a reference")
    found = reference.moments.get(layer)
    if found is None and reference.features is not None:
        found = moments_of(reference.features, layer, owner="reference")
    if found is None:
        raise MetricError(f"the reference has neither moments nor features of layer '{layer}'")
    if found.mean.shape != (width,) or found.covariance.shape != (width, width):
        raise MetricError(
            f"'{layer}' is {width} wide in the generated features and {found.mean.size} wide "
            "in the reference: another extractor made it"
        )
    if not (np.isfinite(found.mean).all() and np.isfinite(found.covariance).all()):
        raise MetricError(f"the reference's moments of '{layer}' are not finite")
    return found
