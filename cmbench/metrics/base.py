"""The contract of a metric: features of generated and reference images in, a score out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cmbench.core.component import Component
from cmbench.core.errors import CmbenchError
from cmbench.features.base import FeatureExtractor

__all__ = [
    "Bounds",
    "Features",
    "Influence",
    "Metric",
    "MetricError",
    "Moments",
    "Reference",
    "Score",
]


class MetricError(CmbenchError):
    """Raised for features that a metric can't score: too few, not finite, or of another width."""


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d; divided by n - 1) of n feature rows, float64."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    count: int

    def reduced(self, exponent: int) -> "Moments":
        """Returns the moments of the rows divided by 2^exponent."""
        if not exponent:
            return self
        mean, covariance = np.ldexp(self.mean, -exponent), np.ldexp(self.covariance, -2 * exponent)
        return Moments(mean, covariance, self.count)


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
    """Results that several metrics share (moments, radii), each under its own key."""

    def __len__(self) -> int:
        return len(next(iter(self.layers.values())))


@dataclass
class Reference:
    """The images that generated ones are compared with: features, or only moments, by layer.

    Args:
        digest: SHA-256 of its source data; part of the protocol fingerprint.
        features: Features of the data set, or of part of it, where they are stored.
        moments: Layer name to moments of the full data set.
    """

    digest: str
    features: Features | None = None
    moments: dict[str, Moments] = field(default_factory=dict)
    cache: dict[str, object] = field(default_factory=dict, repr=False)
    """Roots and radii, computed once and shared by every cell compared with it."""


@dataclass(frozen=True)
class Score:
    """A metric's value with its uncertainty.

    Args:
        value: The number.
        error: Standard error from the sampling of the generated images; None if unknown.
        interval: 95% confidence interval.
        count: Number of generated images used.
        details: Related numbers, such as the bias at this count or the reference's count.
    """

    value: float
    error: float | None
    interval: tuple[float, float] | None
    count: int
    details: dict[str, float] = field(default_factory=dict)


Bounds = tuple[float | None, float | None]
Influence = dict[str, NDArray[np.float64]]


class Metric(Component, ABC):
    """Scores generated images by their features.

    Everything that leaderboards and tests need to know about a metric is stated here, so that a
    metric is one file.
    """

    kind: ClassVar[str] = "metric"
    higher_is_better: ClassVar[bool] = False
    title: ClassVar[str] = ""
    """Title of its score in tables; empty: the score's name with spaces."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names in common use, in lower case; an error message suggests this metric for them."""
    bounds: ClassVar[Bounds] = (None, None)
    """Least and greatest possible value; None where there is no such bound."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """Names of the scores; one metric may return several (precision and recall)."""
    layers: ClassVar[tuple[str, ...]] = ("pool",)
    """Extractor layers that it reads."""
    needs_reference: ClassVar[bool] = True
    needs_rows: ClassVar[bool] = True
    """Whether it needs the reference's feature rows: moments alone do not suffice."""
    by_reference: ClassVar[tuple[str, ...]] = ()
    """Scores whose terms belong to reference images, so that pairing by noise does not apply."""
    revision: ClassVar[int] = 1
    """Raised when the numbers for the same features change; older scores are recomputed."""
    least: ClassVar[int] = 2
    """Smallest number of generated images that it accepts, whatever its parameters."""

    def fewest(self) -> int:
        """Fewest generated images that it accepts with these parameters."""
        return self.least

    def fewest_reference(self) -> int:
        """Fewest reference images that it accepts with these parameters."""
        return 2

    def version(self) -> int:
        """Returns the revision of these settings' numbers: `revision`, or a later one."""
        return self.revision

    @abstractmethod
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Computes one Score for each name in `outputs`.

        Raises:
            MetricError: If there are too few samples, a feature is not finite (naming the
                sample), or the reference has another width.
        """

    def influence(self, generated: Features, reference: Reference | None) -> Influence | None:
        """First-order terms (N,) of each score per generated image, mean 0; None if it has none.

        Two cells that share their noise are compared by the difference of their terms.
        """
        return None

    def bounds_of(self, output: str) -> Bounds:
        """Returns the bounds of one score."""
        return self.bounds

    def title_of(self, output: str, extractor: FeatureExtractor) -> str:
        """Title of a score in tables; an unusual feature space is named."""
        name = self.title or output.replace("_", " ")
        return name if extractor.plain_titles else f"{name} ({extractor.distance_name})"

    def has_terms(self, output: str) -> bool:
        """True if a score has terms per generated image."""
        return type(self).influence is not Metric.influence and output not in self.by_reference

    def terms(self, generated: Features, reference: Reference | None, output: str) -> Any:
        """Influence (N,) of each generated image on one score, or None where it has none."""
        if not self.has_terms(output):
            return None
        influence = self.influence(generated, reference)
        return None if influence is None else influence.get(output)
