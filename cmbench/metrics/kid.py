"""Kernel inception distance (Binkowski et al., 2018, https://arxiv.org/abs/1801.01401).

The unbiased MMD^2 with k(x, y) = (x.y / d + 1)^3. By default over all pairs at once: less work
than 100 subsets of 1,000 up to some 10,000 samples, and of lower variance; `subsets` gives the
customary mean over random subsets, drawn as torch-fidelity draws them. Near-equal sets give
negative values: that is right. The features need not be Inception's.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from cmbench.metrics._rows import feature_rows, reference_rows
from cmbench.metrics.base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics.intervals.skewed import skewed_interval, skewness

__all__ = ["KID"]

Array = NDArray[np.float64]
_BLOCK = 512
"""Rows at a time: a block of kernel values stays in a core's cache."""
_ROWS = 2048


class KID(Metric):
    """Unbiased squared maximum mean discrepancy with the cubic kernel."""

    title: ClassVar[str] = "KID"
    revision: ClassVar[int] = 2
    outputs: ClassVar[tuple[str, ...]] = ("kid",)
    subsets: int = Field(0, ge=0, description="random subsets to average; 0: all pairs at once")
    subset_size: int = Field(1000, ge=2, description="rows of each set in a subset")
    seed: int = Field(2020, ge=0, lt=2**32, description="of the draw of subsets")

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """The value with a U-statistic error; details: subset_deviation where there are subsets.

        Raises:
            MetricError: Also if a set is smaller than `subset_size`, where there are subsets.
        """
        rows, other = self._pair(generated, reference)
        details = {"reference_count": float(len(other))}
        value, terms = self._exact(generated, reference)
        if self.subsets:
            drawn = self._drawn(rows, other)
            details |= {"subset_deviation": float(np.std(drawn)), "all_pairs": value}
            value = float(np.mean(drawn))
        linear = float(terms.var(ddof=1) / len(rows))
        # Estimated terms hold the variance of the kernel's degenerate part twice.
        degenerate, second = self._second_order(rows, terms)
        error = float(np.sqrt(max(linear - degenerate, degenerate / 2)))
        interval = skewed_interval(value, error, skewness(terms, second), len(rows))
        return {"kid": Score(value, error, interval, len(rows), details)}

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """First-order term of each generated sample, (N,), mean 0: 2 (h_i - mean h)."""
        return {"kid": self._exact(generated, reference)[1]}

    def _pair(
        self, generated: Features, reference: Reference | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = feature_rows(generated, "pool", least=2)
        other = reference_rows(reference, "pool", least=2, width=rows.shape[1])
        few = min(len(rows), len(other))
        if self.subsets and few < self.subset_size:
            raise MetricError(f"{few} samples are fewer than subset_size {self.subset_size}")
        return rows, other

    def _exact(self, generated: Features, reference: Reference | None) -> tuple[float, Array]:
        rows, other = self._pair(generated, reference)
        kept = generated.cache.get("kid")
        if isinstance(kept, _Kept) and kept.reference is reference:
            return kept.value, kept.terms
        within, across = _within(rows), _across(rows, other)
        value = float(within.mean() + _own_mean(reference, other) - 2 * across.mean())
        terms = 2 * (within - across)
        terms -= terms.mean()
        generated.cache["kid"] = _Kept(reference, value, terms)
        return value, terms

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

    def _drawn(self, rows: NDArray[np.float32], other: NDArray[np.float32]) -> list[float]:
        # The old generator, since the draws must be torch-fidelity's.
        draw = np.random.RandomState(self.seed)
        values = []
        for _ in range(self.subsets):
            x = rows[draw.choice(len(rows), self.subset_size, replace=False)]
            y = other[draw.choice(len(other), self.subset_size, replace=False)]
            values.append(float(_within(x).mean() + _within(y).mean() - 2 * _across(x, y).mean()))
        return values


@dataclass(frozen=True)
class _Kept:
    reference: Reference | None
    value: float
    terms: Array


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
