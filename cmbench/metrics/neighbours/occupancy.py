"""The error of a share of reference rows that generated rows reach, the reference held fixed.

T = (1 / M) #{boxes with a generated row in them}: the boxes stand still, the rows are drawn, so T
is no binomial share of M probes. Poisson's variance is S1 - S2 + S3 - ..., S_r the sum over sets I
of r rows of (boxes that hold exactly I)^2 / M^2 (Efron and Stein, 1981, for this statistic). Four
terms by Euler's transform, (15 S1 - 11 S2 + 5 S3 - S4) / 16, are within 5% of it for Poisson's
counts of any mean up to 4; less n (mean difference)^2, since n is fixed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbench.metrics.base import Score
from cmbench.metrics.intervals.wilson import share_score

__all__ = ["KEPT", "Holders", "HoldersSum", "reached_score"]

KEPT = 3
"""Holders of a box that are kept by name, for recall."""
_TERMS = 4
"""The same for the series."""


@dataclass(frozen=True)
class Holders:
    """Which rows are in which box, for the boxes that hold at most a few.

    Args:
        counts: Rows in each box, (M,).
        rows: Row of each pair kept.
        boxes: Box of each pair kept.
        rows_in_all: Number of rows, n.
    """

    counts: NDArray[np.int64]
    rows: NDArray[np.int64]
    boxes: NDArray[np.int64]
    rows_in_all: int

    def variance(self) -> float:
        """Of the share of boxes that hold a row; from all boxes of up to four."""
        sums, single = [], 0
        for size in range(1, _TERMS + 1):
            pairs = self.counts[self.boxes] == size
            order = np.lexsort((self.rows[pairs], self.boxes[pairs]))
            sets = self.rows[pairs][order].reshape(-1, size)
            _, multiplicity = np.unique(sets, axis=0, return_counts=True)
            sums.append(float((multiplicity.astype(np.float64) ** 2).sum()))
            single = len(sets) if size == 1 else single
        first = sums[0] - single**2 / self.rows_in_all
        spread = first + (-sums[0] - 11 * sums[1] + 5 * sums[2] - sums[3]) / 16
        return max(spread, first / 4, 0.0) / len(self.counts) ** 2


class HoldersSum:
    """Collects pairs a block at a time; pairs of boxes that turn out fuller are dropped.

    Args:
        rows: Number of rows.
        boxes: Number of boxes.
        kept: Rows of a box up to which they are kept.
    """

    def __init__(self, rows: int, boxes: int, *, kept: int = _TERMS) -> None:
        self.kept = kept
        self.total, self.counts = rows, np.zeros(boxes, np.int64)
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def add(self, inside: NDArray[np.bool_], first_row: int, first_box: int) -> None:
        """A block (rows, boxes) of who is in what."""
        lines = slice(first_box, first_box + inside.shape[1])
        self.counts[lines] += inside.sum(axis=0)
        few = np.flatnonzero(self.counts[lines] <= self.kept)
        rows, boxes = np.nonzero(inside[:, few])
        self._parts.append((rows + first_row, few[boxes] + first_box))

    def add_pairs(self, rows: NDArray[np.int64], boxes: NDArray[np.int64]) -> None:
        """Pairs of a row and a box that holds it; each pair once."""
        self.counts += np.bincount(boxes, minlength=len(self.counts))
        few = self.counts[boxes] <= self.kept
        self._parts.append((rows[few], boxes[few]))

    def holders(self) -> Holders:
        """Of all blocks."""
        rows, boxes = (np.concatenate([part[i] for part in self._parts]) for i in (0, 1))
        kept = self.counts[boxes] <= self.kept
        return Holders(self.counts, rows[kept], boxes[kept], self.total)


def reached_score(
    held: Holders, variance: float, *, count: int, details: dict[str, float]
) -> Score:
    """The share of boxes that hold a row; Wilson's interval where the variance comes out as 0."""
    hits, boxes = int((held.counts > 0).sum()), len(held.counts)
    share = share_score(hits, boxes, count=count, details=details)
    error = float(np.sqrt(variance))
    if error == 0:
        return share
    low, high = share.value - 1.96 * error, share.value + 1.96 * error
    return Score(share.value, error, (max(low, 0.0), min(high, 1.0)), count, details)
