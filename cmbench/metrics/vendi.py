"""Vendi score: the effective number of different images (Friedman and Dieng, 2023).

It is the exponential of the entropy of the eigenvalues of X^T X / n, the n rows of X scaled to
length 1 (https://arxiv.org/abs/2210.02410). With a_k the eigenvalues of A = X^T X, whose sum is n,

    Vendi = exp(log n - sum a_k log a_k / n)                                                    (1)

Removing a row u (s = -1) or adding one (s = 1) changes sum a log a by

    s + int_0^inf [s / (1 + t) - log(1 + s G(t))] dt                                            (2)
    G(t) = sum (v_k.u)^2 / (a_k + t)                                                            (3)

with v_k the eigenvectors, since x log x = int_0^inf x / (1 + t) - x / (x + t) dt. So the exact
influence of every row follows from one decomposition of the smaller of A and X X^T. The standard
error is that of `intervals/leave_one_out.py`.
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
"""Values of t, in units of the largest eigenvalue."""
_MANY = 4
"""From this many images per dimension the leave-one-out variance needs no correction."""


class Vendi(Metric):
    """Exponential entropy of the spectrum of the generated features' cosine kernel."""

    title: ClassVar[str] = "Vendi"
    aliases: ClassVar[tuple[str, ...]] = ("vendi_score",)
    revision: ClassVar[int] = 2
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (1.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("vendi",)
    needs_reference: ClassVar[bool] = False

    @override
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Returns the score with its leave-one-out error.

        Raises:
            MetricError: Also for a row of length 0, naming the sample.
        """
        value, terms = self._value(generated)
        error = float(terms.std(ddof=1) / np.sqrt(len(terms)))
        interval = (max(value - 1.96 * error, 1.0), value + 1.96 * error)
        return {"vendi": Score(value, error, interval, len(terms))}

    @override
    def influence(self, generated: Features, reference: Reference | None) -> dict[str, Array]:
        """Influence of each generated image, (N,), mean 0; its variance / N is the score's."""
        return {"vendi": self._value(generated)[1]}

    def _value(self, generated: Features) -> tuple[float, Array]:
        rows = feature_rows(generated, "pool", least=2).astype(np.float64)
        norms = np.linalg.norm(rows, axis=1)
        if not norms.all():
            raise MetricError(f"generated sample {np.flatnonzero(norms == 0)[0]} has features 0")
        rows /= norms[:, None]
        fit = _Spectrum.of(rows, np.arange(len(rows)))
        terms = fit.leave_one_out()
        terms -= terms.mean()
        if len(rows) < _MANY * rows.shape[1]:
            linear = float(terms.var(ddof=1) / len(rows))
            variance = shared_variance(
                terms, lambda index: _Spectrum.of(rows, index), width=rows.shape[1]
            )
            terms *= np.sqrt(variance / linear) if linear else 1.0
        return fit.value(), terms


@dataclass(frozen=True)
class _Spectrum:
    """Spectrum of the scatter A of some of the unit rows.

    Args:
        rows: All rows, (N, d).
        index: The n rows that A is made of.
        values: Eigenvalues a_k of A above 0, (k,).
        basis: Eigenvectors v_k, (d, k).
    """

    rows: Array
    index: NDArray[np.int64]
    values: Array
    basis: Array

    @classmethod
    def of(cls, rows: Array, index: NDArray[np.int64]) -> "_Spectrum":
        own = torch.from_numpy(rows[index])
        small = len(index) < rows.shape[1]
        pair = torch.linalg.eigh(own @ own.T if small else own.T @ own)
        values, vectors = pair[0].numpy(), pair[1].numpy()
        kept = values > values.max() * len(values) * np.finfo(np.float64).eps
        values, vectors = values[kept], vectors[:, kept]
        if small:
            vectors = own.numpy().T @ (vectors / np.sqrt(values))
        return cls(rows, index, values, vectors)

    def value(self) -> float:
        """Evaluates equation 1; only rounding could bring it below 1."""
        return max(float(np.exp(self._entropies(len(self.index), np.zeros(1))[0])), 1.0)

    def leave_one_out(self) -> Array:
        """Leave-one-out influence (n,): (n - 1) (score - score without row i)."""
        count = len(self.index)
        return (count - 1) * (self.value() - self._changed(self.index, -1))

    def add_one(self, index: NDArray[np.int64]) -> Array:
        """Add-one influence of other rows: (n + 1) (score with row i - score)."""
        return (len(self.index) + 1) * (self._changed(index, 1) - self.value())

    def _changed(self, index: NDArray[np.int64], sign: int) -> Array:
        """Score with one row added (+1) or removed (-1), for each row at `index`."""
        squares = (self.rows[index] @ self.basis) ** 2
        outside = np.maximum(1 - squares.sum(axis=1), 0.0) if sign > 0 else np.zeros(len(index))
        t = _GRID * self.values.max()
        # Equation 3, then 2 by t = e^v.
        spread = squares @ (1 / (self.values[:, None] + t)) + outside[:, None] / t
        logs = np.log(np.maximum(1 + sign * spread, np.finfo(np.float64).tiny))
        change = sign + (sign / (1 + t) - logs) @ t
        return np.exp(self._entropies(len(self.index) + sign, change))

    def _entropies(self, count: int, change: Array) -> Array:
        """Entropies log n - sum a log a / n, for each change of the sum."""
        total = float((self.values * np.log(self.values)).sum())
        return np.asarray(np.log(count) - (total + change) / count)
