"""The Frechet distance of two Gaussians without a matrix square root of a nonsymmetric product.

d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2) (Dowson and Landau, 1982; Heusel et al.,
2017, https://arxiv.org/abs/1706.08500, equation 6). The eigenvalues of S1 S2 are those of the
symmetric L^T S1 L for any L with L L^T = S2 (Cholesky's, or the symmetric root where S2 is
singular). Where n < d they are those of the n x n Gram A S2 A^T / (n-1) with A the centred rows,
so that no null eigenvalue adds noise. First-order terms of each sample (influence): psi(x) = 2 (m1
- m2).(x - m1) + (x - m1)^T (I - T) (x - m1) - tr((I - T) S1), T = L (L^T S1 L)^(-1/2) L^T, the map
that carries the generated Gaussian to the reference's.

With s the roots of those eigenvalues and p_ab = s_a s_b / (s_a + s_b), Gaussian samples give an
excess of [tr S1 + 1/2 sum (1 + d_ab) p_ab] / n, and a quadratic part of variance 2 [tr S1^2 + 1/2
sum (1 + d_ab) p_ab^2] / n^2. Influence terms estimated from the same samples hold that part twice
(Efron and Stein, 1981), so it is taken off once.

With T = C C^T, c = C^T E[psi (x - m1)] and N = C^T E[psi (x - m1) (x - m1)^T] C, the second-order
terms along psi itself, of which the interval's skewness is made, are 2 |c|^2 + sum N_ab^2 / (s_a +
s_b).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from cmbench.metrics._base import Features, MetricError, Moments, Reference, Score
from cmbench.metrics._moments import moments_of, reference_moments
from cmbench.metrics._rows import feature_rows
from cmbench.metrics._skew import ROWS, skewed_interval, skewness

__all__ = [
    "Frechet",
    "factor_of",
    "frechet",
    "frechet_score",
    "moment_distance",
    "quadratic_variance",
]

Array = NDArray[np.float64]
Rows = NDArray[np.float32]
_BLOCK = 4096


@dataclass(frozen=True)
class Frechet:
    """A distance, its parts, the first-order term of each generated sample (n,), the variance of
    its quadratic part, its second-order term along the first, and the excess expected at this
    count.
    """

    distance: float
    mean_term: float
    influence: Array
    quadratic: float
    second: float
    bias: float
    reference_count: int
    reference: Reference


def factor_of(covariance: Array) -> Array:
    """L (d, d) with L L^T = covariance; negative rounding of a singular one is set to 0."""
    try:
        lower: Array = linalg.cholesky(covariance, lower=True, check_finite=False)
        return lower
    except linalg.LinAlgError:
        values, vectors = linalg.eigh(covariance, driver="evd", check_finite=False)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def moment_distance(generated: Moments, reference: Moments, factor: Array | None = None) -> float:
    """Squared Frechet distance of two Gaussians given by their moments."""
    roots = _roots(generated, factor_of(reference.covariance) if factor is None else factor)
    return _distance(generated, reference, float(roots.sum()))


def quadratic_variance(generated: Moments, factor: Array) -> float:
    """Variance of the distance's quadratic part at `generated.count` samples."""
    return _quadratic(generated, _roots(generated, factor))


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
    """The distance as a Score: error from the influence terms, interval by `_skew`."""
    found = frechet(generated, reference, layer)
    count = len(found.influence)
    linear = float(found.influence.var(ddof=1) / count)
    error = float(np.sqrt(max(linear - found.quadratic, linear / 2)))
    skew = skewness(found.influence, found.second)
    low, high = skewed_interval(found.distance, error, skew, count)
    details = {
        "bias": found.bias,
        "mean_term": found.mean_term,
        "reference_count": float(found.reference_count),
    }
    return Score(found.distance, error, (max(low, 0.0), high), count, details)


def _frechet(generated: Features, reference: Reference | None, layer: str) -> Frechet:
    rows = feature_rows(generated, layer, least=2)
    other = reference_moments(reference, layer, width=rows.shape[1])
    if reference is None:
        raise MetricError("a Frechet distance needs a reference")
    own = moments_of(generated, layer)
    gap = own.mean - other.mean
    if len(rows) < rows.shape[1]:
        roots, terms, second = _by_gram(rows, own, other, gap)
    else:
        factor = _cached_factor(reference, layer, other)
        roots, terms, second = _by_width(rows, own, factor, gap)
    return Frechet(
        _distance(own, other, float(roots.sum())),
        float(gap @ gap),
        terms,
        _quadratic(own, roots),
        second,
        _bias(own, roots),
        other.count,
        reference,
    )


