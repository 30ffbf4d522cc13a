"""Inception score (Salimans et al., 2016, https://arxiv.org/abs/1606.03498).

Mean over splits of exp(mean KL(p(y|x) || mean p)), p = softmax of the layer `logits`. It depends
on the split's size and, with splits in order of arrival, on the order: sample i's split is a
fixed permutation of 0..N-1, torch-fidelity's (NumPy's RandomState 2020, splits cut at floor(i N /
splits)). Softmax in float32, sums in float64: 1e-8 of the score.

The error leaves out one row at a time: the first-order terms alone had 0.6 of the true error where
a split holds fewer rows than there are classes. What the terms then hold too often is taken off by
`_shared_variance`, or, with four times as many rows as classes and more, as the variance of the
quadratic part, E[(sum_c (p_c - q_c) (p'_c - q_c) / q_c)^2] IS^2 / (2 n^2).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import xlogy

from cmbench.metrics._rows import feature_rows
from cmbench.metrics.base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics.intervals.leave_one_out import shared_variance

__all__ = ["InceptionScore"]

Array = NDArray[np.float64]
Shares = NDArray[np.float32]
_BLOCK = 64
_MANY = 4
"""Times as many rows as classes: a quadratic part describes the excess."""
_SOME = 256
"""Rows that the quadratic part is estimated from."""
_NEAR = 0.05
"""Share of a class that a row may hold for the series in `_without`."""


class _Pass(NamedTuple):
    parts: list[float]
    terms: Array
    together: float


class InceptionScore(Metric):
    """exp of the information between image and class, averaged over splits."""

    title: ClassVar[str] = "Inception Score"
    aliases: ClassVar[tuple[str, ...]] = ("is", "isc")
    revision: ClassVar[int] = 3
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (1.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("inception_score",)
    layers: ClassVar[tuple[str, ...]] = ("logits",)
    needs_reference: ClassVar[bool] = False
    splits: int = Field(10, ge=1, le=10_000, description="parts whose scores are averaged")
    seed: int = Field(2020, ge=0, lt=2**32, description="of the permutation that makes the parts")

    def fewest(self) -> int:
        """Two in each split."""
        return 2 * self.splits

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """The score; details: splits, split_deviation (over splits, not an error), one_split.

        Raises:
            MetricError: If a split would have fewer than 2 samples.
        """
        whole = self._pass(self._rows(generated))
        value = _known(float(np.mean(whole.parts)))
        error = float(np.sqrt((whole.terms**2).sum())) / len(whole.terms)
        details = {
            "splits": float(self.splits),
            "split_deviation": float(np.std(whole.parts)),
            "one_split": max(whole.together, 1.0),
        }
        interval = (max(value - 1.96 * error, 1.0), value + 1.96 * error)
        return {"inception_score": Score(value, error, interval, len(whole.terms), details)}

    def value(self, generated: Features) -> float:
        """The score alone.

        Raises:
            MetricError: As `scores`.
        """
        rows = self._rows(generated)
        return _known(np.mean([_Part.of(rows, i).score() for i in self._parts(len(rows))]))

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """Term of each generated sample, (N,), mean 0: what leaving it out does to the score."""
        return {"inception_score": self._pass(self._rows(generated)).terms}

    def _rows(self, generated: Features) -> NDArray[np.float32]:
        rows = feature_rows(generated, "logits", least=2)
        if len(rows) < 2 * self.splits:
            raise MetricError(
                f"{len(rows)} samples are too few for {self.splits} splits: "
                f"at least {2 * self.splits} are needed"
            )
        return rows

    def _parts(self, count: int) -> list[NDArray[np.int64]]:
        # The old generator, since the permutation must be torch-fidelity's.
        order = np.random.RandomState(self.seed).permutation(count)
        edges = [i * count // self.splits for i in range(self.splits + 1)]
        return [order[a:b] for a, b in pairwise(edges)]

    def _pass(self, rows: NDArray[np.float32]) -> _Pass:
        """One pass over the logits: each part's score, its rows' terms, and the score of all."""
        terms, parts = np.empty(len(rows)), []
        sums, entropy = np.zeros(rows.shape[1]), 0.0
        for index in self._parts(len(rows)):
            part = _Part.of(rows, index)
            parts.append(part.score())
            terms[index] = part.terms()
            sums += part.total
            entropy += float(part.own.sum())
        mean = sums / len(rows)
        together = float(np.exp(entropy / len(rows) - xlogy(mean, mean).sum()))
        return _Pass(parts, terms, together)


def _known(value: float | np.floating) -> float:
    """The score, which rounding alone brings below 1.

    Raises:
        MetricError: If it is not finite.
    """
    if not np.isfinite(value):
        raise MetricError("a sample's logits lie further apart than float32 can tell")
    return max(float(value), 1.0)


@dataclass(frozen=True)
class _Part:
    """Rows of one split, or some of them.

    Args:
        shares: Softmax p of each row, (n, C).
        own: Its sum of p log p, (n,).
        total: Sum of p over the rows fitted, (C,).
        index: Rows fitted.
    """

    shares: Shares
    own: Array
    total: Array
    index: NDArray[np.int64]

    @classmethod
    def of(cls, logits: NDArray[np.float32], index: NDArray[np.int64]) -> "_Part":
        shares, own = np.empty((len(index), logits.shape[1]), np.float32), np.empty(len(index))
        total = np.zeros(logits.shape[1])
        # A few rows at a time stay in the processor's cache.
        for start in range(0, len(index), _BLOCK):
            block = slice(start, start + _BLOCK)
            logs = torch.log_softmax(torch.from_numpy(logits[index[block]]), dim=1)
            p = logs.exp()
            own[block] = (p * logs).sum(dim=1).numpy()
            shares[block] = p.numpy()
            total += p.sum(dim=0).numpy()
        return cls(shares, own, total, np.arange(len(index)))

    def fit(self, index: NDArray[np.int64]) -> "_Part":
        """Of some of the rows."""
        total = self.shares[index].sum(axis=0, dtype=np.float64)
        return _Part(self.shares, self.own, total, index)

    def score(self) -> float:
        return float(np.exp(self._divergence(0, float(xlogy(self.total, self.total).sum()), 0.0)))

    def terms(self) -> Array:
        """Of all rows, mean 0; their variance / n is the score's."""
        found = self.left()
        found -= found.mean()
        count, classes = self.shares.shape
        linear = float(found.var(ddof=1) / count)
        if linear == 0:
            return found
        if count < _MANY * classes:
            variance = shared_variance(found, self.fit, width=classes)
        else:
            variance = max(linear - self._quadratic(), linear / 2)
        return np.asarray(found * np.sqrt(variance / linear))

    def left(self) -> Array:
        """The fall, times n - 1, of the score when each row leaves, (n,)."""
        sums = np.empty(len(self.index))
        for start in range(0, len(sums), _BLOCK):
            block = slice(start, start + _BLOCK)
            sums[block] = _without(self.total, self.shares[self.index[block]])
        after = self._divergence(-1, sums, -self.own[self.index])
        return (len(sums) - 1) * (self.score() - np.exp(after))

    def joined(self, index: NDArray[np.int64]) -> Array:
        """The rise, times n + 1, of the score when each of other rows joins."""
        totals = self.total + self.shares[index]
        after = self._divergence(1, xlogy(totals, totals).sum(axis=1), self.own[index])
        return (len(self.index) + 1) * (np.exp(after) - self.score())

    def _divergence(self, sign: int, sums: float | Array, own: float | Array) -> Array:
        """Mean KL from the sum of t log t over classes, t the rows' total, once rows changed."""
        count = len(self.index) + sign
        negative = self.own[self.index].sum() + own
        return np.asarray(negative / count - sums / count + np.log(count))

    def _quadratic(self) -> float:
        """Variance of the score's quadratic part."""
        count = len(self.index)
        mean = self.total / count
        some = self.shares[:: -(-count // _SOME)].astype(np.float64)
        gaps = (some - mean) / np.sqrt(np.maximum(mean, np.finfo(np.float64).tiny))
        products = gaps @ gaps.T
        np.fill_diagonal(products, 0.0)
        pairs = len(some) * (len(some) - 1)
        return self.score() ** 2 * float((products**2).sum()) / pairs / (2 * count**2)


def _without(total: Array, shares: Shares) -> Array:
    """Sum over classes of t log t, t = total - p, for each row p, (n,).

    (1 - r) log(1 - r) = r (-1 + r / 2 + r^2 / 6 + r^3 / 12 + ...) with r = p / total; the series
    serves where a row holds little of a class, and the few other places are computed as they are.
    """
    some = np.maximum(total, np.finfo(np.float32).tiny)
    r = shares * (1 / some).astype(np.float32)
    series = ((r / 12 + 1 / 6) * r + 1 / 2) * r - 1 - np.log(some).astype(np.float32)
    found = float(xlogy(total, total).sum()) + np.einsum("ij,ij->i", shares, series).astype(float)
    rows, classes = np.divmod(np.flatnonzero(r > _NEAR), len(total))
    exact = shares[rows, classes].astype(np.float64)
    t, before = np.maximum(some[classes] - exact, 0.0), exact / some[classes]
    rough = exact * (((before / 12 + 1 / 6) * before + 1 / 2) * before - 1)
    exact = xlogy(t, np.maximum(t / some[classes], np.finfo(np.float64).tiny)) - rough
    return np.asarray(found + np.bincount(rows, exact, len(shares)))
