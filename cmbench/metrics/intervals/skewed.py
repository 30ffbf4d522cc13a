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
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROWS", "skewed_interval", "skewness"]

ROWS = 4096
"""Most rows that a second-order term is estimated from: its part in an interval is 1 / n."""

_Z = 1.96
_MOST = 0.8
"""Largest skewness / sqrt n that is believed."""


def skewness(terms: NDArray[np.float64], second: float) -> float:
    """Of the terms of a mean with the same shift.

    Args:
        terms: First-order terms, (N,), mean 0.
        second: Mean of psi(x) psi(x') phi(x, x').
    """
    spread = float(terms.std())
    if spread == 0:
        return 0.0
    third = float((terms**3).mean())
    return (third + second * 3 * (_Z**2 + 1) / (2 * _Z**2 + 1)) / spread**3


def skewed_interval(value: float, error: float, skew: float, count: int) -> tuple[float, float]:
    """The 95% interval by Hall's transformation; value -+ 1.96 error where there is no skew."""
    a = float(np.clip(skew / np.sqrt(count), -_MOST, _MOST))
    if abs(a) < 1e-6:
        return value - _Z * error, value + _Z * error
    low, high = (float(np.cbrt(1 + a * (z - a / 6)) - 1) * 3 / a for z in (-_Z, _Z))
    return value - high * error, value - low * error
