"""Exact scaling of features by powers of two, so that their squares fit float32.

Squares of float32 values overflow above 1e19 and underflow below 1e-19.
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["largest", "largest_exponent", "pair_exponent", "scaled"]

_LEAST, _MOST = -16, 16
"""Exponents of the largest feature within which nothing is scaled."""


def largest(rows: NDArray[np.floating]) -> float:
    """Largest magnitude among the values; 0 for an empty array."""
    return max(float(rows.max()), -float(rows.min())) if rows.size else 0.0


def largest_exponent(rows: NDArray[np.floating]) -> int:
    """Exponent e such that the largest magnitude is in [2^(e - 1), 2^e); 0 if all values are 0."""
    return math.frexp(largest(rows))[1]


def pair_exponent(first: float, second: float) -> int:
    """Exponent by which two sets with these largest magnitudes are scaled into range.

    It is 0 if both are well inside the range, and otherwise that of their geometric mean.
    """
    exponents = [math.frexp(size)[1] for size in (first, second) if size > 0]
    if all(_LEAST <= e <= _MOST for e in exponents):
        return 0
    return round(sum(exponents) / len(exponents))


def scaled(rows: NDArray[np.float32], exponent: int) -> NDArray[np.float32]:
    """Divides the rows by 2^exponent; returns the same array for exponent 0."""
    return np.ldexp(rows, -exponent) if exponent else rows
