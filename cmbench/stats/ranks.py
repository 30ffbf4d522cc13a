"""Ranks as ranges: entries that can't be told apart share their ranks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["rank_ranges"]

_Z = 1.96


def rank_ranges(
    values: Sequence[float], errors: Sequence[float | None], *, higher_is_better: bool
) -> list[tuple[int, int]]:
    """First and last possible rank (from 1) of each entry.

    One is better than another if their difference is above 1.96 of its standard error; where one
    of the two has no error, if it is above 0. Sorted once, so that 10,000 entries take a moment.

    Args:
        values: The entries' scores.
        errors: Their standard errors; None where unknown.
        higher_is_better: Direction of the scores.
    """
    v = np.asarray(values, np.float64) * (1 if higher_is_better else -1)
    e = np.array([np.nan if error is None else error for error in errors], np.float64)
    order = np.argsort(v, kind="stable")
    below, above = _beaten(v[order], e[order])
    found: list[tuple[int, int]] = [(0, 0)] * len(v)
    for place, index in enumerate(order):
        found[index] = (1 + int(above[place]), len(v) - int(below[place]))
    return found


def _beaten(
    v: NDArray[np.float64], e: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many others each entry, in rising order, lies above and below beyond the error.

    Far below all are beaten: only entries within reach of the largest error are compared.
    """
    largest = float(np.nanmax(e)) if np.isfinite(e).any() else 0.0
    # A hair more than the reach: what lies beyond is beaten whatever the rounding.
    reach = _Z * np.hypot(np.nan_to_num(e), largest) * (1 + 1e-9)
    first = np.searchsorted(v, v - reach, side="left")
    last = np.searchsorted(v, v, side="left")
    below = first.astype(np.int64)
    # Whoever has i entries surely below is above each of the first i.
    above = len(v) - np.searchsorted(np.sort(first), np.arange(len(v)), side="right")
    squares = e**2
    for i, (low, high) in enumerate(zip(first, last, strict=True)):
        needed = _Z * np.sqrt(squares[i] + squares[low:high])
        # Where an error is unknown, any gain counts: all here lie below.
        beaten = ~(v[i] - v[low:high] <= needed)
        below[i] += np.count_nonzero(beaten)
        above[low:high] += beaten
    return below, above
