"""The uncertainty of a Frechet distance: influence of each row, variance, bias and skewness.

Influence. Row i's influence is n - 1 times the exact change of the distance when that row is left
out (`leave_one_out.py`). With fewer than four times as many rows as dimensions the variance of
these terms exceeds that of the distance, and `intervals/leave_one_out.py` removes the excess. With
more rows the excess is a quadratic part. With s_a the roots of the eigenvalues of S1 S2 and

    p_ab = s_a s_b / (s_a + s_b)                                                                (1)

n Gaussian rows give the distance the bias

    [tr S1 + 1/2 sum_ab (1 + [a = b]) p_ab] / n                                                 (2)

and a quadratic part of variance

    2 [tr S1^2 + 1/2 sum_ab (1 + [a = b]) p_ab^2] / n^2                                         (3)

which the terms count twice (Efron and Stein, 1981).

Skewness. With T = C C^T the map that carries the generated Gaussian to the reference's,
C = L (L^T S1 L)^(-1/4), c = C^T E[psi (x - m1)] and N = C^T E[psi (x - m1) (x - m1)^T] C, the
distance's second-order term along the terms psi is

    2 |c|^2 + sum_ab N_ab^2 / (s_a + s_b)                                                       (4)
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cmbench.metrics._range import largest, largest_exponent, pair_exponent, scaled
from cmbench.metrics._rows import feature_rows
from cmbench.metrics.base import Features, MetricError, Moments, Reference, Score
from cmbench.metrics.frechet.distance import product_roots, squared_distance
from cmbench.metrics.frechet.leave_one_out import SampleRows, Scatter
from cmbench.metrics.frechet.moments import moments_of
from cmbench.metrics.frechet.reference import Target, target_of
from cmbench.metrics.intervals.leave_one_out import shared_variance
from cmbench.metrics.intervals.skewed import ROWS, tailed_interval

__all__ = ["Frechet", "frechet", "frechet_score", "quadratic_variance"]

Array = NDArray[np.float64]
_MANY = 4
"""From this many rows per dimension the excess variance is equation 3."""


@dataclass(frozen=True)
class Frechet:
    """A Frechet distance with everything that its interval needs.

    Args:
        distance: The squared distance.
        mean_term: |m1 - m2|^2.
        influence: Influence of each generated image, (n,), mean 0; its variance / n is `variance`.
        variance: Variance of the distance from the sampling of the generated images.
        second: Second-order term along the influence, equation 4.
        bias: Expected excess at this number of images, equation 2.
        reference_count: Number of reference rows.
        reference: The reference that it was measured against.
    """

    distance: float
    mean_term: float
    influence: Array
    variance: float
    second: float
    bias: float
    reference_count: int
    reference: Reference

    def enlarged(self, exponent: int) -> "Frechet":
        """Returns the result for features 2^exponent times as large."""
        if not exponent:
            return self
        return replace(
            self,
            distance=math.ldexp(self.distance, 2 * exponent),
            mean_term=math.ldexp(self.mean_term, 2 * exponent),
            influence=np.ldexp(self.influence, 2 * exponent),
            variance=math.ldexp(self.variance, 4 * exponent),
            second=math.ldexp(self.second, 6 * exponent),
            bias=math.ldexp(self.bias, 2 * exponent),
        )


def frechet(generated: Features, reference: Reference | None, layer: str) -> Frechet:
    """Frechet distance between a layer's features and the reference, with each image's influence.

    Raises:
        MetricError: For fewer than 2 samples, features that are not finite, or another width.
    """
    cached = generated.cache.get(f"frechet/{layer}")
    if isinstance(cached, Frechet) and cached.reference is reference:
        return cached
    result = _frechet(generated, reference, layer)
    generated.cache[f"frechet/{layer}"] = result
    return result


def frechet_score(generated: Features, reference: Reference | None, layer: str) -> Score:
    """Returns the distance as a Score, its interval corrected for skewness."""
    result = frechet(generated, reference, layer)
    count = len(result.influence)
    error = float(np.sqrt(result.variance))
    (low, high), tail = tailed_interval(result.distance, error, result.influence, result.second)
    details = {
        "bias": result.bias,
        "mean_term": result.mean_term,
        "reference_count": float(result.reference_count),
        **tail,
    }
    return Score(result.distance, error, (max(low, 0.0), high), count, details)


def quadratic_variance(generated: Moments, target: Target) -> float:
    """Variance of the distance's quadratic part at `generated.count` images, equation 3."""
    return _quadratic(generated, product_roots(target, generated.covariance))


