"""Nearest neighbours and balls around them, in blocks: exact decisions from float32 products.

Squared distances come from |x|^2 + |y|^2 - 2 x.y of rows centred on the reference; whatever lies
within rounding of a decision (a neighbour's rank, a ball's rim) is computed again in float64 from
differences. So duplicates are at distance 0 exactly, and counts don't depend on the block size.
Each pair of blocks of a symmetric matrix is multiplied once. A block is scanned once, against the
widest rim: only the few pairs below it are handled one by one.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmbench.metrics._range import largest, pair_exponent, scaled
from cmbench.metrics.base import Features
from cmbench.metrics.neighbours.exact import (
    exact_squared,
    in_order,
    search_again,
    uncertain_rows,
)
from cmbench.metrics.neighbours.occupancy import KEPT, Holders, HoldersSum

__all__ = [
    "Balls",
    "Neighbours",
    "Pairs",
    "balls_of",
    "in_range",
    "nearest",
    "neighbours_of",
    "radii_of",
]

_BLOCK = 1024
_SPARE = 4
_PENDING = 1 << 22
"""Number of candidates collected before they are sorted and the bounds tightened."""
_FAR = float("inf")
_ROUNDING = 1e-5
"""Bound on the error of a squared distance, relative to the two squared norms."""


@dataclass(frozen=True)
class Neighbours:
    """Index and squared distance of each row's nearest other rows, (N, k + a few), in order."""

    index: NDArray[np.int64]
    squared: NDArray[np.float64]

    def reduced(self, exponent: int) -> "Neighbours":
        """Returns the neighbours of the rows divided by 2^exponent."""
        return Neighbours(self.index, np.ldexp(self.squared, -2 * exponent))


@dataclass(frozen=True)
class Balls:
    """Membership of the rows of two sets in each other's balls.

    Args:
        held_by: For each generated row, the number of reference balls that hold it, (N,).
        holds: Which generated rows each reference row's own ball holds.
        held: Which generated rows' balls hold each reference row; None without their radii.
        close: Pairs of a generated and a reference row nearer than the farthest known neighbour,
            for reference rows that few balls hold; None without the generated rows' radii.
    """

    held_by: NDArray[np.int64]
    holds: Holders
    held: Holders | None
    close: "Pairs | None"


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows: index of the first and second, and squared distance, (P,) each."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    squared: NDArray[np.float32]


