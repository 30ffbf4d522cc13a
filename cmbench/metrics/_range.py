"""Features of any size: scaled by powers of two, which no digit of a float sees.

Squares of float32 features leave float32's range from 1e19 up and below 1e-19.
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["largest", "largest_exponent", "pair_exponent", "scaled"]

_LEAST, _MOST = -16, 16
"""Exponents of the largest feature between which nothing is scaled."""


def largest(rows: NDArray[np.floating]) -> float:
    """The largest magnitude among the values, 0 of none."""
    return max(float(rows.max()), -float(rows.min())) if rows.size else 0.0


def largest_exponent(rows: NDArray[np.floating]) -> int:
    """Exponent e with the largest magnitude in [2^(e - 1), 2^e); 0 where all values are 0."""
    return math.frexp(largest(rows))[1]


def pair_exponent(first: float, second: float) -> int:
    """The power of two that brings two sets of those largest magnitudes into range.

    0 where both lie well inside it; otherwise that of their geometric mean.
    """
    exponents = [math.frexp(size)[1] for size in (first, second) if size > 0]
    if all(_LEAST <= e <= _MOST for e in exponents):
        return 0
    return round(sum(exponents) / len(exponents))


def scaled(rows: NDArray[np.float32], exponent: int) -> NDArray[np.float32]:
    """The rows over 2^exponent; themselves at 0."""
    return np.ldexp(rows, -exponent) if exponent else rows
