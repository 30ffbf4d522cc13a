"""Jackknife variance of a nonlinear statistic, with the second-order excess removed.

D(x; X) is n times the change of the statistic T when row x is added to the set X, and C(t) the
covariance over x of D(x; X) and D(x; X') for two sets X, X' of n rows that share a fraction t of
them. With Hoeffding's components V_r of T,

    C(t) = n sum_r r V_r t^(r - 1)                                                              (1)
    n var T = int_0^1 C(t) dt                                                                   (2)

The leave-one-out jackknife (Efron and Stein, 1981) takes C(1) for the integral, and so counts the
component of order r r times: intervals are too wide by up to a half unless there are many more
rows than dimensions. The trapezium rule is exact up to order 2:

    n var T = (C(0) + C(1)) / 2                                                                 (3)

C(1) is the variance of the leave-one-out terms. C(0) / C(1), the correlation of a row's influence
on two disjoint sets, can't be measured at n on n rows, so it is measured on halves. Up to as many
rows as dimensions it falls with n, and is extrapolated linearly in log n from quarters and halves;
beyond, it rises slowly. In simulations (`benchmarks/coverage.py`) the standard error is within a
tenth.
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
    """A statistic fitted to some of the rows."""

    def leave_one_out(self) -> Array:
        """Returns the influence of each fitted row, in their order, up to a constant."""

    def add_one(self, index: Index) -> Array:
        """Returns the influence that other rows would have if added, up to a constant."""


def shared_variance(terms: Array, fit: Callable[[Index], Fit], *, width: int) -> float:
    """Variance of a statistic of n rows, by equation 3.

    Args:
        terms: Leave-one-out influence of each row, (n,).
        fit: Fits the statistic to the rows at an index, a half or a quarter of them.
        width: Number of dimensions of a row.
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
    """C(0) / C(1): correlation of a row's influence on its own part and on another one."""
    index = [np.arange(part, count, parts) for part in range(parts)]
    fits = [fit(rows) for rows in index]
    product = own = other = 0.0
    for place, rows in enumerate(index):
        a, b = fits[place].leave_one_out(), fits[(place + 1) % parts].add_one(rows)
        a, b = a - a.mean(), b - b.mean()
        product, own, other = product + a @ b, own + a @ a, other + b @ b
    return float(product / np.sqrt(own * other)) if own > 0 and other > 0 else 0.0
