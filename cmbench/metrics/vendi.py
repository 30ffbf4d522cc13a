"""Vendi score: the effective number of different images (Friedman and Dieng, 2023).

exp of the entropy of the eigenvalues of X^T X / n with rows of length 1
(https://arxiv.org/abs/2210.02410), from the smaller of the n x n and d x d sides.

A row u that leaves or joins n rows with scatter A = sum a_k v_k v_k^T changes sum a log a by

    s + int_0^inf [s / (1 + t) - log(1 + s G(t))] dt,   G(t) = sum (v_k.u)^2 / (a_k + t),

s = -1 or 1, since x log x = int x / (1 + t) - x / (x + t) dt: exact terms for all rows from one
decomposition. The error is theirs, as `_shared_variance` has it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from cmbench.metrics._rows import feature_rows
from cmbench.metrics.base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics.intervals.leave_one_out import shared_variance

__all__ = ["Vendi"]

Array = NDArray[np.float64]
_GRID = np.exp(np.arange(-30.0, 16.0))
"""t in units of the largest eigenvalue."""
_MANY = 4
"""Times as many samples as dimensions: leaving rows out suffices."""


class Vendi(Metric):
    """exp(-sum l log l) over the spectrum of the cosine kernel of the generated features."""

    title: ClassVar[str] = "Vendi"
    aliases: ClassVar[tuple[str, ...]] = ("vendi_score",)
    revision: ClassVar[int] = 2
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (1.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("vendi",)
    needs_reference: ClassVar[bool] = False

    @override
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """The score with the error of its rows left out.

        Raises:
            MetricError: Also for a row of length 0, naming the sample.
        """
        value, terms = self._value(generated)
        error = float(terms.std(ddof=1) / np.sqrt(len(terms)))
        interval = (max(value - 1.96 * error, 1.0), value + 1.96 * error)
        return {"vendi": Score(value, error, interval, len(terms))}

    @override
    def influence(self, generated: Features, reference: Reference | None) -> dict[str, Array]:
        """Term of each generated sample, (N,), mean 0; their variance / N is the score's."""
        return {"vendi": self._value(generated)[1]}

    def _value(self, generated: Features) -> tuple[float, Array]:
        rows = feature_rows(generated, "pool", least=2).astype(np.float64)
        norms = np.linalg.norm(rows, axis=1)
        if not norms.all():
            raise MetricError(f"generated sample {np.flatnonzero(norms == 0)[0]} has features 0")
        rows /= norms[:, None]
        fit = _Fit.of(rows, np.arange(len(rows)))
        terms = fit.left()
        terms -= terms.mean()
        if len(rows) < _MANY * rows.shape[1]:
            linear = float(terms.var(ddof=1) / len(rows))
            variance = shared_variance(
                terms, lambda index: _Fit.of(rows, index), width=rows.shape[1]
            )
            terms *= np.sqrt(variance / linear) if linear else 1.0
        return fit.value(), terms


@dataclass(frozen=True)
class _Fit:
    """The scatter A of some of the unit rows.

    Args:
        rows: All rows, (N, d).
        index: Which of them, n.
        values: Eigenvalues of A above 0.
        basis: From a row to its coordinates v_k.u, (d, k).
    """

    rows: Array
    index: NDArray[np.int64]
    values: Array
    basis: Array

    @classmethod
    def of(cls, rows: Array, index: NDArray[np.int64]) -> "_Fit":
        own = torch.from_numpy(rows[index])
        small = len(index) < rows.shape[1]
        found, turned = torch.linalg.eigh(own @ own.T if small else own.T @ own)
        values, vectors = found.numpy(), turned.numpy()
        kept = values > values.max() * len(values) * np.finfo(np.float64).eps
        values, vectors = values[kept], vectors[:, kept]
        if small:
            vectors = own.numpy().T @ (vectors / np.sqrt(values))
        return cls(rows, index, values, vectors)

    def value(self) -> float:
        # Rounding alone brings it below 1.
        return max(float(np.exp(self._entropies(len(self.index), np.zeros(1))[0])), 1.0)

    def left(self) -> Array:
        """The fall, times n - 1, of the score when each own row leaves, (n,)."""
        count = len(self.index)
        return (count - 1) * (self.value() - self._changed(self.index, -1))

    def joined(self, index: NDArray[np.int64]) -> Array:
        """The rise, times n + 1, of the score when each of other rows joins."""
        return (len(self.index) + 1) * (self._changed(index, 1) - self.value())

    def _changed(self, index: NDArray[np.int64], sign: int) -> Array:
        """The score once each row has come (1) or gone (-1), one at a time."""
        squares = (self.rows[index] @ self.basis) ** 2
        outside = np.maximum(1 - squares.sum(axis=1), 0.0) if sign > 0 else np.zeros(len(index))
        t = _GRID * self.values.max()
        spread = squares @ (1 / (self.values[:, None] + t)) + outside[:, None] / t
        logs = np.log(np.maximum(1 + sign * spread, np.finfo(np.float64).tiny))
        change = sign + (sign / (1 + t) - logs) @ t
        return np.exp(self._entropies(len(self.index) + sign, change))

    def _entropies(self, count: int, change: Array) -> Array:
        """Entropy log n - sum a log a / n, the sum changed."""
        whole = float((self.values * np.log(self.values)).sum())
        return np.asarray(np.log(count) - (whole + change) / count)
