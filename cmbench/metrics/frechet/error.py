"""The uncertainty of a Frechet distance: influence of each row, variance, bias and skewness.

Influence. Row i's term is n - 1 times what leaving it out does to the distance, exactly
(`leave_one_out.py`). Below four times as many rows as dimensions the terms' variance holds more
than the distance's, which `intervals/leave_one_out.py` removes. Above, the excess is a quadratic
part. With s_a the roots of the eigenvalues of S1 S2 and

    p_ab = s_a s_b / (s_a + s_b)                                                                (1)

n Gaussian rows give the distance the bias

    [tr S1 + 1/2 sum_ab (1 + [a = b]) p_ab] / n                                                 (2)

and a quadratic part of variance

    2 [tr S1^2 + 1/2 sum_ab (1 + [a = b]) p_ab^2] / n^2                                         (3)

which the terms hold twice (Efron and Stein, 1981).

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
from cmbench.metrics.frechet.leave_one_out import RowsFit, Sample
from cmbench.metrics.frechet.moments import moments_of
from cmbench.metrics.frechet.reference import Target, target_of
from cmbench.metrics.intervals.leave_one_out import shared_variance
from cmbench.metrics.intervals.skewed import ROWS, tailed_interval

__all__ = ["Frechet", "frechet", "frechet_score", "quadratic_variance"]

Array = NDArray[np.float64]
_MANY = 4
"""Times as many rows as dimensions: first-order terms less a quadratic part suffice."""


@dataclass(frozen=True)
class Frechet:
    """A distance with what its interval is made of.

    Args:
        distance: The squared distance.
        mean_term: |m1 - m2|^2.
        influence: Term of each generated sample, (n,), mean 0; their variance / n is `variance`.
        variance: Of the distance, from the sampling of the generated rows.
        second: Its second-order term along the influence.
        bias: Excess expected at this count.
        reference_count: Rows of the reference.
        reference: What it was measured from.
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
        """Of features 2^exponent times as large."""
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
    """The distance as a Score: error from the influence terms, interval by their skewness."""
    found = frechet(generated, reference, layer)
    count = len(found.influence)
    error = float(np.sqrt(found.variance))
    (low, high), tail = tailed_interval(found.distance, error, found.influence, found.second)
    details = {
        "bias": found.bias,
        "mean_term": found.mean_term,
        "reference_count": float(found.reference_count),
        **tail,
    }
    return Score(found.distance, error, (max(low, 0.0), high), count, details)


def quadratic_variance(generated: Moments, target: Target) -> float:
    """Variance of the distance's quadratic part at `generated.count` samples."""
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
    """From features whose squares float32 holds; `own` moments of more rows than the rank."""
    rank, count = target.factor.shape[1], len(rows)
    sample = Sample(rows, target, few=count < _MANY * rank)
    fit = sample.fit(np.arange(count)) if own is None else sample.whole(own)
    terms = fit.left()
    terms -= terms.mean()
    linear = float(terms.var(ddof=1) / count)
    roots, trace = np.sqrt(fit.values / (count - 1)), fit.trace / (count - 1)
    if sample.carried is not None:
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


def _second_order(fit: RowsFit, roots: Array, terms: Array) -> float:
    """Equation 4."""
    # Rows by a stride, so that an order by class does no harm.
    some = np.arange(0, len(terms), -(-len(terms) // ROWS))
    kept = roots > roots.max(initial=0.0) * 1e-6
    rows = fit.coordinates(some) if fit.own is None else fit.own[some]
    roots, few = roots[kept], terms[some]
    carried = rows[:, kept] * (roots**-0.5).astype(rows.dtype)
    # By a power of two, so that float32 holds their squares.
    exponent = largest_exponent(few)
    weights = (np.ldexp(few, -exponent) / len(few)).astype(carried.dtype)
    along, squares = weights @ carried, (carried.T * weights) @ carried
    spread = squares.astype(np.float64) ** 2 / (roots[:, None] + roots[None, :])
    return math.ldexp(float(2 * (along @ along) + spread.sum()), 2 * exponent)


def _pairs(roots: Array) -> Array:
    """Equation 1, over the roots above 0."""
    s = roots[roots > 0]
    pairs: Array = s[:, None] * s[None, :]
    pairs /= s[:, None] + s[None, :]
    return pairs


def _bias(trace: float, count: int, roots: Array) -> float:
    """Equation 2."""
    pairs = _pairs(roots)
    return float(trace + (pairs.sum() + np.trace(pairs)) / 2) / count


def _quadratic(own: Moments, roots: Array) -> float:
    """Equation 3."""
    squares = _pairs(roots) ** 2
    spread = (own.covariance**2).sum() + (squares.sum() + np.trace(squares)) / 2
    return float(2 * spread) / own.count**2
