"""The contract of a metric: features of generated and reference images in, a score out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cmbench.core.component import Component
from cmbench.core.errors import CmbenchError

__all__ = [
    "BY_REFERENCE",
    "Features",
    "Metric",
    "MetricError",
    "Moments",
    "Reference",
    "Score",
    "terms_of",
]


class MetricError(CmbenchError):
    """Features that a metric can't score: too few, not finite, of another width."""


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d; divided by n - 1) of n feature rows, float64."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    count: int


@dataclass
class Features:
    """Features of a set of images, by layer: float32 arrays (N, d), row i is image i.

    Args:
        layers: Layer name to its array.
        labels: Class label of each image, (N,), where there are classes.
    """

    layers: dict[str, NDArray[np.float32]]
    labels: NDArray[np.int64] | None = None
    cache: dict[str, object] = field(default_factory=dict, repr=False)
    """Results that several metrics share (moments, radii), by a key of their own."""

    def __len__(self) -> int:
        return len(next(iter(self.layers.values())))


@dataclass
class Reference:
    """What generated images are compared with: features, or only their moments, by layer.

    Args:
        digest: SHA-256 of what it was made from; part of the protocol fingerprint.
        features: Features of (a part of) the data set, where they are kept.
        moments: Layer name to moments of the whole data set.
    """

    digest: str
    features: Features | None = None
    moments: dict[str, Moments] = field(default_factory=dict)
    cache: dict[str, object] = field(default_factory=dict, repr=False)
    """Roots and radii made once and shared by every cell compared with it."""


@dataclass(frozen=True)
class Score:
    """A metric's value with its uncertainty.

    Args:
        value: The number.
        error: Standard error from the sampling of the generated images; None if unknown.
        interval: 95% confidence interval.
        count: Generated images used.
        details: Other numbers that belong to it (the bias at this count, the reference's count).
    """

    value: float
    error: float | None
    interval: tuple[float, float] | None
    count: int
    details: dict[str, float] = field(default_factory=dict)


class Metric(Component, ABC):
    """Scores generated images by their features."""

    kind: ClassVar[str] = "metric"
    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float | None, float | None]] = (None, None)
    outputs: ClassVar[tuple[str, ...]] = ()
    """Names of the scores; one metric may give several (precision and recall)."""
    layers: ClassVar[tuple[str, ...]] = ("pool",)
    """Extractor layers it reads."""
    needs_reference: ClassVar[bool] = True
    revision: ClassVar[int] = 1
    """Raised when the same features get other numbers; scores of earlier ones are made again."""
    least: ClassVar[int] = 2
    """Fewest generated images that it accepts."""

    @abstractmethod
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """One Score for each name in `outputs`.

        Raises:
            MetricError: For too few samples, features that are not finite (naming the sample),
                or a reference of another width.
        """


BY_REFERENCE = ("recall", "coverage")
"""Scores whose terms belong to reference rows, which a pairing of noise says nothing of."""


def terms_of(metric: Metric, features: Features, reference: Reference | None, name: str) -> Any:
    """Influence terms (N,) of a score, or None for a metric that has none by sample."""
    influence: Callable[..., dict[str, NDArray[np.float64]]] | None
    influence = getattr(metric, "influence", None)
    if influence is None or name in BY_REFERENCE:
        return None
    return influence(features, reference).get(name)
