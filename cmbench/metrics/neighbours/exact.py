"""Distances from differences in float64, and searches by them where float32 hides an order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import distance

__all__ = ["exact_squared", "in_order", "search_again", "uncertain_rows"]

_AT_ONCE = 64
"""Pairs or rows at a time: they stay in the cache."""


def exact_squared(
    a: NDArray[np.float32], b: NDArray[np.float32], i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Squared distances of the pairs (P,), from differences in float64."""
    result = np.empty(len(j))
    for start in range(0, len(j), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        gap = a[i[some]].astype(np.float64) - b[j[some]]
        result[some] = np.einsum("ij,ij->i", gap, gap)
    return result


def in_order(
    near: NDArray[np.int64], squared: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Both (N, k) by rising distance, those of equal distance as they stand."""
    order = np.argsort(squared, axis=1, kind="stable")
    return np.take_along_axis(near, order, 1), np.take_along_axis(squared, order, 1)


def uncertain_rows(
    rims: NDArray[np.float64], single: NDArray[np.float32], slack: NDArray[Any], others: int
) -> NDArray[np.int64]:
    """Rows whose k-th neighbour may lie among those that were not candidates: rounding hides it.

    Args:
        rims: Exact squared distance to the k-th of the candidates, (N,).
        single: The candidates' distances in float32, nearest first.
        slack: Bound on their rounding, (N,).
        others: Rows that there are to be found.
    """
    if single.shape[1] >= others:
        return np.zeros(0, np.int64)
    return np.flatnonzero((rims > 0) & (rims > single[:, -1] - slack))


def search_again(
    queries: NDArray[np.float32],
    base: NDArray[np.float32],
    lines: NDArray[np.int64],
    near: NDArray[np.int64],
    squared: NDArray[np.float64],
    k: int,
    *,
    itself: bool = False,
) -> None:
    """Replaces the neighbours of those lines whose k-th is nearer by differences in float64."""
    width, wide = near.shape[1], base.astype(np.float64) if len(lines) else base
    for start in range(0, len(lines), _AT_ONCE):
        some = lines[start : start + _AT_ONCE]
        gaps = distance.cdist(queries[some].astype(np.float64), wide, "sqeuclidean")
        if itself:
            gaps[np.arange(len(some)), some] = np.inf
        found = np.argpartition(gaps, width - 1, axis=1)[:, :width]
        exact = exact_squared(queries, base, some.repeat(width), found.ravel())
        found, exact = in_order(found, exact.reshape(found.shape))
        nearer = exact[:, k - 1] < squared[some, k - 1]
        near[some[nearer]], squared[some[nearer]] = found[nearer], exact[nearer]
