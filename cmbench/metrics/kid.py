"""Kernel inception distance (Binkowski et al., 2018, https://arxiv.org/abs/1801.01401).

The unbiased MMD^2 with k(x, y) = (x.y / d + 1)^3. By default over all pairs at once: less work
than 100 subsets of 1,000 up to some 10,000 samples, and of lower variance; `subsets` gives the
customary mean over random subsets, drawn as torch-fidelity draws them. Near-equal sets give
negative values: that is right. The features need not be Inception's.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cmbench.metrics._base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics._rows import feature_rows, reference_rows

__all__ = ["KID"]

Array = NDArray[np.float64]
_BLOCK = 2048


class KID(Metric):
    """Unbiased squared maximum mean discrepancy with the cubic kernel."""

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
        error = float(np.sqrt(max(linear - self._degenerate(rows), linear / 2)))
        interval = (value - 1.96 * error, value + 1.96 * error)
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

    def _degenerate(self, rows: NDArray[np.float32]) -> float:
        """Variance of the second-order part of the U-statistic, 2 E[k~(x, x')^2] / (n (n - 1)),
        k~ the doubly centred kernel, from at most 2,048 of the rows.
        """
        exact = rows[:_BLOCK].astype(np.float64)
        values, n = _kernel(exact, exact), len(exact)
        np.fill_diagonal(values, 0.0)
        lines = values.sum(axis=1) / (n - 1)
        squares = float((values**2).sum()) / (n * (n - 1))
        centred = squares - 2 * float((lines**2).mean()) + float(lines.mean()) ** 2
        return max(2 * centred / (len(rows) * (len(rows) - 1)), 0.0)

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
    exact = rows.astype(np.float64)
    own = (np.einsum("ij,ij->i", exact, exact) / rows.shape[1] + 1) ** 3
    sums = np.zeros(len(rows))
    for i in range(0, len(rows), _BLOCK):
        for j in range(i, len(rows), _BLOCK):
            values = _kernel(exact[i : i + _BLOCK], exact[j : j + _BLOCK])
            sums[i : i + _BLOCK] += values.sum(axis=1)
            if j > i:
                sums[j : j + _BLOCK] += values.sum(axis=0)
    return np.asarray((sums - own) / (len(rows) - 1))


def _across(rows: NDArray[np.float32], other: NDArray[np.float32]) -> Array:
    """Mean kernel value of each row with the rows of the other set, (N,)."""
    x, y = rows.astype(np.float64), other.astype(np.float64)
    sums = np.zeros(len(x))
    for i in range(0, len(x), _BLOCK):
        for j in range(0, len(y), _BLOCK):
            sums[i : i + _BLOCK] += _kernel(x[i : i + _BLOCK], y[j : j + _BLOCK]).sum(axis=1)
    return sums / len(y)


def _kernel(x: Array, y: Array) -> Array:
    base = x @ y.T
    base /= x.shape[1]
    base += 1
    cube = base * base
    cube *= base
    return np.asarray(cube)
