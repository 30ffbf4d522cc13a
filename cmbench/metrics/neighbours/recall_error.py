"""The error of recall from the sampling of the generated images, by leaving groups of them out.

The radius of a generated ball depends on other generated rows, so leaving rows out both removes
balls and widens their neighbours'. With m random groups and T_(-g) the recall without group g,

    var = (m - 1) mean_g (T_(-g) - mean T_(-g))^2                                               (1)

where the mean runs over several random partitions. Quarters are left out: with single rows the
estimate is a third too wide, with halves a fifth too narrow (by simulation,
`benchmarks/coverage.py`). Reference rows that four or more balls hold count as always held.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from cmbench.metrics.neighbours.occupancy import KEPT, Holders
from cmbench.metrics.neighbours.search import Neighbours, Pairs

__all__ = ["near_pairs", "recall_variance"]

_PARTS, _ROUNDS, _BLOCK = 4, 12, 512
Rows = NDArray[np.float32]


def recall_variance(pairs: Pairs, near: Neighbours, holders: Holders, k: int) -> float:
    """Variance of recall, by equation 1.

    Args:
        pairs: Generated and reference rows close enough that the one's ball might hold the other
            once other rows are left out.
        near: Nearest generated neighbours of each generated row, more than k of them.
        holders: Which generated balls hold each reference row.
        k: The neighbour that a ball reaches to.
    """
    count = len(near.index)
    parts = min(_PARTS, count)
    draw = np.random.Generator(np.random.Philox(key=count))
    shares = []
    for _ in range(_ROUNDS):
        group = draw.permutation(count) % parts
        shares.append(_shares(pairs, near, holders, k, group) / len(holders.counts))
    spread = np.concatenate(shares)
    return float((parts - 1) * ((spread - spread.mean()) ** 2).mean())  # Equation 1.


def near_pairs(generated: Rows, reference: Rows, near: Neighbours, holders: Holders) -> Pairs:
    """Finds the pairs that recall's error needs when `balls_of` was not used (float16)."""
    few = np.flatnonzero(holders.counts <= KEPT)
    centre = reference.mean(axis=0)
    x, y = torch.from_numpy(generated - centre), torch.from_numpy(reference[few] - centre)
    own, widest = (x * x).sum(1)[:, None], near.squared[:, -1:].astype(np.float32)
    balls, rows, squared = [], [], []
    for start in range(0, len(y), _BLOCK):
        block = y[start : start + _BLOCK]
        gaps = torch.addmm((block * block).sum(1)[None, :], x, block.T, alpha=-2)
        distance = gaps.add_(own).numpy()
        i, j = np.nonzero(distance <= widest)
        balls.append(i)
        rows.append(few[start + j])
        squared.append(distance[i, j])
    if not balls:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    return Pairs(np.concatenate(balls), np.concatenate(rows), np.concatenate(squared))


def _shares(
    pairs: Pairs, near: Neighbours, holders: Holders, k: int, group: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Number of reference rows held without each group, (groups,)."""
    groups = int(group.max()) + 1
    radii = _radii(near, group, groups, k)
    inside = pairs.squared[:, None] <= radii[pairs.first]
    inside &= group[pairs.first][:, None] != np.arange(groups)
    which, without = np.nonzero(inside)
    # Rows in more balls than are tracked stay held, whichever group is left out.
    reached = np.repeat((holders.counts > KEPT)[:, None], groups, axis=1)
    reached[pairs.second[which], without] = True
    return reached.sum(axis=0).astype(np.float64)


def _radii(near: Neighbours, group: NDArray[np.int64], groups: int, k: int) -> Rows:
    """Squared radius of each ball without each group, (N, groups)."""
    member = group[near.index][:, :, None] == np.arange(groups)
    kept = np.cumsum(~member, axis=1, dtype=np.int8)
    reached = kept >= k
    # Where too few known neighbours remain, the last of them stands for the next one.
    place = np.where(reached.any(axis=1), reached.argmax(axis=1), near.index.shape[1] - 1)
    return np.take_along_axis(near.squared, place, axis=1).astype(np.float32)
