"""Kernel inception distance (Binkowski et al., 2018, https://arxiv.org/abs/1801.01401).

The unbiased MMD^2 with k(x, y) = (x.y / d + 1)^3. By default over all pairs at once: less work
than 100 subsets of 1,000 up to some 10,000 samples, and of lower variance; `subsets` gives the
customary mean over random subsets, drawn as torch-fidelity draws them. Near-equal sets give
negative values: that is right. The features need not be Inception's.

With w_i the share of the mean that row i has (0 for a row that no subset drew) and w_ij that of
the pair, the value's variance, reference and draw held fixed, is sum_i var u_i + 2 E[k~^2] sum_ij
w_ij^2: u_i the first-order terms against the reference rows that were drawn with row i, k~ the
doubly centred kernel. Few small subsets have several times the error of all pairs.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from cmbench.metrics._range import largest
from cmbench.metrics._rows import feature_rows, reference_rows
from cmbench.metrics.base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics.intervals.skewed import tailed_interval

__all__ = ["KID"]

Array = NDArray[np.float64]
_BLOCK = 512
"""Rows at a time: a block of kernel values stays in a core's cache."""
_ROWS = 2048
_LEAST, _MOST = 1e-4, 1e16
"""Largest feature: below, rounding of the kernel near 1 shows; above, its cube overflows."""


