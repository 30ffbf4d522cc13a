"""Ranks as ranges: entries that can't be told apart share their ranks.

All pairs of a column hold at once: of n equal entries, at most 5% of columns rank any pair apart.
Two are told apart if their difference is beyond z of its standard error, z the normal's quantile
at 0.025 / (n (n - 1) / 2) (Bonferroni over the pairs, as Mogstad, Romano, Shaikh and Wilhelm 2024
build simultaneous sets for ranks). An error with few degrees of freedom counts by Student's t
instead.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmbench.stats.intervals import t_quantile

__all__ = ["pairwise_z", "rank_ranges"]


def pairwise_z(entries: int) -> float:
    """Standard errors that set two of so many entries apart, all pairs at 95% together."""
    return t_quantile(math.inf, _tail(entries))


def rank_ranges(
    values: Sequence[float],
    errors: Sequence[float | None],
    *,
    higher_is_better: bool,
    degrees: Sequence[float] | None = None,
) -> list[tuple[int, int]]:
    """First and last possible rank (from 1) of each entry.

    Where one of two entries has no error, any difference tells them apart. Sorted once, so that
    10,000 entries take a moment.

    Args:
        values: The entries' scores.
        errors: Their standard errors; None where unknown.
        higher_is_better: Direction of the scores.
        degrees: Degrees of freedom of the errors; infinite by default.
    """
    v = np.asarray(values, np.float64) * (1 if higher_is_better else -1)
    e = np.array([np.nan if error is None else error for error in errors], np.float64)
    for i, free in enumerate(degrees or ()):
        if math.isfinite(free):
            e[i] *= t_quantile(free, _tail(len(v))) / pairwise_z(len(v))
    order = np.argsort(v, kind="stable")
    below, above = _beaten(v[order], e[order], pairwise_z(len(v)))
    found: list[tuple[int, int]] = [(0, 0)] * len(v)
    for place, index in enumerate(order):
        found[index] = (1 + int(above[place]), len(v) - int(below[place]))
    return found


def _tail(entries: int) -> float:
    return 0.025 / max(1.0, entries * (entries - 1) / 2)


def _beaten(
    v: NDArray[np.float64], e: NDArray[np.float64], z: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts the entries that lie below and above each of the rising `v` by more than the error.

    Far below, all count: only entries within reach of the largest error are compared.
    """
    largest = float(np.nanmax(e)) if np.isfinite(e).any() else 0.0
    # A hair more than the reach: what lies beyond is beaten whatever the rounding.
    reach = z * np.hypot(np.nan_to_num(e), largest) * (1 + 1e-9)
    first = np.searchsorted(v, v - reach, side="left")
    last = np.searchsorted(v, v, side="left")
    below = first.astype(np.int64)
    # Whoever has i entries surely below is above each of the first i.
    above = len(v) - np.searchsorted(np.sort(first), np.arange(len(v)), side="right")
    squares = e**2
    for i, (low, high) in enumerate(zip(first, last, strict=True)):
        needed = z * np.sqrt(squares[i] + squares[low:high])
        # Where an error is unknown, any gain counts: all here lie below.
        beaten = ~(v[i] - v[low:high] <= needed)
        below[i] += np.count_nonzero(beaten)
        above[low:high] += beaten
    return below, above
