"""Vendi score: the effective number of different images (Friedman and Dieng, 2023).

exp of the entropy of the eigenvalues of X^T X / n with rows of length 1
(https://arxiv.org/abs/2210.02410), from the smaller of the n x n and d x d sides.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from cmbench.metrics._base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics._rows import feature_rows

__all__ = ["Vendi"]


class Vendi(Metric):
    """exp(-sum l log l) over the spectrum of the cosine kernel of the generated features."""

    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (1.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("vendi",)
    needs_reference: ClassVar[bool] = False

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """The score with an influence-function error (first order).

        Raises:
            MetricError: Also for a row of length 0, naming the sample.
        """
        value, terms = self._value(generated)
        error = float(terms.std(ddof=1) / np.sqrt(len(terms)))
        interval = (max(value - 1.96 * error, 1.0), value + 1.96 * error)
        return {"vendi": Score(value, error, interval, len(terms))}

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """First-order term of each generated sample, (N,), mean 0."""
        return {"vendi": self._value(generated)[1]}

    def _value(self, generated: Features) -> tuple[float, NDArray[np.float64]]:
        rows = feature_rows(generated, "pool", least=2).astype(np.float64)
        norms = np.linalg.norm(rows, axis=1)
        if not norms.all():
            raise MetricError(f"generated sample {np.flatnonzero(norms == 0)[0]} has features 0")
        rows /= norms[:, None]
        small = len(rows) < rows.shape[1]
        values, vectors = linalg.eigh((rows @ rows.T if small else rows.T @ rows) / len(rows))
        kept = values > values.max() * len(values) * np.finfo(np.float64).eps
        spectrum, vectors = values[kept], vectors[:, kept]
        logs = np.log(spectrum)
        value = float(np.exp(-(spectrum * logs).sum()))
        # Row i's projections on the eigenvectors: of the kernel's side, sqrt(n l) times the entry.
        squares = vectors**2 * (len(rows) * spectrum) if small else (rows @ vectors) ** 2
        terms = -value * (squares @ logs)
        return value, terms - terms.mean()