class KID(Metric):
    """Unbiased squared maximum mean discrepancy with the cubic kernel."""

    title: ClassVar[str] = "KID"
    revision: ClassVar[int] = 2
    outputs: ClassVar[tuple[str, ...]] = ("kid",)
    subsets: int = Field(
        0, ge=0, le=10_000, description="random subsets to average; 0: all pairs at once"
    )
    subset_size: int = Field(1000, ge=2, le=10_000_000, description="rows of each set in a subset")
    seed: int = Field(2020, ge=0, lt=2**32, description="of the draw of subsets")

    def fewest(self) -> int:
        """A subset's, where there are subsets."""
        return self.subset_size if self.subsets else self.least

    def fewest_reference(self) -> int:
        """A subset's, where there are subsets."""
        return self.subset_size if self.subsets else 2

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """The value with a U-statistic error; details: subset_deviation where there are subsets.

        Raises:
            MetricError: Also if a set is smaller than `subset_size`, where there are subsets.
        """
        rows, other = self._pair(generated, reference)
        details = {"reference_count": float(len(other))}
        exact = self._exact(generated, reference)
        value, terms = exact.value, exact.terms
        degenerate, second = self._second_order(rows, terms)
        if self.subsets:
            drawn = self._drawn(generated, reference)
            details |= {"subset_deviation": float(np.std(drawn.values)), "all_pairs": value}
            value, terms, second = float(np.mean(drawn.values)), drawn.terms, drawn.shift * second
            error = float(terms.std(ddof=1) / np.sqrt(len(rows)))
        else:
            linear = float(terms.var(ddof=1) / len(rows))
            # Estimated terms hold the variance of the kernel's degenerate part twice.
            error = float(np.sqrt(max(linear - degenerate, degenerate / 2)))
        interval, tail = tailed_interval(value, error, terms, second)
        return {"kid": Score(value, error, interval, len(rows), details | tail)}

    def version(self) -> int:
        """Later for subsets: their error was that of all pairs."""
        return self.revision + (self.subsets > 0)

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """First-order term of each generated sample, (N,), mean 0: 2 (h_i - mean h).

        Of subsets, by the subsets that drew the sample, and brought to the stated variance.
        """
        if self.subsets:
            return {"kid": self._drawn(generated, reference).terms}
        return {"kid": self._exact(generated, reference).terms}

    def _pair(
        self, generated: Features, reference: Reference | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = feature_rows(generated, "pool", least=2)
        other = reference_rows(reference, "pool", least=2, width=rows.shape[1])
        few = min(len(rows), len(other))
        if self.subsets and few < self.subset_size:
            raise MetricError(f"{few} samples are fewer than subset_size {self.subset_size}")
        size = max(largest(rows), largest(other))
        if size and not _LEAST <= size <= _MOST:
            raise MetricError(
                f"KID's kernel, a cube of one plus a product, can't tell features of {size:.3g} "
                f"apart: their largest must lie in {_LEAST:g} to {_MOST:g}"
            )
        return rows, other

    def _exact(self, generated: Features, reference: Reference | None) -> "_Kept":
        rows, other = self._pair(generated, reference)
        kept = generated.cache.get("kid")
        if isinstance(kept, _Kept) and kept.reference is reference:
            return kept
        within, across = _within(rows), _across(rows, other)
        value = float(within.mean() + _own_mean(reference, other) - 2 * across.mean())
        terms = 2 * (within - across)
        terms -= terms.mean()
        found = generated.cache["kid"] = _Kept(reference, value, terms, within)
        return found

    def _second_order(self, rows: NDArray[np.float32], terms: Array) -> tuple[float, float]:
        """Variance of the second-order part of the U-statistic, 2 E[k~(x, x')^2] / (n (n - 1)),
        k~ the doubly centred kernel, and E[psi psi' 2 k~], from at most 2,048 of the rows.
        """
        exact = rows[:_ROWS].astype(np.float64)
        values, n = _kernel(exact, exact), len(exact)
        np.fill_diagonal(values, 0.0)
        lines, own = values.sum(axis=1) / (n - 1), terms[:_ROWS] - terms[:_ROWS].mean()
        squares = float((values**2).sum()) / (n * (n - 1))
        centred = squares - 2 * float((lines**2).mean()) + float(lines.mean()) ** 2
        # own sums to 0, so that of the centring only what it adds on the diagonal is left.
        product = own @ values @ own + float((own**2) @ (2 * lines - lines.mean()))
        variance = max(2 * centred / (len(rows) * (len(rows) - 1)), 0.0)
        return variance, float(2 * product) / (n * (n - 1))

    def _drawn(self, generated: Features, reference: Reference | None) -> "_Drawn":
        rows, other = self._pair(generated, reference)
        exact = self._exact(generated, reference)
        degenerate, _ = self._second_order(rows, exact.terms)
        # The old generator, since the draws must be torch-fidelity's.
        draw, n, m = np.random.RandomState(self.seed), len(rows), self.subset_size
        values, index, sums = [], [], np.zeros(n)
        for _ in range(self.subsets):
            mine = draw.choice(n, m, replace=False)
            theirs = other[draw.choice(len(other), m, replace=False)]
            x = rows[mine]
            across = _across(x, theirs)
            values.append(float(_within(x).mean() + _within(theirs).mean() - 2 * across.mean()))
            # All pairs tell a row's own mean kernel better than its subset's.
            own = 2 * (exact.within[mine] - across)
            sums[mine] += (own - own.mean()) * np.sqrt(m / (m - 1))
            index.append(mine)
        return _Drawn.of(values, index, sums, degenerate)


@dataclass(frozen=True)
class _Drawn:
    """Random subsets of n rows.

    Args:
        values: Of each subset.
        terms: Of each row, (n,), mean 0; their variance / n is that of the mean of `values`.
        shift: E[psi psi' phi] of these terms over that of all pairs.
    """

    values: list[float]
    terms: Array
    shift: float

    @classmethod
    def of(
        cls, values: list[float], index: list[NDArray[np.int64]], sums: Array, degenerate: float
    ) -> "_Drawn":
        """From each subset's rows, the sums of their first-order terms, and the degenerate
        variance of all pairs, 2 E[k~^2] / (n (n - 1)).
        """
        n, subsets, m = len(sums), len(index), len(index[0])
        ends = np.arange(0, subsets * m + 1, m)
        drawn = sparse.csr_array((np.ones(subsets * m), np.concatenate(index), ends), (subsets, n))
        shared, times = (drawn @ drawn.T).toarray(), drawn.sum(axis=0)
        squares = degenerate * n * (n - 1)
        pairs = float((shared * (shared - 1)).sum()) / (subsets * m * (m - 1)) ** 2
        # A row's own mean kernel is estimated from n - 1 rows.
        excess = 2 * squares / (n - 1) * float((times**2).sum()) / (subsets * m) ** 2
        linear = float((sums**2).sum()) / (subsets * m) ** 2
        variance = max(linear - excess, 0.0) + squares * pairs
        terms = sums * n / (subsets * m)
        terms -= terms.mean()
        spread = float(terms.var(ddof=1) / n)
        terms *= np.sqrt(variance / spread) if spread else 1.0
        around = drawn @ times
        pair_share = float((around**2 - drawn @ times**2).mean()) / (m * (m - 1))
        return cls(values, terms, pair_share * (n / (subsets * m)) ** 2)


@dataclass(frozen=True)
class _Kept:
    reference: Reference | None
    value: float
    terms: Array
    within: Array


def _own_mean(reference: Reference | None, rows: NDArray[np.float32]) -> float:
    cache: dict[str, object] = reference.cache if reference else {}
    kept = cache.get("kid/within")
    if not isinstance(kept, float):
        kept = cache["kid/within"] = float(_within(rows).mean())
    return kept


def _within(rows: NDArray[np.float32]) -> Array:
    """Mean kernel value of each row with every other row of its set, (N,)."""
    sums = np.zeros(len(rows))
    for i in range(0, len(rows), _BLOCK):
        lines = rows[i : i + _BLOCK].astype(np.float64)
        own, _ = _kernel_sums(lines, lines, diagonal=False)
        sums[i : i + _BLOCK] += own
        for j in range(i + _BLOCK, len(rows), _BLOCK):
            along, down = _kernel_sums(lines, rows[j : j + _BLOCK].astype(np.float64))
            sums[i : i + _BLOCK] += along
            sums[j : j + _BLOCK] += down
    return np.asarray(sums / (len(rows) - 1))


def _across(rows: NDArray[np.float32], other: NDArray[np.float32]) -> Array:
    """Mean kernel value of each row with the rows of the other set, (N,)."""
    sums = np.zeros(len(rows))
    for i in range(0, len(rows), _BLOCK):
        lines = rows[i : i + _BLOCK].astype(np.float64)
        for j in range(0, len(other), _BLOCK):
            along, _ = _kernel_sums(lines, other[j : j + _BLOCK].astype(np.float64))
            sums[i : i + _BLOCK] += along
    return sums / len(other)


def _kernel_sums(x: Array, y: Array, *, diagonal: bool = True) -> tuple[Array, Array]:
    """Sums of kernel values along rows (x,) and down columns (y,), without the cubes' matrix."""
    base = _base(x, y)
    if not diagonal:
        np.fill_diagonal(base, 0.0)
    cube = base * base
    cube *= base
    # As products with a vector of ones, which are faster than sums along an axis.
    return cube @ np.ones(len(y)), np.ones(len(x)) @ cube


def _kernel(x: Array, y: Array) -> Array:
    base = _base(x, y)
    return np.asarray(base * base * base)


def _base(x: Array, y: Array) -> Array:
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    product = torch.addmm(a.new_ones(1, 1), a, b.T, alpha=1 / x.shape[1])
    return np.asarray(product.numpy())
