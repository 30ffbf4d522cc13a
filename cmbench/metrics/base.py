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
    """Features that a metric can't score: too few, not finite, of another width."""


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d; divided by n - 1) of n feature rows, float64."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    count: int

    def reduced(self, exponent: int) -> "Moments":
        """Of the rows over 2^exponent."""
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


Bounds = tuple[float | None, float | None]
Influence = dict[str, NDArray[np.float64]]


class Metric(Component, ABC):
    """Scores generated images by their features. All that boards and tests must know of a metric
    is stated here, so that one file makes a metric.
    """

    kind: ClassVar[str] = "metric"
    higher_is_better: ClassVar[bool] = False
    title: ClassVar[str] = ""
    """How tables call its score, if not by the score's name with spaces."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names of the field, in lower case, which an error answers with this metric's name."""
    bounds: ClassVar[Bounds] = (None, None)
    """Least and greatest value that there can be, where there are such."""
    outputs: ClassVar[tuple[str, ...]] = ()
    """Names of the scores; one metric may give several (precision and recall)."""
    layers: ClassVar[tuple[str, ...]] = ("pool",)
    """Extractor layers it reads."""
    needs_reference: ClassVar[bool] = True
    needs_rows: ClassVar[bool] = True
    """Whether it reads the reference's rows: moments alone do not suffice."""
    by_reference: ClassVar[tuple[str, ...]] = ()
    """Scores whose terms belong to reference images: pairing by noise says nothing of them."""
    revision: ClassVar[int] = 1
    """Raised when the same features get other numbers; scores of earlier ones are made again."""
    least: ClassVar[int] = 2
    """Fewest generated images that it accepts, whatever its parameters."""

    def fewest(self) -> int:
        """Fewest generated images that it accepts with these parameters."""
        return self.least

    def fewest_reference(self) -> int:
        """Fewest reference images that it accepts with these parameters."""
        return 2

    def version(self) -> int:
        """The revision of the numbers that these settings give: `revision`, or a later one."""
        return self.revision

    @abstractmethod
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """One Score for each name in `outputs`.

        Raises:
            MetricError: For too few samples, features that are not finite (naming the sample),
                or a reference of another width.
        """

    def influence(self, generated: Features, reference: Reference | None) -> Influence | None:
        """First-order terms (N,) of each score by generated image, mean 0; None without such.

        Two cells at the same noise are compared by the difference of their terms.
        """
        return None

    def bounds_of(self, output: str) -> Bounds:
        """Bounds of one score."""
        return self.bounds

    def title_of(self, output: str, extractor: FeatureExtractor) -> str:
        """How tables call a score in a feature space; other spaces than the usual are named."""
        name = self.title or output.replace("_", " ")
        return name if extractor.plain_titles else f"{name} ({extractor.distance_name})"

    def has_terms(self, output: str) -> bool:
        """Whether a score has terms by generated image."""
        return type(self).influence is not Metric.influence and output not in self.by_reference

    def terms(self, generated: Features, reference: Reference | None, output: str) -> Any:
        """Influence terms (N,) of one score, or None where it has none by generated image."""
        if not self.has_terms(output):
            return None
        found = self.influence(generated, reference)
        return None if found is None else found.get(output)
