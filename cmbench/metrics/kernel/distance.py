"""The kernel inception distance: its value. `error.py` beside it has its uncertainty.

The unbiased squared maximum mean discrepancy of n generated rows x_i and m reference rows y_j,

    KID = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j)         (1)
    k(x, y) = (x.y / d + 1)^3                                                                   (2)

Binkowski et al. (2018, https://arxiv.org/abs/1801.01401). Kernels are summed in float64.
"""

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["kernel", "mean_across", "mean_within", "squared_mmd"]

Array = NDArray[np.float64]
_BLOCK = 512
"""Rows at a time: a block of kernel values stays in a core's cache."""


def squared_mmd(within: Array, reference_within: float, across: Array) -> float:
    """Kernel inception distance, equation 1.

    Args:
        within: Mean kernel of each generated row with the other generated rows, (n,).
        reference_within: Mean kernel over all pairs of different reference rows.
        across: Mean kernel of each generated row with the reference rows, (n,).
    """
    return float(within.mean() + reference_within - 2 * across.mean())


def mean_within(rows: NDArray[np.float32]) -> Array:
    """Mean kernel of each row (N, d) with every other row of its set, (N,)."""
    sums = np.zeros(len(rows))
    for i in range(0, len(rows), _BLOCK):
        block = rows[i : i + _BLOCK].astype(np.float64)
        own, _ = _kernel_sums(block, block, diagonal=False)
        sums[i : i + _BLOCK] += own
        for j in range(i + _BLOCK, len(rows), _BLOCK):
            along, down = _kernel_sums(block, rows[j : j + _BLOCK].astype(np.float64))
            sums[i : i + _BLOCK] += along
            sums[j : j + _BLOCK] += down
    return np.asarray(sums / (len(rows) - 1))


def mean_across(rows: NDArray[np.float32], other: NDArray[np.float32]) -> Array:
    """Mean kernel of each row (N, d) with the rows (M, d) of the other set, (N,)."""
    sums = np.zeros(len(rows))
    for i in range(0, len(rows), _BLOCK):
        block = rows[i : i + _BLOCK].astype(np.float64)
        for j in range(0, len(other), _BLOCK):
            along, _ = _kernel_sums(block, other[j : j + _BLOCK].astype(np.float64))
            sums[i : i + _BLOCK] += along
    return sums / len(other)


def kernel(x: Array, y: Array) -> Array:
    """Kernel matrix of rows x (n, d) and y (m, d), (n, m): equation 2."""
    base = _base(x, y)
    return np.asarray(base * base * base)


def _kernel_sums(x: Array, y: Array, *, diagonal: bool = True) -> tuple[Array, Array]:
    """Sums of the kernel over y for each row of x, and over x for each row of y."""
    base = _base(x, y)
    if not diagonal:
        np.fill_diagonal(base, 0.0)
    cube = base * base
    cube *= base
    # Products with a vector of ones are faster than sums along an axis.
    return cube @ np.ones(len(y)), np.ones(len(x)) @ cube


def _base(x: Array, y: Array) -> Array:
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    product = torch.addmm(a.new_ones(1, 1), a, b.T, alpha=1 / x.shape[1])
    return np.asarray(product.numpy())
