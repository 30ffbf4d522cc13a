"""Confidence intervals of scores with a skewed sampling distribution.

Let psi(x) be a statistic's first-order terms (standard deviation s) and phi(x, x') its
second-order terms. To first order in 1 / sqrt(n) the statistic divided by its estimated error has
the skewness of a studentised U-statistic (Helmers, 1991,
https://doi.org/10.1214/aos/1176347993; Callaert and Veraverbeke, 1981): at the normal quantile z
the interval shifts by error / (6 sqrt n) times

    (2 z^2 + 1) E psi^3 / s^3 + 3 (z^2 + 1) E psi(x) psi(x') phi(x, x') / s^3                   (1)

A plain mean whose interval would shift by the same amount has terms of skewness

    g = [E psi^3 + 3 (z^2 + 1) / (2 z^2 + 1) E psi(x) psi(x') phi(x, x')] / s^3                 (2)

and its interval is that of Hall's cubic transformation (1992), which is monotone where the plain
correction is not: with a = g / sqrt n, its ends are value - error times

    3 [(1 + a (z - a / 6))^(1/3) - 1] / a,   z = -1.96 and 1.96                                 (3)

Without the correction, a set that happens to lack the rare images that make a score large has both
a low value and a small error, so all misses lie on one side (`benchmarks/coverage.py`).

Where a few images carry most of the variance, no expansion in 1 / sqrt(n) is valid. Their number
is estimated by the effective number of terms,

    (sum psi^2)^2 / sum psi^4                                                                   (4)

Below 40 and n / 8 of them the interval is widened, up to threefold on one side where one image
carries all variance, and the number is reported. A set without any of the rare images can't reveal
that they exist.
"""

import numpy as np
from numpy.typing import NDArray

from cmbench.metrics._range import largest_exponent

__all__ = ["ROWS", "effective_count", "skewed_interval", "skewness", "tailed_interval"]

ROWS = 4096
"""Most rows used to estimate a second-order term, whose part in an interval is of order 1 / n."""

_Z = 1.96
_MOST = 0.8
"""Bound on skewness / sqrt n."""
_FEW, _SHARE = 40, 8
"""Effective terms below which an interval is widened: the smaller of 40 and n / 8."""
_WIDER = 2.0
"""Lengths by which one side of the interval grows where one term carries all variance."""


def skewness(terms: NDArray[np.float64], second: float) -> float:
    """Skewness of the plain mean whose interval would shift by the same amount, equation 2.

    Args:
        terms: First-order terms, (N,), mean 0.
        second: Mean of psi(x) psi(x') phi(x, x').
    """
    # Scaled exactly, by a power of two: cubes of large terms overflow.
    exponent = largest_exponent(terms)
    terms, second = np.ldexp(terms, -exponent), float(np.ldexp(second, -3 * exponent))
    spread = float(terms.std())
    if spread == 0:
        return 0.0
    third = float((terms**3).mean())
    return (third + second * 3 * (_Z**2 + 1) / (2 * _Z**2 + 1)) / spread**3


def tailed_interval(
    value: float,
    error: float,
    terms: NDArray[np.float64],
    second: float,
    *,
    both_ways: bool = False,
) -> tuple[tuple[float, float], dict[str, float]]:
    """Returns `skewed_interval`, widened where a few terms carry most of the variance.

    Args:
        value: The statistic.
        error: Its standard error.
        terms: First-order terms, (N,), mean 0.
        second: Mean of psi(x) psi(x') phi(x, x').
        both_ways: Whether rare images may lower the score as well as raise it.

    Returns:
        The interval, and the detail `effective_images` where it was widened.
    """
    count = len(terms)
    low, high = skewed_interval(value, error, skewness(terms, second), count)
    few, enough = effective_count(terms), min(_FEW, count / _SHARE)
    if few >= enough:
        return (low, high), {}
    wider = _WIDER * (1 - few / enough)
    # Rare images missing from the set would pull as those present do; without skew, upwards.
    if both_ways or float((terms**3).sum()) < 0:
        low -= wider * (value - low)
    return (low, high + wider * (high - value)), {"effective_images": few}


def effective_count(terms: NDArray[np.float64]) -> float:
    """Effective number of terms behind the variance, from 1 to N: equation 4."""
    squares = np.ldexp(terms, -largest_exponent(terms)) ** 2
    total = float(squares.sum())
    return total**2 / float((squares**2).sum()) if total else float(len(terms))


def skewed_interval(value: float, error: float, skew: float, count: int) -> tuple[float, float]:
    """95% interval by equation 3; value -+ 1.96 error where there is no skew."""
    a = float(np.clip(skew / np.sqrt(count), -_MOST, _MOST))
    if abs(a) < 1e-6:
        return value - _Z * error, value + _Z * error
    low, high = (float(np.cbrt(1 + a * (z - a / 6)) - 1) * 3 / a for z in (-_Z, _Z))
    return value - high * error, value - low * error
