"""Scores per class: matches classes, and scores each against the reference images of that class.

Labels of both sides are read by one rule (`cmbench.datasets._labels`): named classes are matched
by name, numbers by value. A class has few images, so its distance is biased upward by
`details.bias`: compare classes of different models at equal counts, not with the overall score.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError
from cmbench.core.text import printable
from cmbench.datasets._labels import renumbered
from cmbench.external.containers import ImageStream
from cmbench.external.references import DataTarget, FileTarget
from cmbench.metrics.base import Features, Metric, MetricError, Reference
from cmbench.metrics.statistics.file import reference_from_features
from cmbench.record.schema import ScoreRecord

__all__ = ["Classes", "Scorer", "matched_classes", "scores_by_class"]

Scorer = Callable[[Metric, Features, Reference, int], list[ScoreRecord]]


@dataclass(frozen=True)
class Classes:
    """Labels of the generated images (N,) and of the reference (M,), in one numbering.

    Args:
        generated: Labels of the images scored.
        reference: Labels of the reference's images.
        names: Names of the classes in the order of their labels, where they have names.
    """

    generated: NDArray[np.int64]
    reference: NDArray[np.int64]
    names: tuple[str, ...] | None = None

    def name(self, label: int) -> str:
        """Returns the class's name, or its number if it has none."""
        named = self.names is not None and label < len(self.names)
        return printable(self.names[label]) if named and self.names else str(label)

    @property
    def missing(self) -> list[int]:
        """Lists classes of the reference without generated images."""
        return sorted(set(self.reference.tolist()) - set(self.generated.tolist()))


@dataclass
class ClassScores:
    """Records by label, and the classes that could not be scored, with the reason."""

    records: dict[int, list[ScoreRecord]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


def matched_classes(
    stream: ImageStream, target: DataTarget | FileTarget, data: Path | None
) -> Classes:
    """Returns the classes of the images that the stream read and of the reference.

    Raises:
        UserError: If one of them has no labels, or the images have a class that the reference
            does not have.
    """
    labels = stream.labels()
    where = printable(str(stream.path))
    if labels is None:
        what = "holds no labels" if stream.path.is_file() else "not every image lies in a class's"
        raise UserError(
            f"{where}: {what}{'' if stream.path.is_file() else ' folder'}",
            expected="a folder for each class, a dataset.json, or an .npz with arr_1 (labels)",
        )
    images = target.dataset.open(data) if isinstance(target, DataTarget) else None
    known = images.labels() if images is not None else None
    if known is None:
        raise UserError(
            f"the reference has no class labels ({target.words})",
            expected="a data set with classes, such as digits or cifar10",
        )
    names: tuple[str, ...] | None = getattr(images, "names", None)
    own = renumbered(labels, names, where)
    strange = sorted(set(own.tolist()) - set(known.tolist()))
    if strange:
        raise UserError(
            f"the reference has no class {strange[0]}",
            expected=f"{int(known.min())} to {int(known.max())}",
        )
    return Classes(own, known, names)


def scores_by_class(
    metrics: list[Metric],
    generated: Features,
    reference: Reference,
    classes: Classes,
    score: Scorer,
) -> ClassScores:
    """Scores each class of the images by every metric that needs a reference.

    Args:
        metrics: The metrics.
        generated: Features of all images.
        reference: The reference, with the features of all its images.
        classes: Labels of both.
        score: Function of a metric, a class's features, its reference and label.

    Raises:
        UserError: If the reference does not keep the features of all its images.
        MetricError: If no class can be scored, naming the first.
    """
    if reference.features is None or len(reference.features) != len(classes.reference):
        raise UserError("the reference keeps no features of all its images, so it has no classes")
    result = ClassScores()
    comparing = [metric for metric in metrics if metric.needs_reference]
    for label in sorted(set(classes.generated.tolist())):
        own = _of(generated, classes.generated == label)
        other = _of(reference.features, classes.reference == label)
        try:
            against = reference_from_features(other, f"{reference.digest}/{label}")
            result.records[label] = [r for m in comparing for r in score(m, own, against, label)]
        except MetricError as error:
            result.skipped.append(f"class {classes.name(label)}: {error}")
    if not result.records and result.skipped:
        raise MetricError(result.skipped[0])
    return result


def _of(features: Features, mask: NDArray[np.bool_]) -> Features:
    return Features({name: rows[mask] for name, rows in features.layers.items()})
