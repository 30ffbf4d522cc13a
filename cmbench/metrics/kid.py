"""Kernel inception distance (Binkowski et al., 2018, https://arxiv.org/abs/1801.01401).

It is the unbiased squared MMD with the kernel (x.y / d + 1)^3. By default it runs over all pairs
at once: less work than 100 subsets of 1,000 up to some 10,000 images, and a lower variance.
`subsets` gives the customary mean over random subsets, drawn as torch-fidelity draws them. Nearly
equal sets give negative values, as they should. The features need not be Inception's.
`kernel/distance.py` computes the value, `kernel/error.py` its error.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from cmbench.metrics._range import largest
from cmbench.metrics._rows import feature_rows, reference_rows
from cmbench.metrics.base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics.intervals.skewed import tailed_interval
from cmbench.metrics.kernel.distance import mean_across, mean_within, squared_mmd
from cmbench.metrics.kernel.error import SubsetTerms, first_order, second_order, subset_terms

__all__ = ["KID"]

Array = NDArray[np.float64]
_LEAST, _MOST = 1e-4, 1e16
"""Range of the largest feature: below, the kernel rounds to 1; above, its cube overflows."""


class KID(Metric):
    """Unbiased squared maximum mean discrepancy with the cubic kernel."""

    title: ClassVar[str] = "KID"
    revision: ClassVar[int] = 2
    outputs: ClassVar[tuple[str, ...]] = ("kid",)
    subsets: int = Field(
        0, ge=0, le=10_000, description="random subsets to average; 0: all pairs at once"
    )
    subset_size: int = Field(1000, ge=2, le=10_000_000, description="rows of each set in a subset")
    seed: int = Field(2020, ge=0, lt=2**32, description="seed of the random subsets")

    @override
    def fewest(self) -> int:
        """A subset's, where there are subsets."""
        return self.subset_size if self.subsets else self.least

    @override
    def fewest_reference(self) -> int:
        """A subset's, where there are subsets."""
        return self.subset_size if self.subsets else 2

    @override
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Returns the value with a U-statistic error; details: subset_deviation, with subsets.

        Raises:
            MetricError: Also if a set is smaller than `subset_size`, where there are subsets.
        """
        rows, other = self._pair(generated, reference)
        details = {"reference_count": float(len(other))}
        exact = self._exact(generated, reference)
        value, terms = exact.value, exact.terms
        degenerate, second = second_order(rows, terms)
        if self.subsets:
            drawn = self._drawn(generated, reference)
            details |= {"subset_deviation": float(np.std(drawn.values)), "all_pairs": value}
            value, terms = float(np.mean(drawn.values)), drawn.influence
            second = drawn.shift * second
            error = float(terms.std(ddof=1) / np.sqrt(len(rows)))
        else:
            linear = float(terms.var(ddof=1) / len(rows))
            # Estimated terms count the variance of the second-order part twice.
            error = float(np.sqrt(max(linear - degenerate, degenerate / 2)))
        interval, tail = tailed_interval(value, error, terms, second, both_ways=True)
        return {"kid": Score(value, error, interval, len(rows), details | tail)}

    @override
    def version(self) -> int:
        """Returns a later revision for subsets, whose error used to be that of all pairs."""
        return self.revision + (self.subsets > 0)

    @override
    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """Influence of each generated image, (N,), mean 0.

        With subsets it depends on those that drew the image, and is scaled to their variance.
        """
        if self.subsets:
            return {"kid": self._drawn(generated, reference).influence}
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

    def _exact(self, generated: Features, reference: Reference | None) -> "_AllPairs":
        rows, other = self._pair(generated, reference)
        cached = generated.cache.get("kid")
        if isinstance(cached, _AllPairs) and cached.reference is reference:
            return cached
        within, across = mean_within(rows), mean_across(rows, other)
        value = squared_mmd(within, _reference_within(reference, other), across)
        result = _AllPairs(reference, value, first_order(within, across), within)
        generated.cache["kid"] = result
        return result

    def _drawn(self, generated: Features, reference: Reference | None) -> SubsetTerms:
        rows, other = self._pair(generated, reference)
        exact = self._exact(generated, reference)
        degenerate, _ = second_order(rows, exact.terms)
        return subset_terms(
            rows, other, exact.within, degenerate,
            subsets=self.subsets, size=self.subset_size, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class _AllPairs:
    """The distance over all pairs, with its first-order terms, kept in the features' cache."""

    reference: Reference | None
    value: float
    terms: Array
    within: Array


def _reference_within(reference: Reference | None, rows: NDArray[np.float32]) -> float:
    """Mean kernel over all pairs of different reference rows, kept in the reference's cache."""
    cache: dict[str, object] = reference.cache if reference else {}
    mean = cache.get("kid/within")
    if not isinstance(mean, float):
        mean = cache["kid/within"] = float(mean_within(rows).mean())
    return mean
