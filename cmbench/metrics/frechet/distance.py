"""The Frechet distance of two Gaussians: its value. `error.py` beside it has its uncertainty.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)                                      (1)

Dowson and Landau (1982); Heusel et al. (2017, https://arxiv.org/abs/1706.08500), equation 6. No
square root of a nonsymmetric matrix is taken: the eigenvalues of S1 S2 are those of the symmetric
L^T S1 L for any L with L L^T = S2 (Cholesky's, or the symmetric root where S2 is singular). With
fewer rows n than dimensions they are those of the n x n Gram A S2 A^T / (n - 1), A the centred
rows, so that no null eigenvalue adds noise.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from cmbench.metrics._rows import feature_rows
from cmbench.metrics.base import Features, Moments, Reference
from cmbench.metrics.frechet.moments import moments_of
from cmbench.metrics.frechet.reference import Target, target_of, target_of_moments

__all__ = ["frechet_value", "moment_distance", "product_roots", "squared_distance"]

Array = NDArray[np.float64]


def moment_distance(generated: Moments, reference: Moments, target: Target | None = None) -> float:
    """Squared Frechet distance of two Gaussians, equation 1.

    Args:
        generated: Mean m1 (d,) and covariance S1 (d, d) of the generated features.
        reference: m2 and S2 of the reference's.
        target: The reference with its factor L, where it is known already.
    """
    target = target_of_moments(reference) if target is None else target
    roots = product_roots(target, generated.covariance)
    traces = float(np.trace(generated.covariance)) + target.trace
    return squared_distance(generated.mean - target.mean, traces, float(roots.sum()))


def squared_distance(gap: Array, traces: float, trace_root: float) -> float:
    """Equation 1 from m1 - m2 (d,), tr S1 + tr S2 and tr (S1 S2)^(1/2); at least 0."""
    return max(float(gap @ gap) + traces - 2 * trace_root, 0.0)


def product_roots(target: Target, covariance: Array) -> Array:
    """Square roots (d,) of the eigenvalues of S1 S2: those of L^T S1 L."""
    return torch.linalg.eigvalsh(target.carried(covariance)).clamp(min=0).sqrt().numpy()


def frechet_value(generated: Features, reference: Reference | None, layer: str) -> float:
    """Squared Frechet distance of a layer's features from the reference, without its error.

    Raises:
        MetricError: For fewer than 2 samples, features that are not finite, another width.
    """
    rows = feature_rows(generated, layer, least=2)
    target = target_of(reference, layer, width=rows.shape[1])
    if len(rows) > target.factor.shape[1] + 1:
        own = moments_of(generated, layer)
        return moment_distance(own, own, target)
    return _few_rows_distance(rows, target)


def _few_rows_distance(rows: NDArray[np.float32], target: Target) -> float:
    """Equation 1 from fewer rows (n, d) than dimensions, by the eigenvalues of their Gram."""
    gaps = rows.astype(np.float64)
    mean = gaps.mean(axis=0)
    gaps -= mean
    # NumPy throughout: torch's threads, still spinning, would take the cores from its own. It sees
    # a matrix times its own transpose, and does half of the work.
    carried = gaps @ target.factor
    values = np.linalg.eigvalsh(carried @ carried.T)
    scale = len(rows) - 1
    trace_root = float(np.sqrt(values.clip(min=0)).sum()) / scale**0.5
    traces = float(np.vdot(gaps, gaps)) / scale + target.trace
    return squared_distance(mean - target.mean, traces, trace_root)
