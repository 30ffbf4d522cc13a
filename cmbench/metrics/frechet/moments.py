"""Means and covariances in float64, streamed by blocks and merged over shards (Chan's formula).

For shards a and b with n = n_a + n_b rows, d = m_b - m_a, and M the sum of centred products,

    m = m_a + d n_b / n,   M = M_a + M_b + d d^T n_a n_b / n                                    (1)

Merging in the order of the shards' indices gives the same bits for any number of workers.

A large float32 array is shifted by the mean of its first block and multiplied in float32, block by
block, with sums in float64. That takes half the time, at a relative error of 1e-7 in a covariance
and 1e-9 in a distance. A nearly singular covariance would lose too much, and is computed again in
float64.
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
"""Share of a feature's variance that must remain: rounding is 1e-7 to 5e-6 of it."""


@dataclass(frozen=True)
class MomentSum:
    """Count, mean (d,) and sum of centred products (d, d) of a set of rows."""

    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @classmethod
    def empty(cls, width: int) -> "MomentSum":
        """The empty sum, neutral under `merge`."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    @classmethod
    def of(cls, rows: NDArray[np.floating]) -> "MomentSum":
        """Builds the sum from feature rows (n, d), n >= 1, in float64."""
        exact = rows.astype(np.float64)
        mean = exact.mean(axis=0)
        exact -= mean
        return cls(len(rows), mean, exact.T @ exact)

    def merge(self, other: "MomentSum") -> "MomentSum":
        """Combines the sums of two disjoint sets of rows, by equation 1."""
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        cross = np.outer(shift, shift) * (self.count * other.count / count)
        return MomentSum(count, mean, self.scatter + other.scatter + cross)

    def without(self, part: "MomentSum") -> "MomentSum":
        """Removes the rows of `part`: equation 1 in reverse."""
        count = self.count - part.count
        mean = (self.mean * self.count - part.mean * part.count) / count
        shift = part.mean - mean
        cross = np.outer(shift, shift) * (count * part.count / self.count)
        return MomentSum(count, mean, self.scatter - part.scatter - cross)

    def moments(self) -> Moments:
        """Returns the mean, and the covariance divided by n - 1.

        Raises:
            MetricError: If there are fewer than 2 rows.
        """
        if self.count < 2:
            raise MetricError(f"{self.count} samples are too few for a covariance: 2 are needed")
        return Moments(self.mean, self.scatter / (self.count - 1), self.count)


def moments_of_rows(rows: NDArray[np.floating]) -> Moments:
    """Computes the moments of feature rows (n, d), block by block."""
    if rows.dtype == np.float32 and len(rows) > _BLOCK:
        exponent = pair_exponent(largest(rows), 0.0)
        moments = _single_precision(scaled(rows, exponent)).reduced(-exponent)
        if _far_from_singular(moments.covariance):
            return moments
    total = MomentSum.empty(rows.shape[1])
    for start in range(0, len(rows), _BLOCK):
        total = total.merge(MomentSum.of(rows[start : start + _BLOCK]))
    return total.moments()


def _single_precision(rows: NDArray[np.floating]) -> Moments:
    """Computes moments from float32 products of the rows less the first block's mean."""
    count, width = rows.shape
    shift = rows[:_BLOCK].mean(axis=0, dtype=np.float64).astype(np.float32)
    sums, scatter = np.zeros(width), np.zeros((width, width))
    buffer = np.empty((min(2 * _BLOCK, count), width), np.float32)
    for start in range(0, count, len(buffer)):
        part = rows[start : start + len(buffer)]
        gaps = np.subtract(part, shift, out=buffer[: len(part)])
        sums += gaps.sum(axis=0, dtype=np.float64)
        # One triangle only: `gaps.T @ gaps` would copy it into the other for every block.
        scatter += blas.ssyrk(1.0, gaps.T).T
    del gaps, buffer
    for i in range(width):
        scatter[:i, i] = scatter[i, :i]
    sums /= count
    scatter -= np.outer(sums, count * sums)
    scatter /= count - 1
    return Moments(shift + sums, scatter, count)


def _far_from_singular(covariance: NDArray[np.float64]) -> bool:
    """Tests whether float32 resolves the variance that each feature keeps given those before it.

    One feature in 500 may fall below rounding.
    """
    try:
        factor = linalg.cholesky(covariance, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return False
    weak = np.diag(factor) ** 2 < _SHARE * np.diag(covariance)
    return int(weak.sum()) <= len(weak) // 500


def moments_of(features: Features, layer: str, *, owner: str = "generated") -> Moments:
    """Returns the moments of a layer, computed once and kept in the features' cache.

    Raises:
        MetricError: If the layer is absent, too short or not finite.
    """
    rows = feature_rows(features, layer, least=2, owner=owner)
    key = f"moments/{layer}"
    moments = features.cache.get(key)
    if not isinstance(moments, Moments):
        moments = features.cache[key] = moments_of_rows(rows)
    return moments


def reference_moments(reference: Reference | None, layer: str, *, width: int) -> Moments:
    """Returns the reference's moments of a layer: those stored, or those of its features.

    Raises:
        MetricError: If it has neither, or if they are not finite or of another width.
    """
    if reference is None:
        raise MetricError("a Frechet distance needs a reference")
    moments = reference.moments.get(layer)
    if moments is None and reference.features is not None:
        moments = moments_of(reference.features, layer, owner="reference")
    if moments is None:
        raise MetricError(f"the reference has neither moments nor features of layer '{layer}'")
    if moments.mean.shape != (width,) or moments.covariance.shape != (width, width):
        raise MetricError(
            f"'{layer}' is {width} wide in the generated features and {moments.mean.size} wide "
            "in the reference: another extractor made it"
        )
    if not (np.isfinite(moments.mean).all() and np.isfinite(moments.covariance).all()):
        raise MetricError(f"the reference's moments of '{layer}' are not finite")
    return moments
