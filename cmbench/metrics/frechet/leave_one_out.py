"""What single rows do to a Frechet distance, exactly.

With g = x - m, a row that leaves n rows takes c g g^T off their scatter, c = n / (n - 1); one
that joins adds it with c = n / (n + 1). For a symmetric A = sum a_k v_k v_k^T and u > 0,

    tr (A + s c g g^T)^(1/2) - tr A^(1/2) = 1 / pi  int_0^inf log(1 + s c G(u)) du,
    G(u) = sum (v_k.g)^2 / (a_k + u^2),

from A^(1/2) = 2 / pi int A (A + u^2)^(-1) du, by parts, and the determinant of A + u^2 with a rank
of one added. It is summed over u = e^v at steps of 1/2: the error falls as exp(-pi^2 / step).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cmbench.metrics.base import Moments
from cmbench.metrics.frechet.reference import Target

__all__ = ["RowsFit", "Sample", "symmetric_eigen"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_BLOCK = 4096
_STEP = 0.5
_GRID = np.exp(np.arange(-14, 7 + _STEP, _STEP))
"""u in units of the largest root of A."""


class Sample:
    """Feature rows (n, d) before a reference.

    Args:
        rows: The features.
        target: The reference's Gaussian, of rank at most k.
        few: Whether rows are kept in the reference's frame, (n, k), in float64.
    """

    def __init__(self, rows: NDArray[np.float32], target: Target, *, few: bool) -> None:
        self.rows, self.target = rows, target
        self.carried: Array | None = None
        if few:
            gaps = torch.from_numpy(rows.astype(np.float64) - target.mean)
            self.carried = (gaps @ torch.from_numpy(target.factor)).numpy()

    def fit(self, index: Index) -> "RowsFit":
        """Of some of the rows; they must be few."""
        rows = self.rows[index].astype(np.float64)
        mean = rows.mean(axis=0)
        trace = float(((rows - mean) ** 2).sum())
        assert self.carried is not None
        carried = self.carried[index]
        centre = carried.mean(axis=0)
        gaps = carried - centre
        # NumPy sees a matrix times its own transpose, and does half of the work.
        if len(rows) > carried.shape[1] + 1:
            return self._wide(index, mean, trace, torch.from_numpy(gaps.T @ gaps))
        values, vectors = symmetric_eigen(torch.from_numpy(gaps @ gaps.T))
        kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
        roots = np.sqrt(values[kept])
        basis = gaps.T @ (vectors[:, kept] / roots)
        own = vectors[:, kept] * roots
        return RowsFit(self, index, mean, trace, values[kept], basis, centre, own)

    def whole(self, moments: Moments) -> "RowsFit":
        """Of all rows, whose moments are known; more of them than the rank."""
        scale = moments.count - 1
        trace = float(np.trace(moments.covariance)) * scale
        scatter = self.target.carried(moments.covariance) * scale
        return self._wide(np.arange(len(self.rows)), moments.mean, trace, scatter)

    def _wide(self, index: Index, mean: Array, trace: float, scatter: torch.Tensor) -> "RowsFit":
        values, vectors = symmetric_eigen(scatter)
        if self.carried is not None:
            return RowsFit(
                self, index, mean, trace, values, vectors, self.carried[index].mean(axis=0), None
            )
        basis = (self.target.factor @ vectors).astype(np.float32)
        return RowsFit(self, index, mean, trace, values, basis, None, None)


@dataclass(frozen=True)
class RowsFit:
    """Some rows' scatter A in the reference's frame.

    Args:
        sample: All rows.
        index: Which of them it is fitted to, n.
        mean: Their mean, (d,).
        trace: Trace of their scatter.
        values: Eigenvalues a_k of A, those above 0 or all.
        basis: From a carried row less `centre`, or (where `centre` is None) from a feature row
            less the mean, to its coordinates v_k.g.
        centre: Mean of the carried rows.
        own: Coordinates of the rows fitted, where they are known.
    """

    sample: Sample
    index: Index
    mean: Array
    trace: float
    values: Array
    basis: NDArray[np.floating]
    centre: Array | None
    own: Array | None

    def root(self) -> float:
        """The trace of (L^T S L)^(1/2), S the covariance."""
        return float(np.sqrt(self.values).sum()) / np.sqrt(max(len(self.index) - 1, 1))

    def left(self) -> Array:
        """The fall, times n - 1, of the distance when each own row leaves, (n,)."""
        terms = np.empty(len(self.index))
        for start in range(0, len(terms), _BLOCK):
            block = slice(start, start + _BLOCK)
            own = None if self.own is None else self.own[block]
            terms[block] = self._change(self.index[block], -1, own)
        return -(len(self.index) - 1) * terms

    def joined(self, index: Index) -> Array:
        """The rise, times n + 1, of the distance when each of other rows joins, (len(index),)."""
        return (len(self.index) + 1) * self._change(index, 1, None)

    def coordinates(self, index: Index) -> NDArray[np.floating]:
        """v_k.g of rows, (len(index), k)."""
        if self.centre is not None:
            assert self.sample.carried is not None
            return np.asarray((self.sample.carried[index] - self.centre) @ self.basis)
        return (self.sample.rows[index] - self.mean).astype(np.float32) @ self.basis

    def _change(self, index: Index, sign: int, own: Array | None) -> Array:
        """Of the distance, when each row comes (1) or goes (-1), one at a time."""
        count, target = len(self.index), self.sample.target
        squares = (self.coordinates(index) if own is None else own) ** 2
        outside = np.zeros(len(index))
        if self.centre is not None and self.basis.shape[1] < self.basis.shape[0] and own is None:
            assert self.sample.carried is not None
            whole = ((self.sample.carried[index] - self.centre) ** 2).sum(axis=1)
            outside = np.maximum(whole - squares.sum(axis=1), 0.0)
        after = count + sign
        share = sign * count / after
        roots = float(np.sqrt(self.values).sum())
        moved = _root_change(self.values, squares, outside, share)
        gaps = self.sample.rows[index] - self.mean
        lengths, gap = np.einsum("ij,ij->i", gaps, gaps), self.mean - target.mean
        # |m' - m2|^2 with m' = m + sign g / n'.
        mean_term = sign * 2 / after * (gaps @ gap) + lengths / after**2
        before, then = max(count - 1, 1), max(after - 1, 1)
        traces = (self.trace + share * lengths) / then - self.trace / before
        return np.asarray(
            mean_term + traces - 2 * ((roots + moved) / then**0.5 - roots / before**0.5)
        )


def symmetric_eigen(matrix: torch.Tensor) -> tuple[Array, Array]:
    """Eigenvalues, at least 0, and vectors of a symmetric matrix by its lower triangle."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp(min=0).numpy(), vectors.numpy()


def _root_change(
    values: Array, squares: NDArray[np.floating], outside: Array, share: float
) -> Array:
    """What each g, by its squared coordinates, adds to tr A^(1/2) as A + share g g^T."""
    most = float(values.max(initial=0.0)) or float(squares.sum(axis=1).max(initial=1.0)) or 1.0
    u = _GRID * np.sqrt(most)
    weights = u * _STEP
    weights[[0, -1]] /= 2
    inverse = 1 / (values[:, None] + u**2)
    scale = inverse.max() if inverse.size else 1.0
    # Scaled, so that single precision holds it.
    spread = (squares @ (inverse / scale).astype(squares.dtype)).astype(np.float64) * scale
    spread += outside[:, None] / u**2
    logs = np.log(np.maximum(1 + share * spread, np.finfo(np.float64).tiny))
    ends = u[0] * logs[:, 0] + share * (squares.sum(axis=1) + outside) / u[-1]
    return np.asarray((logs @ weights + ends) / np.pi)
