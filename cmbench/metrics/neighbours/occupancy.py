"""Error of the share of reference images that generated images reach, the reference held fixed.

Each of M boxes is the neighbourhood of a reference image. The share is

    T = 1 / M #{boxes that contain a generated row}                                             (1)

The boxes are fixed and the rows are drawn, so T is not a binomial share of M probes. With S_r the
sum over sets I of r rows of (number of boxes that contain exactly I)^2 / M^2, the variance for a
Poisson number of rows is (Efron and Stein, 1981, for this statistic)

    S_1 - S_2 + S_3 - ...                                                                       (2)

and Euler's transform of its first four terms,

    (15 S_1 - 11 S_2 + 5 S_3 - S_4) / 16                                                        (3)

is within 5% of it for Poisson counts of any mean up to 4. Since n is fixed, n (mean difference)^2
is subtracted: with B_1 boxes that contain exactly one row,

    B_1^2 / (n M^2)                                                                             (4)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbench.metrics.base import Score
from cmbench.metrics.intervals.wilson import share_score

__all__ = ["KEPT", "Holders", "HoldersSum", "reached_score"]

KEPT = 3
"""Fullest box whose rows are kept by index, for recall."""
_TERMS = 4
"""Number of terms of the series, and so the fullest box that it needs."""


@dataclass(frozen=True)
class Holders:
    """Membership of rows in boxes, for boxes that contain only a few.

    Args:
        counts: Number of rows in each box, (M,).
        rows: Row of each stored pair, (P,).
        boxes: Box of each stored pair, (P,).
        rows_in_all: Number of rows, n.
    """

    counts: NDArray[np.int64]
    rows: NDArray[np.int64]
    boxes: NDArray[np.int64]
    rows_in_all: int

    def variance(self) -> float:
        """Variance of the share of boxes that contain a row, by equations 3 and 4."""
        sums, single = [], 0
        for size in range(1, _TERMS + 1):
            pairs = self.counts[self.boxes] == size
            order = np.lexsort((self.rows[pairs], self.boxes[pairs]))
            sets = self.rows[pairs][order].reshape(-1, size)
            _, multiplicity = np.unique(sets, axis=0, return_counts=True)
            sums.append(float((multiplicity.astype(np.float64) ** 2).sum()))
            single = len(sets) if size == 1 else single
        first = sums[0] - single**2 / self.rows_in_all  # S_1 less equation 4, times M^2.
        spread = first + (-sums[0] - 11 * sums[1] + 5 * sums[2] - sums[3]) / 16
        return max(spread, first / 4, 0.0) / len(self.counts) ** 2


class HoldersSum:
    """Collects pairs of a row and a box, block by block, and drops those of fuller boxes.

    Args:
        rows: Number of rows.
        boxes: Number of boxes.
        kept: Fullest box whose pairs are kept.
    """

    def __init__(self, rows: int, boxes: int, *, kept: int = _TERMS) -> None:
        self.kept = kept
        self.total, self.counts = rows, np.zeros(boxes, np.int64)
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def add(self, inside: NDArray[np.bool_], first_row: int, first_box: int) -> None:
        """Adds a boolean block, inside[row, box]."""
        lines = slice(first_box, first_box + inside.shape[1])
        self.counts[lines] += inside.sum(axis=0)
        few = np.flatnonzero(self.counts[lines] <= self.kept)
        rows, boxes = np.nonzero(inside[:, few])
        self._parts.append((rows + first_row, few[boxes] + first_box))

    def add_pairs(self, rows: NDArray[np.int64], boxes: NDArray[np.int64]) -> None:
        """Adds pairs of a row and a box that contains it; each pair must be added once."""
        self.counts += np.bincount(boxes, minlength=len(self.counts))
        few = self.counts[boxes] <= self.kept
        self._parts.append((rows[few], boxes[few]))

    def holders(self) -> Holders:
        """Returns the pairs of all blocks."""
        rows, boxes = (np.concatenate([part[i] for part in self._parts]) for i in (0, 1))
        kept = self.counts[boxes] <= self.kept
        return Holders(self.counts, rows[kept], boxes[kept], self.total)


def reached_score(
    holders: Holders, variance: float, *, count: int, details: dict[str, float]
) -> Score:
    """Returns the share of boxes that contain a row; Wilson's interval if the variance is 0."""
    hits, boxes = int((holders.counts > 0).sum()), len(holders.counts)
    share = share_score(hits, boxes, count=count, details=details)
    error = float(np.sqrt(variance))
    if error == 0:
        return share
    low, high = share.value - 1.96 * error, share.value + 1.96 * error
    return Score(share.value, error, (max(low, 0.0), min(high, 1.0)), count, details)
