"""The uncertainty of the Inception Score: influence of each image and its variance.

Without image i, equation 2 of `score.py` holds with n - 1 images, its first sum less
sum_c p_ic log p_ic, and the total t - p_i. The influence of image i on its split's score is

    psi_i = (n - 1) (IS - IS without i)                                                         (1)

First-order terms alone would have 0.6 of the true error where a split has fewer images than
classes. With r = p / t the second sum needs, for each image and class,

    (t - p) log(t - p) = t log t - p log t + t (1 - r) log(1 - r)                               (2)
    t (1 - r) log(1 - r) = p (-1 + r / 2 + r^2 / 6 + r^3 / 12 + ...)                            (3)

The variance of psi exceeds that of the score. With fewer than four times as many images as
classes, `intervals/leave_one_out.py` removes the excess. With more images it is the variance of
the quadratic part,

    IS^2 E[(sum_c (p_c - q_c) (p'_c - q_c) / q_c)^2] / (2 n^2)                                  (4)
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from cmbench.metrics.inception.score import Probabilities, divergence
from cmbench.metrics.intervals.leave_one_out import shared_variance

__all__ = ["InceptionTerms", "inception_terms"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_BLOCK = 64
_MANY = 4
"""From this many images per class the excess variance is equation 4."""
_SOME = 256
"""Number of rows that the quadratic part is estimated from."""
_NEAR = 0.05
"""Largest r for which the series of equation 3 serves."""


class InceptionTerms(NamedTuple):
    """Inception Score of each split, with the influence of each image.

    Args:
        scores: Score of each split.
        influence: Influence of each image on its split's score, (N,), mean 0 in each split.
        one_split: Score of all images taken as one split.
    """

    scores: list[float]
    influence: Array
    one_split: float


def inception_terms(logits: NDArray[np.float32], splits: list[Index]) -> InceptionTerms:
    """Computes scores and influence in one pass over the logits (N, C)."""
    influence, scores = np.empty(len(logits)), []
    sums, entropy = np.zeros(logits.shape[1]), 0.0
    for index in splits:
        split = Probabilities.of(logits, index)
        scores.append(split.score())
        influence[index] = _influence(split)
        sums += split.total
        entropy += float(split.negative_entropy.sum())
    mean = sums / len(logits)
    one_split = float(np.exp(entropy / len(logits) - xlogy(mean, mean).sum()))
    return InceptionTerms(scores, influence, one_split)


def _influence(split: Probabilities) -> Array:
    """Influence of each image, (n,), mean 0; its variance / n is that of the split's score."""
    count, classes = split.rows.shape
    everyone = _Fit(split, split.total, np.arange(count))
    terms = everyone.leave_one_out()
    terms -= terms.mean()
    linear = float(terms.var(ddof=1) / count)
    if linear == 0:
        return terms
    if count < _MANY * classes:
        variance = shared_variance(terms, lambda index: _Fit.of(split, index), width=classes)
    else:
        variance = max(linear - _quadratic_variance(split), linear / 2)
    return np.asarray(terms * np.sqrt(variance / linear))


@dataclass(frozen=True)
class _Fit:
    """The score of some images of a split.

    Args:
        split: All images of the split.
        total: Sum t of p over the fitted images, (C,).
        index: The fitted images, n.
    """

    split: Probabilities
    total: Array
    index: Index

    @classmethod
    def of(cls, split: Probabilities, index: Index) -> "_Fit":
        """Fits the images at `index`."""
        return cls(split, split.rows[index].sum(axis=0, dtype=np.float64), index)

    def leave_one_out(self) -> Array:
        """Leave-one-out influence (n,), equation 1."""
        sums = np.empty(len(self.index))
        for start in range(0, len(sums), _BLOCK):
            block = slice(start, start + _BLOCK)
            sums[block] = _t_log_t_without(self.total, self.split.rows[self.index[block]])
        after = self._divergence(-1, sums, -self.split.negative_entropy[self.index])
        return (len(sums) - 1) * (self._score() - np.exp(after))

    def add_one(self, index: Index) -> Array:
        """Add-one influence of other images: (n + 1) (IS with i - IS)."""
        totals = self.total + self.split.rows[index]
        sums = xlogy(totals, totals).sum(axis=1)
        after = self._divergence(1, sums, self.split.negative_entropy[index])
        return (len(self.index) + 1) * (np.exp(after) - self._score())

    def _score(self) -> float:
        t_log_t = float(xlogy(self.total, self.total).sum())
        return float(np.exp(self._divergence(0, t_log_t, 0.0)))

    def _divergence(self, sign: int, t_log_t: float | Array, change: float | Array) -> Array:
        """Mean divergence with `sign` more images, whose p log p sum to `change`."""
        entropy = self.split.negative_entropy[self.index].sum()
        return divergence(entropy + change, t_log_t, len(self.index) + sign)


def _quadratic_variance(split: Probabilities) -> float:
    """Evaluates equation 4, its mean over pairs of at most 256 images."""
    count = len(split.rows)
    mean = split.total / count
    some = split.rows[:: -(-count // _SOME)].astype(np.float64)
    gaps = (some - mean) / np.sqrt(np.maximum(mean, np.finfo(np.float64).tiny))
    products = gaps @ gaps.T
    np.fill_diagonal(products, 0.0)
    pairs = len(some) * (len(some) - 1)
    return split.score() ** 2 * float((products**2).sum()) / pairs / (2 * count**2)


def _t_log_t_without(total: Array, rows: NDArray[np.float32]) -> Array:
    """Sum over classes of (t - p) log(t - p) for each row p, (n,), by equations 2 and 3.

    The few entries where a row holds much of a class are computed by equation 2 alone.
    """
    some = np.maximum(total, np.finfo(np.float32).tiny)
    r = rows * (1 / some).astype(np.float32)
    series = ((r / 12 + 1 / 6) * r + 1 / 2) * r - 1 - np.log(some).astype(np.float32)
    sums = float(xlogy(total, total).sum()) + np.einsum("ij,ij->i", rows, series).astype(float)
    large, classes = np.divmod(np.flatnonzero(r > _NEAR), len(total))
    exact = rows[large, classes].astype(np.float64)
    t, share = np.maximum(some[classes] - exact, 0.0), exact / some[classes]
    rough = exact * (((share / 12 + 1 / 6) * share + 1 / 2) * share - 1)
    exact = xlogy(t, np.maximum(t / some[classes], np.finfo(np.float64).tiny)) - rough
    return np.asarray(sums + np.bincount(large, exact, len(rows)))
