"""The reference's side of a Frechet distance: mean, trace, and a factor of the covariance."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from scipy.linalg import lapack

from cmbench.metrics._rows import feature_rows
from cmbench.metrics.base import Moments, Reference
from cmbench.metrics.frechet.moments import reference_moments

__all__ = ["Target", "factor_of", "target_of", "target_of_moments"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """The reference's Gaussian.

    Args:
        mean: Mean m2, (d,).
        trace: Trace of the covariance S2.
        factor: L (d, k) with L L^T = S2.
        lower: Whether L is lower triangular.
        count: Number of rows that it was fitted to.
    """

    mean: Array
    trace: float
    factor: Array
    lower: bool
    count: int

    def reduced(self, exponent: int) -> "Target":
        """Returns the Gaussian of the rows divided by 2^exponent."""
        if not exponent:
            return self
        mean, factor = np.ldexp(self.mean, -exponent), np.ldexp(self.factor, -exponent)
        return replace(self, mean=mean, factor=factor, trace=math.ldexp(self.trace, -2 * exponent))

    def in_reference_frame(self, covariance: Array) -> torch.Tensor:
        """Maps a covariance S to the reference's frame: the lower triangle of L^T S L, (k, k)."""
        if self.lower:
            product, _ = lapack.dsygst(covariance, self.factor, itype=2, lower=1)
            return torch.from_numpy(product)
        factor = torch.from_numpy(self.factor)
        return factor.T @ torch.from_numpy(covariance) @ factor


def factor_of(covariance: Array) -> Array:
    """Returns L (d, d) with L L^T = covariance; slightly negative eigenvalues count as 0."""
    return target_of_moments(Moments(np.zeros(len(covariance)), covariance, 0)).factor


def target_of_moments(moments: Moments) -> Target:
    """Factors moments by Cholesky, or by eigenvectors where the covariance is singular."""
    covariance = moments.covariance
    trace, count = float(np.trace(covariance)), moments.count
    try:
        lower = linalg.cholesky(covariance, lower=True, check_finite=False)
        return Target(moments.mean, trace, np.asfortranarray(lower), True, count)
    except linalg.LinAlgError:
        values, vectors = torch.linalg.eigh(torch.from_numpy(covariance))
        root = vectors * values.clamp(min=0).sqrt()
        return Target(moments.mean, trace, root.numpy(), False, count)


def target_of(reference: Reference | None, layer: str, *, width: int) -> Target:
    """Returns the reference's Gaussian of a layer, computed once and kept in its cache.

    Raises:
        MetricError: If there is no reference, or its layer is absent, not finite or of another
            width.
    """
    key = f"target/{layer}"
    cached = reference.cache.get(key) if reference else None
    if isinstance(cached, Target) and len(cached.mean) == width:
        return cached
    target = _of_few_rows(reference, layer, width)
    if target is None:
        target = target_of_moments(reference_moments(reference, layer, width=width))
    if reference is not None:
        reference.cache[key] = target
    return target


def _of_few_rows(reference: Reference | None, layer: str, width: int) -> Target | None:
    """Factors fewer rows than dimensions without a (d, d) matrix; None if that does not apply.

    S2 = A^T A / (m - 1), A the centred rows, has the factor A^T / (m - 1)^(1/2).
    """
    if reference is None or layer in reference.moments or reference.features is None:
        return None
    rows = feature_rows(reference.features, layer, least=2, owner="reference")
    if len(rows) > width or rows.shape[1] != width:
        return None
    exact = rows.astype(np.float64)
    mean = exact.mean(axis=0)
    exact -= mean
    exact /= np.sqrt(len(rows) - 1)
    return Target(mean, float((exact**2).sum()), exact.T, False, len(rows))
