"""Exact leave-one-out and add-one changes of a Frechet distance.

With g = x - m, removing one of n rows (s = -1) or adding one (s = 1) changes their mean and
scatter to

    m' = m + s g / (n + s),   A' = A + s c g g^T,   c = n / (n + s)                             (1)

For a symmetric A = sum a_k v_k v_k^T and u > 0 the trace of the root changes by

    tr (A + s c g g^T)^(1/2) - tr A^(1/2) = 1 / pi  int_0^inf log(1 + s c G(u)) du              (2)
    G(u) = sum (v_k.g)^2 / (a_k + u^2)                                                          (3)

from A^(1/2) = 2 / pi int A (A + u^2)^(-1) du, integrated by parts, and the determinant of a
rank-one update of A + u^2. The integral is summed over u = e^v at steps of 1/2: its error falls as
exp(-pi^2 / step).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cmbench.metrics.base import Moments
from cmbench.metrics.frechet.reference import Target

__all__ = ["SampleRows", "Scatter", "symmetric_eigen"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_BLOCK = 4096
_STEP = 0.5
_GRID = np.exp(np.arange(-14, 7 + _STEP, _STEP))
"""Values of u, in units of the largest root of A."""


class SampleRows:
    """Generated features (n, d) and the reference Gaussian they are compared with.

    Args:
        rows: The generated features.
        target: The reference's Gaussian, of rank at most k.
        few: Whether to keep the rows in the reference's frame, (n, k) in float64, which `fit`
            needs.
    """

    def __init__(self, rows: NDArray[np.float32], target: Target, *, few: bool) -> None:
        self.rows, self.target = rows, target
        self.in_reference_frame: Array | None = None
        if few:
            gaps = torch.from_numpy(rows.astype(np.float64) - target.mean)
            self.in_reference_frame = (gaps @ torch.from_numpy(target.factor)).numpy()

    def fit(self, index: Index) -> "Scatter":
        """Fits the scatter of the rows at `index`. Needs `few=True`."""
        rows = self.rows[index].astype(np.float64)
        mean = rows.mean(axis=0)
        trace = float(((rows - mean) ** 2).sum())
        assert self.in_reference_frame is not None
        in_frame = self.in_reference_frame[index]
        centre = in_frame.mean(axis=0)
        gaps = in_frame - centre
        # NumPy recognises a matrix times its own transpose, and computes one triangle only.
        if len(rows) > in_frame.shape[1] + 1:
            return self._wide(index, mean, trace, torch.from_numpy(gaps.T @ gaps))
        values, vectors = symmetric_eigen(torch.from_numpy(gaps @ gaps.T))
        kept = values > values.max(initial=0.0) * len(values) * np.finfo(np.float64).eps
        roots = np.sqrt(values[kept])
        basis = gaps.T @ (vectors[:, kept] / roots)
        own = vectors[:, kept] * roots
        return Scatter(self, index, mean, trace, values[kept], basis, centre, own)

    def fit_all(self, moments: Moments) -> "Scatter":
        """Fits the scatter of all rows from their known moments, with more rows than the rank."""
        scale = moments.count - 1
        trace = float(np.trace(moments.covariance)) * scale
        scatter = self.target.in_reference_frame(moments.covariance) * scale
        return self._wide(np.arange(len(self.rows)), moments.mean, trace, scatter)

    def _wide(self, index: Index, mean: Array, trace: float, scatter: torch.Tensor) -> "Scatter":
        values, vectors = symmetric_eigen(scatter)
        if self.in_reference_frame is not None:
            return Scatter(
                self,
                index,
                mean,
                trace,
                values,
                vectors,
                self.in_reference_frame[index].mean(axis=0),
                None,
            )
        basis = (self.target.factor @ vectors).astype(np.float32)
        return Scatter(self, index, mean, trace, values, basis, None, None)


@dataclass(frozen=True)
class Scatter:
    """Scatter matrix A of some of the rows, in the reference's frame.

    Args:
        sample: All rows.
        index: The n rows that the scatter is fitted to.
        mean: Their mean, (d,).
        trace: Trace of their scatter in feature space.
        values: Eigenvalues a_k of A, all of them or those above 0.
        basis: Maps a row in the reference's frame less `centre`, or (where `centre` is None) a
            feature row less `mean`, to its coordinates v_k.g.
        centre: Mean of the fitted rows in the reference's frame.
        own: Coordinates of the fitted rows, where they are known.
    """

    sample: SampleRows
    index: Index
    mean: Array
    trace: float
    values: Array
    basis: NDArray[np.floating]
    centre: Array | None
    own: Array | None

    def root(self) -> float:
        """Returns the trace of (L^T S L)^(1/2), where S is the covariance."""
        return float(np.sqrt(self.values).sum()) / np.sqrt(max(len(self.index) - 1, 1))

    def leave_one_out(self) -> Array:
        """Leave-one-out influence (n,): (n - 1) (D - D without row i)."""
        terms = np.empty(len(self.index))
        for start in range(0, len(terms), _BLOCK):
            block = slice(start, start + _BLOCK)
            own = None if self.own is None else self.own[block]
            terms[block] = self._change(self.index[block], -1, own)
        return -(len(self.index) - 1) * terms

    def add_one(self, index: Index) -> Array:
        """Add-one influence of other rows, (len(index),): (n + 1) (D with row i - D)."""
        return (len(self.index) + 1) * self._change(index, 1, None)

    def coordinates(self, index: Index) -> NDArray[np.floating]:
        """Returns the coordinates v_k.g of the rows at `index`, (len(index), k)."""
        if self.centre is not None:
            assert self.sample.in_reference_frame is not None
            return np.asarray((self.sample.in_reference_frame[index] - self.centre) @ self.basis)
        return (self.sample.rows[index] - self.mean).astype(np.float32) @ self.basis

    def _change(self, index: Index, sign: int, own: Array | None) -> Array:
        """Change of the distance when one row is added (+1) or removed (-1), for each row."""
        count, target = len(self.index), self.sample.target
        squares = (self.coordinates(index) if own is None else own) ** 2
        outside = np.zeros(len(index))
        if self.centre is not None and self.basis.shape[1] < self.basis.shape[0] and own is None:
            assert self.sample.in_reference_frame is not None
            lengths = ((self.sample.in_reference_frame[index] - self.centre) ** 2).sum(axis=1)
            outside = np.maximum(lengths - squares.sum(axis=1), 0.0)
        after = count + sign
        share = sign * count / after  # s c of equation 1.
        roots = float(np.sqrt(self.values).sum())
        change = _root_change(self.values, squares, outside, share)
        gaps = self.sample.rows[index] - self.mean
        lengths, gap = np.einsum("ij,ij->i", gaps, gaps), self.mean - target.mean
        # |m' - m2|^2 - |m - m2|^2 with m' of equation 1.
        mean_term = sign * 2 / after * (gaps @ gap) + lengths / after**2
        before, then = max(count - 1, 1), max(after - 1, 1)
        traces = (self.trace + share * lengths) / then - self.trace / before
        return np.asarray(
            mean_term + traces - 2 * ((roots + change) / then**0.5 - roots / before**0.5)
        )


def symmetric_eigen(matrix: torch.Tensor) -> tuple[Array, Array]:
    """Returns eigenvalues, at least 0, and eigenvectors of a symmetric matrix's lower triangle."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp(min=0).numpy(), vectors.numpy()


def _root_change(
    values: Array, squares: NDArray[np.floating], outside: Array, share: float
) -> Array:
    """Evaluates equation 2 for each g: tr (A + share g g^T)^(1/2) - tr A^(1/2).

    Args:
        values: Eigenvalues a_k of A.
        squares: Squared coordinates (v_k.g)^2 of each g, (N, k).
        outside: Squared length of each g outside the span of the v_k, (N,).
        share: Factor s c of the rank-one update.
    """
    most = float(values.max(initial=0.0)) or float(squares.sum(axis=1).max(initial=1.0)) or 1.0
    u = _GRID * np.sqrt(most)
    weights = u * _STEP
    weights[[0, -1]] /= 2
    inverse = 1 / (values[:, None] + u**2)
    scale = inverse.max() if inverse.size else 1.0
    # Equation 3, scaled to the range of single precision.
    spread = (squares @ (inverse / scale).astype(squares.dtype)).astype(np.float64) * scale
    spread += outside[:, None] / u**2
    logs = np.log(np.maximum(1 + share * spread, np.finfo(np.float64).tiny))
    ends = u[0] * logs[:, 0] + share * (squares.sum(axis=1) + outside) / u[-1]
    return np.asarray((logs @ weights + ends) / np.pi)