def in_range(
    generated: NDArray[np.float32], reference: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Divides both sets by 2^exponent so that squares fit float32; returns the exponent too."""
    exponent = pair_exponent(max(largest(generated), largest(reference)), 0.0)
    return scaled(generated, exponent), scaled(reference, exponent), exponent


def nearest_others(rows: NDArray[np.float32], k: int) -> Neighbours:
    """Finds the k nearest other rows of each row, and a few more; N must exceed k.

    Distances to the k-th, and to rows within rounding of it, are exact; the others are float32.
    Where rounding may have hidden a neighbour, as beside a far outlier, all are exact.
    """
    exponent = pair_exponent(largest(rows), 0.0)
    rows = scaled(rows, exponent)
    x = torch.from_numpy(rows - rows.mean(axis=0))
    norms = _norms(x)
    near, single = _symmetric_nearest(x, norms, k + _SPARE)
    squared, rims = single.astype(np.float64), single[:, k - 1 : k]
    slack = 2 * _ROUNDING * (norms + norms.max()).numpy()[:, None]
    i, place = np.nonzero(np.abs(single - rims) <= slack)
    squared[i, place] = exact_squared(rows, rows, i, near[i, place])
    near, squared = in_order(near, squared)
    missed = uncertain_rows(squared[:, k - 1], single, slack[:, 0], len(rows) - 1)
    search_again(rows, rows, missed, near, squared, k, itself=True)
    return Neighbours(near, np.ldexp(squared, 2 * exponent))


def neighbours_of(features: Features, rows: NDArray[np.float32], layer: str, k: int) -> Neighbours:
    """Returns `nearest_others` of a layer, kept in the features' cache."""
    key = f"neighbours/{layer}/{k}"
    neighbours = features.cache.get(key)
    if not isinstance(neighbours, Neighbours):
        neighbours = features.cache[key] = nearest_others(rows, k)
    return neighbours


def radii_of(
    features: Features, rows: NDArray[np.float32], layer: str, k: int
) -> NDArray[np.float64]:
    """Squared distance of each row to its k-th nearest other row, (N,)."""
    radii: NDArray[np.float64] = neighbours_of(features, rows, layer, k).squared[:, k - 1]
    return radii


def balls_of(
    generated: NDArray[np.float32],
    reference: NDArray[np.float32],
    *,
    reference_radii: NDArray[np.float64],
    near: Neighbours | None = None,
    k: int = 0,
    strict: bool = False,
) -> Balls:
    """Finds in one pass over all pairs which rows lie in which balls.

    Features, radii and neighbours must be scaled by `in_range`.

    Args:
        generated: Generated rows, (N, d).
        reference: Reference rows, (M, d).
        reference_radii: Squared radii of the reference's balls, (M,).
        near: Neighbours of the generated rows; the k-th lies on the rim of a row's ball.
        k: The neighbour that a generated ball reaches to.
        strict: Whether a row on the rim is outside; otherwise it is inside.
    """
    centre = reference.mean(axis=0)
    x, y = torch.from_numpy(generated - centre), torch.from_numpy(reference - centre)
    norms_x, norms_y = _norms(x), _norms(y)
    held_by = np.zeros(len(x), np.int64)
    holds, held = HoldersSum(len(x), len(y)), HoldersSum(len(x), len(y), kept=KEPT)
    kept: list[Pairs] = []
    for i in range(0, len(x), _BLOCK):
        lines = slice(i, i + _BLOCK)
        for j in range(0, len(y), _BLOCK):
            columns = slice(j, j + _BLOCK)
            squared = _squared(x[lines], y[columns], norms_x[lines], norms_y[columns])
            slack = _ROUNDING * float(norms_x[lines].max() + norms_y[columns].max())
            decide = _Decision(generated, reference, slack, strict)
            rims = reference_radii[columns]
            rows, boxes = decide(_below(squared, rims[None, :] + slack, i, j), reference_radii, 1)
            held_by += np.bincount(rows, minlength=len(x))
            holds.add_pairs(rows, boxes)
            if near is None:
                continue
            around = _below(squared, near.squared[lines, -1:] + slack, i, j)
            held.add_pairs(*decide(around, near.squared[:, k - 1], 0))
            kept.append(_in_few_balls(around, held.counts))
    close = _concatenated(kept, held.counts) if near is not None else None
    return Balls(held_by, holds.holders(), held.holders() if near is not None else None, close)


def nearest(
    queries: NDArray[np.float32], base: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Squared distance and index of the base row nearest to each query, both (N,)."""
    squared, index = ranked(queries, base, 1)
    return squared[:, 0], index[:, 0]


def ranked(
    queries: NDArray[np.float32], base: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Squared distances and indices of the k base rows nearest to each query, both (N, k)."""
    queries, base, exponent = in_range(queries, base)
    centre = base.mean(axis=0)
    x, y = torch.from_numpy(queries - centre), torch.from_numpy(base - centre)
    width, norms_x, norms_y = min(k + _SPARE, len(base)), _norms(x), _norms(y)
    index, single = np.empty((len(x), width), np.int64), np.empty((len(x), width), np.float32)
    for lines in (slice(i, i + 256) for i in range(0, len(x), 256)):
        squared = _squared(x[lines], y, norms_x[lines], norms_y)
        values, places = squared.topk(width, largest=False)
        index[lines], single[lines] = places.numpy(), values.numpy()
    rows = np.arange(len(queries)).repeat(width)
    exact = exact_squared(queries, base, rows, index.ravel())
    near, exact = in_order(index, exact.reshape(index.shape))
    slack = 2 * _ROUNDING * (norms_x + norms_y.max()).numpy()
    missed = uncertain_rows(exact[:, k - 1], single, slack, len(base))
    search_again(queries, base, missed, near, exact, k)
    return np.ldexp(exact[:, :k], 2 * exponent), near[:, :k]


def _symmetric_nearest(
    x: Tensor, norms: Tensor, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices and squared float32 distances of the k nearest other rows of each row, (N, k)."""
    nearest_rows = _Nearest(len(x), min(k, len(x) - 1))
    blocks = [slice(i, i + _BLOCK) for i in range(0, len(x), _BLOCK)]
    for lines in blocks:
        own = _squared(x[lines], x[lines], norms[lines], norms[lines]).fill_diagonal_(_FAR)
        nearest_rows.start(own, lines.start)
    for place, lines in enumerate(blocks):
        for columns in blocks[place + 1 :]:
            block = _squared(x[lines], x[columns], norms[lines], norms[columns])
            nearest_rows.add(block, lines.start, columns.start)
    return nearest_rows.sorted()


class _Nearest:
    """Collects the k nearest rows of each row from blocks of distances.

    A row's own block bounds its k-th distance. From other blocks only pairs below the bound are
    kept, and sorted once there are many.
    """

    def __init__(self, count: int, k: int) -> None:
        self.k, self.bounds = k, np.full(count, _FAR, np.float32)
        self._parts: list[Pairs] = []
        self._pending = 0

    def start(self, block: Tensor, first: int) -> None:
        """Adds the distances within one block of rows, the diagonal infinite."""
        width = min(self.k, block.shape[1] - 1)
        if width == 0:
            return
        values, places = block.topk(width, largest=False)
        rows = np.arange(first, first + len(block)).repeat(width)
        pairs = Pairs(rows, places.numpy().ravel() + first, values.numpy().ravel())
        if width == self.k:
            self.bounds[first : first + len(block)] = values[:, -1].numpy()
        self._keep(pairs)

    def add(self, block: Tensor, row: int, column: int) -> None:
        """Adds the distances between two blocks of rows, for the rows of both."""
        lines, columns = (slice(s, s + n) for s, n in zip((row, column), block.shape, strict=True))
        self._keep(_below(block, self.bounds[lines, None], row, column))
        pairs = _below(block, self.bounds[None, columns], row, column)
        self._keep(Pairs(pairs.second, pairs.first, pairs.squared))

    def sorted(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns index and squared distance, (N, k), nearest first."""
        self._prune()
        pairs = self._parts[0]
        return pairs.second.reshape(-1, self.k), pairs.squared.reshape(-1, self.k)

    def _keep(self, pairs: Pairs) -> None:
        self._parts.append(pairs)
        self._pending += len(pairs.first)
        if self._pending > _PENDING:
            self._prune()

    def _prune(self) -> None:
        """Keeps the k nearest of each row."""
        rows, others, squared = (
            np.concatenate([getattr(part, name) for part in self._parts])
            for name in ("first", "second", "squared")
        )
        # The key is a row and the bits of a distance: nonnegative floats sort as their bits do.
        bits = np.maximum(squared, np.float32(0)).view(np.int32).astype(np.int64)
        order = np.argsort((rows << 32) | bits)
        rows = rows[order]
        starts = np.searchsorted(rows, np.arange(len(self.bounds)))
        place = np.arange(len(rows)) - starts[rows]
        order, kept = order[place < self.k], rows[place < self.k]
        self._parts = [Pairs(kept, others[order], squared[order])]
        full = place == self.k - 1
        self.bounds[rows[full]] = squared[order[place[place < self.k] == self.k - 1]]
        self._pending = 0


class _Decision:
    """Decides which pairs lie in balls, in float64 within `slack` of the rim."""

    def __init__(
        self, a: NDArray[np.float32], b: NDArray[np.float32], slack: float, strict: bool
    ) -> None:
        self.a, self.b, self.slack, self.strict = a, b, slack, strict

    def __call__(
        self, pairs: Pairs, radii: NDArray[np.float64], side: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Selects the pairs inside the balls of their first (side 0) or second (side 1) rows."""
        rims = radii[pairs.second if side else pairs.first]
        inside = pairs.squared < rims - self.slack
        near = np.flatnonzero(np.abs(pairs.squared - rims) <= self.slack)
        exact = exact_squared(self.a, self.b, pairs.first[near], pairs.second[near])
        inside[near] = exact < rims[near] if self.strict else exact <= rims[near]
        return pairs.first[inside], pairs.second[inside]


def _below(squared: Tensor, bounds: NDArray[np.floating], row: int, column: int) -> Pairs:
    """Selects the pairs of a block at or below the bounds, rounded up to float32."""
    single = np.nextafter(bounds.astype(np.float32), np.float32(_FAR))
    block = squared.numpy()
    # One flat search: by rows and columns it takes ten times as long.
    places = np.flatnonzero(block <= single)
    i, j = np.divmod(places, block.shape[1])
    return Pairs(i + row, j + column, block.ravel()[places])


def _in_few_balls(pairs: Pairs, counts: NDArray[np.int64]) -> Pairs:
    """Selects the pairs whose second row lies in few balls."""
    few = counts[pairs.second] <= KEPT
    return Pairs(pairs.first[few], pairs.second[few], pairs.squared[few])


def _concatenated(parts: list[Pairs], counts: NDArray[np.int64]) -> Pairs:
    pairs = Pairs(
        np.concatenate([p.first for p in parts]),
        np.concatenate([p.second for p in parts]),
        np.concatenate([p.squared for p in parts]),
    )
    return _in_few_balls(pairs, counts)


def _norms(x: Tensor) -> Tensor:
    rows = x.numpy()
    return torch.from_numpy(np.einsum("ij,ij->i", rows, rows))


def _squared(x: Tensor, y: Tensor, norms_x: Tensor, norms_y: Tensor) -> Tensor:
    return torch.addmm(norms_y[None, :], x, y.T, alpha=-2).add_(norms_x[:, None])