def _frechet(generated: Features, reference: Reference | None, layer: str) -> Frechet:
    rows = feature_rows(generated, layer, least=2)
    target = target_of(reference, layer, width=rows.shape[1])
    if reference is None:
        raise MetricError("a Frechet distance needs a reference")
    exponent = pair_exponent(largest(rows), largest(target.factor))
    own = None
    if len(rows) > target.factor.shape[1] + 1:
        own = moments_of(generated, layer).reduced(exponent)
    sides = scaled(rows, exponent), target.reduced(exponent)
    return _fitted(*sides, own, reference).enlarged(exponent)


def _fitted(
    rows: NDArray[np.float32], target: Target, own: Moments | None, reference: Reference
) -> Frechet:
    """Computes the distance and its error from features whose squares fit float32.

    `own` are the moments of all rows, given where there are more rows than the rank.
    """
    rank, count = target.factor.shape[1], len(rows)
    sample = SampleRows(rows, target, few=count < _MANY * rank)
    fit = sample.fit(np.arange(count)) if own is None else sample.fit_all(own)
    terms = fit.leave_one_out()
    terms -= terms.mean()
    linear = float(terms.var(ddof=1) / count)
    roots, trace = np.sqrt(fit.values / (count - 1)), fit.trace / (count - 1)
    if sample.in_reference_frame is not None:
        variance = shared_variance(terms, sample.fit, width=rank)
    else:
        assert own is not None
        variance = max(linear - _quadratic(own, roots), linear / 2)
    terms *= np.sqrt(variance / linear) if linear else 1.0
    gap = fit.mean - target.mean
    return Frechet(
        squared_distance(gap, trace + target.trace, float(roots.sum())),
        float(gap @ gap),
        terms,
        variance,
        _second_order(fit, roots, terms),
        _bias(trace, count, roots),
        target.count,
        reference,
    )


def _second_order(fit: Scatter, roots: Array, terms: Array) -> float:
    """Evaluates equation 4 from at most `ROWS` rows."""
    # Strided, so that rows sorted by class do no harm.
    some = np.arange(0, len(terms), -(-len(terms) // ROWS))
    kept = roots > roots.max(initial=0.0) * 1e-6
    rows = fit.coordinates(some) if fit.own is None else fit.own[some]
    roots, few = roots[kept], terms[some]
    mapped = rows[:, kept] * (roots**-0.5).astype(rows.dtype)  # C^T (x - m1).
    # Scaled by a power of two, so that their squares fit float32.
    exponent = largest_exponent(few)
    weights = (np.ldexp(few, -exponent) / len(few)).astype(mapped.dtype)
    along, squares = weights @ mapped, (mapped.T * weights) @ mapped  # c and N.
    spread = squares.astype(np.float64) ** 2 / (roots[:, None] + roots[None, :])
    return math.ldexp(float(2 * (along @ along) + spread.sum()), 2 * exponent)


def _pairs(roots: Array) -> Array:
    """Evaluates p_ab of equation 1 for the roots above 0."""
    s = roots[roots > 0]
    pairs: Array = s[:, None] * s[None, :]
    pairs /= s[:, None] + s[None, :]
    return pairs


def _bias(trace: float, count: int, roots: Array) -> float:
    """Evaluates equation 2."""
    pairs = _pairs(roots)
    return float(trace + (pairs.sum() + np.trace(pairs)) / 2) / count


def _quadratic(own: Moments, roots: Array) -> float:
    """Evaluates equation 3."""
    squares = _pairs(roots) ** 2
    spread = (own.covariance**2).sum() + (squares.sum() + np.trace(squares)) / 2
    return float(2 * spread) / own.count**2
