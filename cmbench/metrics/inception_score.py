"""Inception score (Salimans et al., 2016, https://arxiv.org/abs/1606.03498).

Mean over splits of exp(mean KL(p(y|x) || mean p)), p = softmax of the layer `logits`. It depends
on the split's size and, with splits in order of arrival, on the order: sample i's split is a
fixed permutation of 0..N-1, torch-fidelity's (NumPy's RandomState 2020, splits cut at floor(i N /
splits)).
"""

from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import log_softmax

from cmbench.metrics._base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics._rows import feature_rows

__all__ = ["InceptionScore"]


class InceptionScore(Metric):
    """exp of the information between image and class, averaged over splits."""

    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (1.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("inception_score",)
    layers: ClassVar[tuple[str, ...]] = ("logits",)
    needs_reference: ClassVar[bool] = False
    splits: int = Field(10, ge=1, description="parts whose scores are averaged")
    seed: int = Field(2020, ge=0, lt=2**32, description="of the permutation that makes the parts")

    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """The score; details: splits, split_deviation (over splits, not an error), one_split.

        Raises:
            MetricError: If a split would have fewer than 2 samples.
        """
        rows = self._rows(generated)
        parts = [_score(rows[index])[0] for index in self._parts(len(rows))]
        terms = self._terms(rows)
        value, error = float(np.mean(parts)), float(terms.std(ddof=1) / np.sqrt(len(rows)))
        details = {
            "splits": float(self.splits),
            "split_deviation": float(np.std(parts)),
            "one_split": _score(rows)[0],
        }
        interval = (max(value - 1.96 * error, 1.0), value + 1.96 * error)
        return {"inception_score": Score(value, error, interval, len(rows), details)}

    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """First-order term of each generated sample, (N,), mean 0: IS (KL_i - mean KL)."""
        return {"inception_score": self._terms(self._rows(generated))}

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

    def _terms(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        terms = np.empty(len(rows))
        for index in self._parts(len(rows)):
            score, divergence = _score(rows[index])
            terms[index] = score * (divergence - divergence.mean())
        return terms


def _score(logits: NDArray[np.float32]) -> tuple[float, NDArray[np.float64]]:
    """exp(mean KL) of some rows, and the KL of each; float64."""
    total, entropy = np.zeros(logits.shape[1]), np.empty(len(logits))
    blocks = [slice(i, i + 4096) for i in range(0, len(logits), 4096)]
    for block in blocks:
        logs = log_softmax(logits[block].astype(np.float64), axis=1)
        shares = np.exp(logs)
        total += shares.sum(axis=0)
        entropy[block] = (shares * logs).sum(axis=1)
    mean = np.log(np.maximum(total / len(logits), np.finfo(np.float64).tiny))
    cross = np.empty(len(logits))
    for block in blocks:
        cross[block] = np.exp(log_softmax(logits[block].astype(np.float64), axis=1)) @ mean
    divergence = entropy - cross
    return float(np.exp(divergence.mean())), divergence
