"""Intervals of scores whose draws are skew, or whose error moves with their value.

A statistic with first-order terms psi(x) (standard deviation s) and second-order terms phi(x, x')
of each sample, divided by its estimated error, has in the first order of 1 / sqrt(n) the skewness
of a studentised U-statistic (Helmers, 1991, https://doi.org/10.1214/aos/1176347993; Callaert and
Veraverbeke, 1981): at the normal quantile z the interval moves by error / (6 sqrt n) times

    (2 z^2 + 1) E psi^3 / s^3 + 3 (z^2 + 1) E psi(x) psi(x') phi(x, x') / s^3.

That is the shift of a mean whose terms have the skewness `skewness(terms, second)`; its interval
is made by the cubic transformation of Hall (1992), which is monotone where the plain correction is
not. Without it, a set that happens to lack the rare images that make a score large has both a low
value and a small error: all misses lie on one side (`benchmarks/coverage.py`).

Where a few images hold most of the variance, no expansion in 1 / sqrt(n) holds. Their number is
taken to be (sum psi^2)^2 / sum psi^4, the size of a set of equal terms with that ratio; below 40
of them, and n / 8, the interval is widened, up to three times where one image holds everything,
and the number is stated. A set without any of the rare images can't tell that there are some.
"""

import numpy as np
from numpy.typing import NDArray

from cmbench.metrics._range import largest_exponent

__all__ = ["ROWS", "effective_count", "skewed_interval", "skewness", "tailed_interval"]

ROWS = 4096
"""Most rows that a second-order term is estimated from: its part in an interval is 1 / n."""

_Z = 1.96
_MOST = 0.8
"""Largest skewness / sqrt n that is believed."""
_FEW, _SHARE = 40, 8
"""Terms that the variance must rest on, at most and as a share 1 / 8 of all."""
_WIDER = 2.0
"""Of its own length that one end moves where one term holds all variance."""


def skewness(terms: NDArray[np.float64], second: float) -> float:
    """Of the terms of a mean with the same shift.

    Args:
        terms: First-order terms, (N,), mean 0.
        second: Mean of psi(x) psi(x') phi(x, x').
    """
    # By a power of two, which no digit sees: cubes of large terms overflow.
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
    """`skewed_interval`, widened where a few terms hold most of the variance.

    Args:
        value: The statistic.
        error: Its standard error.
        terms: First-order terms, (N,), mean 0.
        second: Mean of psi(x) psi(x') phi(x, x').
        both_ways: Whether rare images may lower the score as well as raise it.

    Returns:
        The interval, and `effective_images` where it was widened.
    """
    count = len(terms)
    low, high = skewed_interval(value, error, skewness(terms, second), count)
    few, enough = effective_count(terms), min(_FEW, count / _SHARE)
    if few >= enough:
        return (low, high), {}
    wider = _WIDER * (1 - few / enough)
    # The images that a set may lack pull the way that those pull which it has, or upwards.
    if both_ways or float((terms**3).sum()) < 0:
        low -= wider * (value - low)
    return (low, high + wider * (high - value)), {"effective_images": few}


def effective_count(terms: NDArray[np.float64]) -> float:
    """How many terms the variance rests on: (sum psi^2)^2 / sum psi^4, from 1 to N."""
    squares = np.ldexp(terms, -largest_exponent(terms)) ** 2
    total = float(squares.sum())
    return total**2 / float((squares**2).sum()) if total else float(len(terms))


def skewed_interval(value: float, error: float, skew: float, count: int) -> tuple[float, float]:
    """The 95% interval by Hall's transformation; value -+ 1.96 error where there is no skew."""
    a = float(np.clip(skew / np.sqrt(count), -_MOST, _MOST))
    if abs(a) < 1e-6:
        return value - _Z * error, value + _Z * error
    low, high = (float(np.cbrt(1 + a * (z - a / 6)) - 1) * 3 / a for z in (-_Z, _Z))
    return value - high * error, value - low * error
