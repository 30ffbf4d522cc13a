"""The variance of a statistic that is no mean of terms, from what single rows do to it.

D(x; X) is n times the change of the statistic T when row x joins the set X. With two sets that
share a fraction t of their rows, C(t) = Cov(D(x; X), D(x; X')) over x; Hoeffding's components V_r
of T give C(t) = n sum r V_r t^(r - 1), so that n var T is the integral of C from 0 to 1. Leaving
out one row at a time (Efron and Stein, 1981) takes C(1) for all of it and so holds the component
of order r r times: too wide by up to a half where there are not many more rows than dimensions.
Here it is (C(0) + C(1)) / 2, exact up to order 2.

C(1) comes from the rows left out. C(0) / C(1), how far two disjoint sets agree about a row, can't
be had from n rows at n. It is taken from halves. Up to as many rows as dimensions it falls with
the count, and is drawn on by a line in the logarithm of the count, through quarters; from there it
rises slowly. By simulation (`benchmarks/coverage.py`) the deviation is within a tenth.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fit", "shared_variance"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_LEAST = 16


class Fit(Protocol):
    """The statistic of some of the rows."""

    def left(self) -> Array:
        """What each of its own rows does to it, in their order; up to a constant."""

    def joined(self, index: Index) -> Array:
        """What other rows would do to it; up to a constant."""


def shared_variance(terms: Array, fit: Callable[[Index], Fit], *, width: int) -> float:
    """Variance of a statistic of n rows.

    Args:
        terms: What each row does to it, (N,): n - 1 times its change when the row is left out.
        fit: The statistic of the rows at an index, half or a quarter of them.
        width: Dimensions of a row.
    """
    count = len(terms)
    linear = float(terms.var(ddof=1) / count)
    if count < _LEAST or linear == 0:
        return linear
    agreement = _agreement(count, 2, fit)
    if count <= width:
        agreement += agreement - _agreement(count, 4, fit)
    return linear * (1 + float(np.clip(agreement, 0, 1))) / 2


def _agreement(count: int, parts: int, fit: Callable[[Index], Fit]) -> float:
    """Correlation of what a row does to its own part and to another one."""
    index = [np.arange(part, count, parts) for part in range(parts)]
    fits = [fit(rows) for rows in index]
    product = own = other = 0.0
    for place, rows in enumerate(index):
        a, b = fits[place].left(), fits[(place + 1) % parts].joined(rows)
        a, b = a - a.mean(), b - b.mean()
        product, own, other = product + a @ b, own + a @ a, other + b @ b
    return float(product / np.sqrt(own * other)) if own > 0 and other > 0 else 0.0
