"""The error of recall from the sampling of the generated images: a jackknife over groups.

A generated ball's radius depends on other generated rows, so that leaving rows out both removes
balls and widens their neighbours'. With m groups and T_(-g) the recall without group g, var = (m -
1) / m sum (T_(-g) - mean)^2. Only reference rows whose holders all lie in one group, or that have
none, can change: the others are not looked at again.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from cmbench.metrics._neighbours import Neighbours
from cmbench.metrics._occupancy import Holders

__all__ = ["recall_variance"]

_PARTS, _ROUNDS, _BLOCK = 4, 12, 512
Rows = NDArray[np.float32]


def recall_variance(
    generated: Rows, reference: Rows, near: Neighbours, held: Holders, k: int
) -> float:
    """Variance of the share of reference rows held by generated balls.

    Args:
        generated: (N, d).
        reference: (M, d).
        near: Nearest generated neighbours of each generated row, more than k of them.
        held: Which generated balls hold each reference row.
        k: Neighbour that a ball reaches to.
    """
    parts = min(_PARTS, len(generated))
    draw = np.random.Generator(np.random.Philox(key=len(generated)))
    shares = []
    for _ in range(_ROUNDS):
        group = draw.permutation(len(generated)) % parts
        shares.append(_shares(generated, reference, near, held, k, group))
    spread = np.concatenate(shares)
    return float((parts - 1) * ((spread - spread.mean()) ** 2).mean())


def _shares(
    generated: Rows,
    reference: Rows,
    near: Neighbours,
    held: Holders,
    k: int,
    group: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Recall without each group, (groups,)."""
    groups = int(group.max()) + 1
    radii = _radii(near, group, groups, k)
    uncertain = _uncertain(held, group)
    covered = np.full(groups, float(len(reference) - len(uncertain)))
    centre = reference.mean(axis=0)
    x, y = torch.from_numpy(generated - centre), torch.from_numpy(reference[uncertain] - centre)
    for start in range(0, len(y), _BLOCK):
        covered += _covered(x, y[start : start + _BLOCK], radii, group)
    return covered / len(reference)


def _radii(near: Neighbours, group: NDArray[np.int64], groups: int, k: int) -> Rows:
    """Squared radius of each ball without each group, (N, groups)."""
    member = group[near.index][:, :, None] == np.arange(groups)
    kept = np.cumsum(~member, axis=1, dtype=np.int8)
    reached = kept >= k
    # Where even the last neighbour known does not suffice, it stands for the next one.
    place = np.where(reached.any(axis=1), reached.argmax(axis=1), near.index.shape[1] - 1)
    return np.take_along_axis(near.squared, place, axis=1).astype(np.float32)


def _uncertain(held: Holders, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Reference rows that no two groups hold."""
    low, high = np.full(len(held.counts), len(group)), np.full(len(held.counts), -1)
    np.minimum.at(low, held.boxes, group[held.rows])
    np.maximum.at(high, held.boxes, group[held.rows])
    return np.flatnonzero((held.counts == 0) | ((low == high) & (high >= 0)))


def _covered(
    x: torch.Tensor, y: torch.Tensor, radii: Rows, group: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Rows of `y` that are held without each group, (groups,)."""
    squared = torch.addmm((y * y).sum(1)[None, :], x, y.T, alpha=-2)
    squared += (x * x).sum(1)[:, None]
    distance = squared.numpy()
    balls, rows = np.nonzero(distance <= radii.max(axis=1)[:, None])
    groups = radii.shape[1]
    inside = distance[balls, rows][:, None] <= radii[balls]
    inside &= group[balls][:, None] != np.arange(groups)
    pairs, without = np.nonzero(inside)
    reached = np.zeros((len(y), groups), bool)
    reached[rows[pairs], without] = True
    return reached.sum(axis=0).astype(np.float64)
