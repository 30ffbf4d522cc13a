"""The uncertainty of the kernel inception distance: influence, variance and skewness.

All pairs. With u(x) = mean_j k(x, x_j) - mean_j k(x, y_j), the reference held fixed, the
first-order terms of the n generated rows, and the variance that they give, are

    psi_i = 2 (u_i - mean u)                                                                    (1)
    var psi / n                                                                                 (2)

and k~(x, x') = k(x, x') - l(x) - l(x') + mean l, with l(x) the mean kernel of x with other rows,
is the second-order part. Estimated terms count its variance twice, so it is removed once:

    E[k~(x, x')^2] = E[k^2] - 2 E[l^2] + (E l)^2                                                (3)
    2 E[k~^2] / (n (n - 1))                                                                     (4)

The second-order term along psi, for the skewness of the interval, is

    E[psi(x) psi(x') 2 k~(x, x')]                                                               (5)

Subsets. With w_i the weight of row i in the mean of all subsets (0 for a row that no subset drew)
and w_ij that of the pair i, j, the variance, reference and draw held fixed, is

    sum_i w_i^2 var psi_i + 2 E[k~^2] sum_ij w_ij^2                                             (6)

with psi_i the first-order term of row i against the reference rows drawn together with it. A few
small subsets have several times the error of all pairs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cmbench.metrics.kernel.distance import kernel, mean_across, mean_within, squared_mmd

__all__ = ["SubsetTerms", "first_order", "second_order", "subset_terms"]

Array = NDArray[np.float64]
_ROWS = 2048
"""Most rows that second-order terms are estimated from."""


def first_order(within: Array, across: Array) -> Array:
    """First-order terms (n,), mean 0, of the mean kernels within and across sets: equation 1."""
    terms = 2 * (within - across)
    terms -= terms.mean()
    return terms


def second_order(rows: NDArray[np.float32], terms: Array) -> tuple[float, float]:
    """Evaluates equations 4 and 5 from at most 2,048 of the rows (n, d)."""
    exact = rows[:_ROWS].astype(np.float64)
    values, n = kernel(exact, exact), len(exact)
    np.fill_diagonal(values, 0.0)
    lines, own = values.sum(axis=1) / (n - 1), terms[:_ROWS] - terms[:_ROWS].mean()
    squares = float((values**2).sum()) / (n * (n - 1))
    centred = squares - 2 * float((lines**2).mean()) + float(lines.mean()) ** 2  # Equation 3.
    # `own` sums to 0, so that only the diagonal of the centring contributes.
    product = own @ values @ own + float((own**2) @ (2 * lines - lines.mean()))
    variance = max(2 * centred / (len(rows) * (len(rows) - 1)), 0.0)
    return variance, float(2 * product) / (n * (n - 1))


@dataclass(frozen=True)
class SubsetTerms:
    """The distance of random subsets, with the influence of each row on their mean.

    Args:
        values: Distance of each subset.
        influence: Influence of each row, (n,), mean 0; its variance / n is that of the mean.
        shift: Ratio of E[psi psi' phi] for these terms to that for all pairs.
    """

    values: list[float]
    influence: Array
    shift: float


def subset_terms(
    rows: NDArray[np.float32],
    other: NDArray[np.float32],
    within: Array,
    degenerate: float,
    *,
    subsets: int,
    size: int,
    seed: int,
) -> SubsetTerms:
    """Draws subsets as torch-fidelity does, and scores them.

    Args:
        rows: Generated rows (n, d).
        other: Reference rows (m, d).
        within: Mean kernel of each generated row with all others, (n,).
        degenerate: Variance of the second-order part of all pairs, equation 4.
        subsets: Number of subsets.
        size: Rows of each set in a subset.
        seed: Seed of the draw.
    """
    # The legacy generator, since the draws must be torch-fidelity's.
    draw, n = np.random.RandomState(seed), len(rows)
    values, index, sums = [], [], np.zeros(n)
    for _ in range(subsets):
        mine = draw.choice(n, size, replace=False)
        theirs = other[draw.choice(len(other), size, replace=False)]
        x = rows[mine]
        across = mean_across(x, theirs)
        values.append(squared_mmd(mean_within(x), mean_within(theirs).mean(), across))
        # All pairs estimate a row's mean kernel better than its subset does.
        own = 2 * (within[mine] - across)
        sums[mine] += (own - own.mean()) * np.sqrt(size / (size - 1))
        index.append(mine)
    influence, shift = _weighted(index, sums, degenerate)
    return SubsetTerms(values, influence, shift)


def _weighted(
    index: list[NDArray[np.int64]], sums: Array, degenerate: float
) -> tuple[Array, float]:
    """Influence of each row on the mean of subsets, scaled to equation 6, and its shift.

    Args:
        index: Generated rows of each subset.
        sums: Sum of each row's first-order terms over subsets, (n,).
        degenerate: Variance of the second-order part of all pairs, equation 4.
    """
    n, subsets, m = len(sums), len(index), len(index[0])
    ends = np.arange(0, subsets * m + 1, m)
    drawn = sparse.csr_array((np.ones(subsets * m), np.concatenate(index), ends), (subsets, n))
    shared, times = (drawn @ drawn.T).toarray(), drawn.sum(axis=0)
    squares = degenerate * n * (n - 1)
    pairs = float((shared * (shared - 1)).sum()) / (subsets * m * (m - 1)) ** 2
    # The mean kernel of a row is itself estimated from n - 1 rows.
    excess = 2 * squares / (n - 1) * float((times**2).sum()) / (subsets * m) ** 2
    linear = float((sums**2).sum()) / (subsets * m) ** 2
    variance = max(linear - excess, 0.0) + squares * pairs  # Equation 6.
    terms = sums * n / (subsets * m)
    terms -= terms.mean()
    spread = float(terms.var(ddof=1) / n)
    terms *= np.sqrt(variance / spread) if spread else 1.0
    around = drawn @ times
    pair_share = float((around**2 - drawn @ times**2).mean()) / (m * (m - 1))
    return terms, pair_share * (n / (subsets * m)) ** 2