def _by_gram(rows: Rows, own: Moments, other: Moments, gap: Array) -> tuple[Array, Array, float]:
    """Roots of the eigenvalues, influence and second-order terms, from the n x n side."""
    centred = rows.astype(np.float64) - own.mean
    gram = centred @ other.covariance @ centred.T
    values, vectors = linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    roots = np.sqrt(np.maximum(values, 0.0))
    scale = np.sqrt(len(centred) - 1)
    terms = 2 * (centred @ gap) + np.einsum("ij,ij->i", centred, centred)
    terms -= scale * ((vectors**2) @ roots)
    terms -= terms.mean()
    carried = vectors * np.sqrt(roots * scale)
    return roots / scale, terms, _second_order(carried, roots / scale, terms)


def _by_width(rows: Rows, own: Moments, factor: Array, gap: Array) -> tuple[Array, Array, float]:
    """The same from the d x d side; the terms in float32, which their spread can bear."""
    product = factor.T @ own.covariance @ factor
    values, vectors = linalg.eigh(product, driver="evd", overwrite_a=True, check_finite=False)
    values = np.maximum(values, 0.0)
    kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
    carrier = factor @ vectors[:, kept]
    carrier *= values[kept] ** -0.25
    narrow, slope = carrier.astype(np.float32), 2 * gap
    terms = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        centred = rows[start : start + _BLOCK] - own.mean
        terms[start : start + _BLOCK] = centred @ slope + np.einsum("ij,ij->i", centred, centred)
        carried = centred.astype(np.float32) @ narrow
        terms[start : start + _BLOCK] -= np.einsum("ij,ij->i", carried, carried)
    terms -= terms.mean()
    # Rows by a stride, so that an order by class does no harm.
    some = slice(None, None, -(-len(rows) // ROWS))
    carried = (rows[some] - own.mean).astype(np.float32) @ narrow
    return np.sqrt(values), terms, _second_order(carried, np.sqrt(values[kept]), terms[some])


def _second_order(carried: NDArray[np.floating], roots: Array, terms: Array) -> float:
    """2 |c|^2 + sum N_ab^2 / (s_a + s_b); `carried` are rows times C."""
    kept = roots > roots.max(initial=0.0) * 1e-6
    carried, roots = carried[:, kept], roots[kept]
    weights = (terms / len(terms)).astype(carried.dtype)
    along, squares = weights @ carried, (carried.T * weights) @ carried
    spread = squares.astype(np.float64) ** 2 / (roots[:, None] + roots[None, :])
    return float(2 * (along @ along) + spread.sum())


def _roots(generated: Moments, factor: Array) -> Array:
    product = factor.T @ generated.covariance @ factor
    values = linalg.eigvalsh(product, overwrite_a=True, check_finite=False)
    return np.sqrt(np.maximum(values, 0.0))


def _pairs(roots: Array) -> Array:
    """p_ab = s_a s_b / (s_a + s_b) over the roots above 0."""
    s = roots[roots > 0]
    pairs: Array = s[:, None] * s[None, :]
    pairs /= s[:, None] + s[None, :]
    return pairs


def _bias(own: Moments, roots: Array) -> float:
    pairs = _pairs(roots)
    return float(np.trace(own.covariance) + (pairs.sum() + np.trace(pairs)) / 2) / own.count


def _quadratic(own: Moments, roots: Array) -> float:
    squares = _pairs(roots) ** 2
    spread = (own.covariance**2).sum() + (squares.sum() + np.trace(squares)) / 2
    return float(2 * spread) / own.count**2


def _distance(generated: Moments, reference: Moments, trace_root: float) -> float:
    gap = generated.mean - reference.mean
    traces = float(np.trace(generated.covariance) + np.trace(reference.covariance))
    return max(float(gap @ gap) + traces - 2 * trace_root, 0.0)


def _cached_factor(reference: Reference, layer: str, moments: Moments) -> Array:
    key = f"factor/{layer}"
    if key not in reference.cache:
        reference.cache[key] = factor_of(moments.covariance)
    return np.asarray(reference.cache[key])
