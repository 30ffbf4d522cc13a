"""CMMD: squared maximum mean discrepancy of unit vectors with a Gaussian kernel.

Jayasumana et al. (2024, https://arxiv.org/abs/2401.09603): k(x, y) = exp(-|x - y|^2 / (2 s^2)),
s = 10, on rows scaled to length 1,

    CMMD = 1000 [mean_ij k(x_i, x_j) + mean_ij k(y_i, y_j) - 2 mean_ij k(x_i, y_j)]            (1)

As in their code the means within a set include each row with itself; `details.unbiased` leaves
those pairs out. With the features `clip` the score is CMMD.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from cmbench.metrics._rows import feature_rows, reference_rows
from cmbench.metrics.base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics.intervals.skewed import tailed_interval

__all__ = ["CMMD"]

Array = NDArray[np.float64]
_BLOCK, _ROWS = 1024, 2048


class CMMD(Metric):
    """Squared maximum mean discrepancy with a Gaussian kernel on rows scaled to length 1."""

    title: ClassVar[str] = "CMMD"
    revision: ClassVar[int] = 2
    outputs: ClassVar[tuple[str, ...]] = ("cmmd",)
    bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    sigma: float = Field(10.0, gt=0, description="width of the kernel")
    scale: float = Field(1000.0, gt=0, description="factor of the result")

    @override
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Returns the value with a U-statistic error; its details: unbiased, reference_count.

        Raises:
            MetricError: Also for a row of length 0, naming the sample.
        """
        rows, other = self._pair(generated, reference)
        within, across, own = self._means(rows, rows), self._means(rows, other), len(rows)
        theirs = self._means(other, other)
        # Equation 1.
        value = self.scale * float(within.mean() + theirs.mean() - 2 * across.mean())
        # The kernel of a row with itself is 1.
        alone = [(v.mean() * n - 1) / (n - 1) for v, n in ((within, own), (theirs, len(other)))]
        terms = self._terms(within, across)
        linear = float(terms.var(ddof=1) / own)
        degenerate, second = self._second_order(rows, terms)
        error = float(np.sqrt(max(linear - degenerate, degenerate / 2)))
        (low, high), tail = tailed_interval(value, error, terms, second)
        details = {
            "unbiased": self.scale * float(sum(alone) - 2 * across.mean()),
            "reference_count": float(len(other)),
            **tail,
        }
        return {"cmmd": Score(value, error, (max(low, 0.0), high), own, details)}

    @override
    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """Returns the influence of each generated image, (N,), mean 0."""
        rows, other = self._pair(generated, reference)
        return {"cmmd": self._terms(self._means(rows, rows), self._means(rows, other))}

    def _terms(self, within: Array, across: Array) -> Array:
        terms = 2 * self.scale * (within - across)
        return terms - terms.mean()

    def _pair(self, generated: Features, reference: Reference | None) -> tuple[Array, Array]:
        rows = feature_rows(generated, "pool", least=2)
        other = reference_rows(reference, "pool", least=2, width=rows.shape[1])
        return _unit(rows, "generated"), _unit(other, "reference")

    def _kernel(self, x: Array, y: Array) -> Array:
        # |x - y|^2 = 2 - 2 x.y for rows of length 1.
        return np.asarray(np.exp((x @ y.T - 1) / self.sigma**2))

    def _means(self, x: Array, y: Array) -> Array:
        """Mean kernel value of each row of x with the rows of y, (N,)."""
        sums = np.zeros(len(x))
        for i in range(0, len(x), _BLOCK):
            for j in range(0, len(y), _BLOCK):
                sums[i : i + _BLOCK] += self._kernel(x[i : i + _BLOCK], y[j : j + _BLOCK]).sum(1)
        return sums / len(y)

    def _second_order(self, rows: Array, terms: Array) -> tuple[float, float]:
        """Variance of the degenerate part and second-order term, from at most 2,048 rows.

        They are equations 4 and 5 of `kernel/error.py`.
        """
        some = slice(None, None, -(-len(rows) // _ROWS))
        values, own = self.scale * self._kernel(rows[some], rows[some]), terms[some]
        n, lines, own = len(values), values.mean(axis=1), own - own.mean()
        values -= lines[:, None]
        values -= lines[None, :]
        values += lines.mean()
        np.fill_diagonal(values, 0.0)
        pairs = n * (n - 1)
        variance = 2 * float((values**2).sum()) / pairs / (len(rows) * (len(rows) - 1))
        return variance, float(2 * (own @ values @ own)) / pairs


def _unit(rows: NDArray[np.float32], owner: str) -> Array:
    exact = rows.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    if not norms.all():
        raise MetricError(f"{owner} sample {np.flatnonzero(norms == 0)[0]} has features 0")
    return np.asarray(exact / norms[:, None])
