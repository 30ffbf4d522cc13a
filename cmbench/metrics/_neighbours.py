"""Nearest neighbours and balls around them, in blocks: exact decisions from float32 products.

Squared distances come from |x|^2 + |y|^2 - 2 x.y of rows centred on the reference; whatever lies
within rounding of a decision (a neighbour's rank, a ball's rim) is computed again in float64 from
differences. So duplicates are at 0 exactly, and counts don't depend on the block's size. Each
block pair of a symmetric matrix is multiplied once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmbench.metrics._base import Features
from cmbench.metrics._occupancy import Holders, HoldersSum

__all__ = ["Balls", "Neighbours", "balls_of", "nearest", "neighbours_of", "radii_of"]

_BLOCK = 2048
_SPARE = 4
_ROUNDING = 1e-5
"""Bound on the error of a squared distance, relative to the two squared norms."""


@dataclass(frozen=True)
class Neighbours:
    """Nearest other rows: `index` and `squared` distance, (N, k + a few), in their order."""

    index: NDArray[np.int64]
    squared: NDArray[np.float64]


@dataclass(frozen=True)
class Balls:
    """How two sets lie in each other's balls.

    Args:
        held_by: For each generated row, the number of reference balls that hold it, (N,).
        holds: Which generated rows each reference row's own ball holds.
        held: Which generated rows' balls hold each reference row; None without their radii.
    """

    held_by: NDArray[np.int64]
    holds: Holders
    held: Holders | None


def nearest_others(rows: NDArray[np.float32], k: int) -> Neighbours:
    """The k and a few more nearest other rows of each row; N must exceed k."""
    _, near = _symmetric_nearest(torch.from_numpy(rows - rows.mean(axis=0)), k + _SPARE)
    exact = _exact(rows, rows, np.arange(len(rows))[:, None], near)
    order = np.argsort(exact, axis=1, kind="stable")
    return Neighbours(np.take_along_axis(near, order, 1), np.take_along_axis(exact, order, 1))


def neighbours_of(features: Features, rows: NDArray[np.float32], layer: str, k: int) -> Neighbours:
    """`nearest_others`, kept in the features' cache."""
    key = f"neighbours/{layer}/{k}"
    kept = features.cache.get(key)
    if not isinstance(kept, Neighbours):
        kept = features.cache[key] = nearest_others(rows, k)
    return kept


def radii_of(
    features: Features, rows: NDArray[np.float32], layer: str, k: int
) -> NDArray[np.float64]:
    """Squared distance (N,) of each row to its k-th nearest other row."""
    radii: NDArray[np.float64] = neighbours_of(features, rows, layer, k).squared[:, k - 1]
    return radii


def balls_of(
    generated: NDArray[np.float32],
    reference: NDArray[np.float32],
    *,
    reference_radii: NDArray[np.float64],
    generated_radii: NDArray[np.float64] | None = None,
    strict: bool = False,
) -> Balls:
    """One pass over all pairs. A row on the rim is inside, unless `strict`."""
    centre = reference.mean(axis=0)
    x, y = torch.from_numpy(generated - centre), torch.from_numpy(reference - centre)
    held_by = np.zeros(len(x), np.int64)
    holds, held = HoldersSum(len(x), len(y)), HoldersSum(len(x), len(y))
    for i in range(0, len(x), _BLOCK):
        for j in range(0, len(y), _BLOCK):
            squared = _squared(x[i : i + _BLOCK], y[j : j + _BLOCK]).numpy()
            tolerance = _tolerance(x[i : i + _BLOCK], y[j : j + _BLOCK])
            a, b = generated[i : i + _BLOCK], reference[j : j + _BLOCK]
            inside = _within(
                squared, reference_radii[None, j : j + _BLOCK], tolerance, a, b, strict
            )
            held_by[i : i + _BLOCK] += inside.sum(axis=1)
            holds.add(inside, i, j)
            if generated_radii is not None:
                rims = generated_radii[i : i + _BLOCK, None]
                held.add(_within(squared, rims, tolerance, a, b, strict), i, j)
    return Balls(held_by, holds.holders(), held.holders() if generated_radii is not None else None)


def nearest(
    queries: NDArray[np.float32], base: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Squared distance to and index of each query's nearest base row, both (N,)."""
    centre = base.mean(axis=0)
    x, y = torch.from_numpy(queries - centre), torch.from_numpy(base - centre)
    width = min(1 + _SPARE, len(base))
    found = torch.cat(
        [
            _squared(x[i : i + 512], y).topk(width, largest=False).indices
            for i in range(0, len(x), 512)
        ]
    ).numpy()
    exact = _exact(queries, base, np.arange(len(queries))[:, None], found)
    best = exact.argmin(axis=1)
    lines = np.arange(len(queries))
    return exact[lines, best], found[lines, best]


def _symmetric_nearest(x: Tensor, k: int) -> tuple[Tensor, NDArray[np.int64]]:
    count = len(x)
    k = min(k, count - 1)
    best = x.new_full((count, k), float("inf"))
    index = torch.zeros((count, k), dtype=torch.int64)
    for i in range(0, count, _BLOCK):
        for j in range(i, count, _BLOCK):
            block = _squared(x[i : i + _BLOCK], x[j : j + _BLOCK])
            if i == j:
                block.fill_diagonal_(float("inf"))
            else:
                _merge(best, index, j, block.T, i)
            _merge(best, index, i, block, j)
    return best, index.numpy()


def _merge(best: Tensor, index: Tensor, row: int, block: Tensor, column: int) -> None:
    lines = slice(row, row + len(block))
    k = best.shape[1]
    values, places = block.topk(min(k, block.shape[1]), largest=False)
    joined = torch.cat([best[lines], values], 1)
    named = torch.cat([index[lines], places + column], 1)
    best[lines], order = joined.topk(k, largest=False)
    index[lines] = named.gather(1, order)


def _squared(x: Tensor, y: Tensor) -> Tensor:
    norms = (y * y).sum(1)[None, :]
    return torch.addmm(norms, x, y.T, alpha=-2).add_((x * x).sum(1)[:, None])


def _tolerance(x: Tensor, y: Tensor) -> float:
    return _ROUNDING * float((x * x).sum(1).max() + (y * y).sum(1).max())


def _within(
    squared: NDArray[np.float32],
    rims: NDArray[np.float64],
    tolerance: float,
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    strict: bool,
) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = squared < rims
    rows, columns = np.nonzero(np.abs(squared - rims) <= tolerance)
    rim = np.broadcast_to(rims, squared.shape)
    for start in range(0, len(rows), 1 << 14):
        i, j = rows[start : start + (1 << 14)], columns[start : start + (1 << 14)]
        gap = a[i].astype(np.float64) - b[j]
        exact = np.einsum("ij,ij->i", gap, gap)
        inside[i, j] = exact < rim[i, j] if strict else exact <= rim[i, j]
    return inside


def _exact(
    a: NDArray[np.float32], b: NDArray[np.float32], i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float64]:
    result = np.empty(j.shape)
    for start in range(0, len(j), 1024):
        lines = slice(start, start + 1024)
        gap = a[i[lines]].astype(np.float64) - b[j[lines]]
        result[lines] = np.einsum("ijk,ijk->ij", gap, gap)
    return result
