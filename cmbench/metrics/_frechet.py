"""The Frechet distance of two Gaussians without a matrix square root of a nonsymmetric product.

d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2) (Dowson and Landau, 1982; Heusel et al.,
2017, https://arxiv.org/abs/1706.08500, equation 6). The eigenvalues of S1 S2 are those of the
symmetric R S1 R with R the symmetric root of S2. Where n < d they are those of the n x n Gram A
S2 A^T / (n-1) with A the centred rows, so that no null eigenvalue adds noise. First-order terms
of each sample (influence): psi(x) = 2 (m1 - m2).(x - m1) + (x - m1)^T (I - T) (x - m1) - tr((I -
T) S1), with T = R (R S1 R)^(-1/2) R, the map that carries the generated Gaussian to the
reference's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from cmbench.metrics._base import Features, MetricError, Moments, Reference, Score
from cmbench.metrics._moments import moments_of, reference_moments
from cmbench.metrics._rows import feature_rows

__all__ = [
    "Frechet",
    "Root",
    "frechet",
    "frechet_bias",
    "frechet_score",
    "moment_distance",
    "root_of",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Root:
    """Eigenvalues (d,) and symmetric root (d, d) of a covariance."""

    eigenvalues: Array
    root: Array


@dataclass(frozen=True)
class Frechet:
    """A distance, its parts, and the first-order term of each generated sample (n,)."""

    distance: float
    mean_term: float
    influence: Array
    bias: float
    reference_count: int
    reference: Reference


def root_of(covariance: Array) -> Root:
    """Symmetric root of a positive semidefinite matrix; negative rounding is set to 0."""
    values, vectors = linalg.eigh(covariance, check_finite=False)
    values = np.maximum(values, 0.0)
    return Root(values, (vectors * np.sqrt(values)) @ vectors.T)


def moment_distance(generated: Moments, reference: Moments, root: Root | None = None) -> float:
    """Squared Frechet distance of two Gaussians given by their moments."""
    half = (root or root_of(reference.covariance)).root
    values = linalg.eigvalsh(half @ generated.covariance @ half, check_finite=False)
    return _distance(generated, reference, float(np.sqrt(np.maximum(values, 0.0)).sum()))


def frechet(generated: Features, reference: Reference | None, layer: str) -> Frechet:
    """The distance of a layer's features from the reference, with each sample's influence.

    Raises:
        MetricError: For fewer than 2 samples, features that are not finite, another width.
    """
    kept = generated.cache.get(f"frechet/{layer}")
    if isinstance(kept, Frechet) and kept.reference is reference:
        return kept
    found = _frechet(generated, reference, layer)
    generated.cache[f"frechet/{layer}"] = found
    return found


def frechet_score(generated: Features, reference: Reference | None, layer: str) -> Score:
    """The distance as a Score: error from the influence terms, interval value +- 1.96 error."""
    found = frechet(generated, reference, layer)
    count = len(found.influence)
    error = float(found.influence.std(ddof=1) / np.sqrt(count))
    interval = (max(found.distance - 1.96 * error, 0.0), found.distance + 1.96 * error)
    details = {
        "bias": found.bias,
        "mean_term": found.mean_term,
        "reference_count": float(found.reference_count),
    }
    return Score(found.distance, error, interval, count, details)


def frechet_bias(eigenvalues: Array, count: int) -> float:
    """Expected excess at `count` samples drawn from the reference's own Gaussian.

    [tr S + 1/2 sum_ij l_i l_j (1 + d_ij) / (l_i + l_j)] / count, l the eigenvalues of S. Second
    order in 1/sqrt(count): too large where count is not well above the width.
    """
    values = eigenvalues[eigenvalues > 0]
    sums = values[:, None] + values[None, :]
    pairs = float((values[:, None] * values[None, :] / sums).sum()) + float(values.sum()) / 2
    return (float(values.sum()) + pairs / 2) / count


def _frechet(generated: Features, reference: Reference | None, layer: str) -> Frechet:
    rows = feature_rows(generated, layer, least=2)
    other = reference_moments(reference, layer, width=rows.shape[1])
    if reference is None:
        raise MetricError("a Frechet distance needs a reference")
    own = moments_of(generated, layer)
    root = _cached_root(reference, layer, other)
    centred = rows.astype(np.float64) - own.mean
    trace, carried = (
        _by_gram(centred, other) if len(rows) < rows.shape[1] else _by_width(centred, own, root)
    )
    gap = own.mean - other.mean
    quadratic = np.einsum("ij,ij->i", centred, centred) - carried
    # Centring to mean zero exactly; the mean of `quadratic` is tr((I - T) S1) up to (n - 1) / n.
    influence = 2 * (centred @ gap) + quadratic - quadratic.mean()
    bias = frechet_bias(root.eigenvalues, own.count)
    return Frechet(
        _distance(own, other, trace), float(gap @ gap), influence, bias, other.count, reference
    )


def _by_gram(centred: Array, other: Moments) -> tuple[float, Array]:
    gram = centred @ other.covariance @ centred.T
    values, vectors = linalg.eigh(gram, check_finite=False)
    roots = np.sqrt(np.maximum(values, 0.0))
    scale = np.sqrt(len(centred) - 1)
    return float(roots.sum() / scale), scale * ((vectors**2) @ roots)


def _by_width(centred: Array, own: Moments, root: Root) -> tuple[float, Array]:
    product = root.root @ own.covariance @ root.root
    values, vectors = linalg.eigh(product, check_finite=False)
    values = np.maximum(values, 0.0)
    kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    projected = centred @ (root.root @ vectors[:, kept])
    carried = (projected**2) @ (1 / np.sqrt(values[kept]))
    return float(np.sqrt(values).sum()), carried


def _distance(generated: Moments, reference: Moments, trace_root: float) -> float:
    gap = generated.mean - reference.mean
    traces = float(np.trace(generated.covariance) + np.trace(reference.covariance))
    return max(float(gap @ gap) + traces - 2 * trace_root, 0.0)


def _cached_root(reference: Reference, layer: str, moments: Moments) -> Root:
    kept = reference.cache.get(f"root/{layer}")
    if not isinstance(kept, Root):
        kept = reference.cache[f"root/{layer}"] = root_of(moments.covariance)
    return kept
