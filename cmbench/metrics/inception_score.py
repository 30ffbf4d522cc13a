"""Inception Score (Salimans et al., 2016, https://arxiv.org/abs/1606.03498).

The score is the mean over splits of exp(mean KL(p(y|x) || mean p)), p = softmax of the layer
`logits`. It depends on the size of a split and on which images share one: image i's split is a
fixed permutation of 0..N-1, torch-fidelity's (NumPy's RandomState 2020, cut at floor(i N /
splits)). `inception/score.py` computes the value, `inception/error.py` its error.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from cmbench.metrics._rows import feature_rows
from cmbench.metrics.base import Features, Metric, MetricError, Reference, Score
from cmbench.metrics.inception.error import InceptionTerms, inception_terms
from cmbench.metrics.inception.score import inception_score, split_indices

__all__ = ["InceptionScore"]


class InceptionScore(Metric):
    """Exponential information between image and class, averaged over splits."""

    title: ClassVar[str] = "Inception Score"
    aliases: ClassVar[tuple[str, ...]] = ("is", "isc")
    revision: ClassVar[int] = 3
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (1.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("inception_score",)
    layers: ClassVar[tuple[str, ...]] = ("logits",)
    needs_reference: ClassVar[bool] = False
    splits: int = Field(
        10, ge=1, le=10_000, description="number of splits whose scores are averaged"
    )
    seed: int = Field(
        2020, ge=0, lt=2**32, description="seed of the permutation that assigns images to splits"
    )

    @override
    def fewest(self) -> int:
        """Two in each split."""
        return 2 * self.splits

    @override
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Returns the score; details: splits, split_deviation (not an error), one_split.

        Raises:
            MetricError: If a split would have fewer than 2 samples.
        """
        terms = self._terms(generated)
        value = _checked(float(np.mean(terms.scores)))
        error = float(np.sqrt((terms.influence**2).sum())) / len(terms.influence)
        details = {
            "splits": float(self.splits),
            "split_deviation": float(np.std(terms.scores)),
            "one_split": max(terms.one_split, 1.0),
        }
        interval = (max(value - 1.96 * error, 1.0), value + 1.96 * error)
        return {"inception_score": Score(value, error, interval, len(terms.influence), details)}

    def value(self, generated: Features) -> float:
        """Computes the score without its error.

        Raises:
            MetricError: If a split would have fewer than 2 samples.
        """
        rows = self._rows(generated)
        return _checked(inception_score(rows, split_indices(len(rows), self.splits, self.seed)))

    @override
    def influence(
        self, generated: Features, reference: Reference | None
    ) -> dict[str, NDArray[np.float64]]:
        """Influence of each generated image on its split's score, (N,), mean 0."""
        return {"inception_score": self._terms(generated).influence}

    def _terms(self, generated: Features) -> InceptionTerms:
        rows = self._rows(generated)
        return inception_terms(rows, split_indices(len(rows), self.splits, self.seed))

    def _rows(self, generated: Features) -> NDArray[np.float32]:
        rows = feature_rows(generated, "logits", least=2)
        if len(rows) < 2 * self.splits:
            raise MetricError(
                f"{len(rows)} samples are too few for {self.splits} splits: "
                f"at least {2 * self.splits} are needed"
            )
        return rows


def _checked(value: float) -> float:
    """Returns the score, at least 1: only rounding could bring it below.

    Raises:
        MetricError: If it is not finite.
    """
    if not np.isfinite(value):
        raise MetricError("a sample's logits lie further apart than float32 can tell")
    return max(value, 1.0)
