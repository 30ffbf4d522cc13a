"""Inception score (Salimans et al., 2016, https://arxiv.org/abs/1606.03498).

Mean over splits of exp(mean KL(p(y|x) || mean p)), p = softmax of the layer `logits`. It depends
on the split's size and, with splits in order of arrival, on the order: sample i's split is a
fixed permutation of 0..N-1, torch-fidelity's (NumPy's RandomState 2020, splits cut at floor(i N /
splits)).
"""

from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import log_softmax

from cmbench.metrics._base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics._rows import feature_rows

__all__ = ["InceptionScore"]

_BLOCK = 64


class _Pass(NamedTuple):
    parts: list[float]
    terms: NDArray[np.float64]
    together: float
    variance: float


class InceptionScore(Metric):
    """exp of the information between image and class, averaged over splits."""

    revision: ClassVar[int] = 2
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (1.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("inception_score",)
    layers: ClassVar[tuple[str, ...]] = ("logits",)
    needs_reference: ClassVar[bool] = False
    splits: int = Field(10, ge=1, description="parts whose scores are averaged")
    seed: int = Field(2020, ge=0, lt=2**32, description="of the permutation that makes the parts")

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """The score; details: splits, split_deviation (over splits, not an error), one_split.

        The error is the jackknife's, one row left out at a time: the first-order terms alone had
        0.6 of the true error where a split holds fewer rows than there are classes.

        Raises:
            MetricError: If a split would have fewer than 2 samples.
        """
        whole = self._pass(self._rows(generated))
        value = float(np.mean(whole.parts))
        error = float(np.sqrt(whole.variance))
        details = {
            "splits": float(self.splits),
            "split_deviation": float(np.std(whole.parts)),
            "one_split": whole.together,
        }
        interval = (max(value - 1.96 * error, 1.0), value + 1.96 * error)
        return {"inception_score": Score(value, error, interval, len(whole.terms), details)}

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """First-order term of each generated sample, (N,), mean 0: IS (KL_i - mean KL)."""
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
        sums, entropy, variance = np.zeros(rows.shape[1]), 0.0, 0.0
        for index in self._parts(len(rows)):
            shares, own = _shares(rows[index])
            total = shares.sum(axis=0)
            divergence = own - shares @ _log(total / len(index))
            score = float(np.exp(divergence.mean()))
            terms[index] = score * (divergence - divergence.mean())
            parts.append(score)
            variance += _variance(shares, own, total)
            sums += total
            entropy += float(own.sum())
        mean = sums / len(rows)
        together = float(np.exp(entropy / len(rows) - mean @ _log(mean)))
        return _Pass(parts, terms, together, variance / self.splits**2)


def _shares(logits: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Softmax p of each row, (n, C), and its sum of p log p, (n,)."""
    shares, own = np.empty(logits.shape), np.empty(len(logits))
    # A few rows at a time stay in the processor's cache: a quarter of the time, the same bits.
    for start in range(0, len(logits), _BLOCK):
        block = slice(start, start + _BLOCK)
        logs = log_softmax(logits[block].astype(np.float64), axis=1)
        np.exp(logs, out=shares[block])
        own[block] = np.einsum("ij,ij->i", shares[block], logs)
    return shares, own


def _variance(
    shares: NDArray[np.float64], own: NDArray[np.float64], total: NDArray[np.float64]
) -> float:
    """Of a split's score, the jackknife's: (n - 1) / n times the squares about the mean."""
    count, left = len(shares), np.empty(len(shares))
    for start in range(0, count, _BLOCK):
        block = slice(start, start + _BLOCK)
        mean = (total - shares[block]) / (count - 1)
        left[block] = -np.einsum("ij,ij->i", mean, _log(mean))
    left = np.exp(left + (own.sum() - own) / (count - 1))
    return float((count - 1) * left.var())


def _log(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(mean, np.finfo(np.float64).tiny))
