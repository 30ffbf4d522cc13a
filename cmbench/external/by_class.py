"""Scores by class: which images belong to which, and each class against its own reference.

Labels of images made elsewhere: the folder that a file lies in (numbers as they are, other names
by their order), or the array `arr_1` or `labels` of an .npz. Those of the reference are its data
set's. A class has few images, so its distance is high by `details.bias`: compare classes at equal
counts, and with other models', not with the score of all.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError
from cmbench.external.containers import ImageStream
from cmbench.external.references import DataTarget, FileTarget
from cmbench.metrics.base import Features, Metric, MetricError, Reference
from cmbench.metrics.statistics.file import reference_from_features
from cmbench.record.schema import ScoreRecord

__all__ = ["Scorer", "class_labels", "scores_by_class", "target_labels"]

Labels = NDArray[np.int64]
Scorer = Callable[[Metric, Features, Reference, int], list[ScoreRecord]]
_ARRAYS = ("arr_1", "labels")


def class_labels(stream: ImageStream) -> Labels:
    """Label of each image that the stream handed out, (N,).

    Raises:
        UserError: If the container has none.
    """
    if stream.path.suffix.lower() == ".npz":
        return _from_array(stream)
    names = stream.folders
    if not names or "" in names:
        raise UserError(
            f"{stream.path}: not every image lies in a class's folder",
            expected="a folder a class, or an .npz with arr_1 (labels)",
        )
    known = sorted(set(names))
    if all(name.isdigit() for name in known):
        return np.array([int(name) for name in names], np.int64)
    return np.array([known.index(name) for name in names], np.int64)


def _from_array(stream: ImageStream) -> Labels:
    with np.load(stream.path, allow_pickle=False) as file:
        name = next((n for n in _ARRAYS if n in file.files), None)
        if name is None:
            raise UserError(
                f"{stream.path} holds no labels", expected="an array arr_1 or labels, (N,)"
            )
        found = file[name]
    if found.ndim == 2:
        found = found.argmax(axis=1)
    if found.shape != (stream.total,) or not np.issubdtype(found.dtype, np.integer):
        raise UserError(
            f"{stream.path}: {name} is {found.dtype} {found.shape}",
            expected=f"one whole number for each of {stream.total} images",
        )
    return found.astype(np.int64)


def target_labels(target: DataTarget | FileTarget, data: Path | None) -> Labels:
    """Label of each image of the reference, (M,).

    Raises:
        UserError: If it has none.
    """
    labels = target.dataset.open(data).labels() if isinstance(target, DataTarget) else None
    if labels is None:
        raise UserError(
            f"the reference has no class labels ({target.words})",
            expected="a data set with classes, such as digits or cifar10",
        )
    return labels


def scores_by_class(
    metrics: list[Metric],
    generated: Features,
    labels: Labels,
    reference: Reference,
    known: Labels,
    score: Scorer,
) -> dict[int, list[ScoreRecord]]:
    """Every metric that compares, for each class of the images.

    Args:
        metrics: The metrics.
        generated: Features of all images.
        labels: Their labels.
        reference: With the features of all its images.
        known: Their labels.
        score: Makes records of a metric, a class's features, its reference and label.

    Raises:
        UserError: For a class that the reference does not have.
        MetricError: For a class with too few images, naming it.
    """
    if reference.features is None or len(reference.features) != len(known):
        raise UserError("the reference keeps no features of all its images, so it has no classes")
    strange = sorted(set(labels.tolist()) - set(known.tolist()))
    if strange:
        raise UserError(f"the reference has no class {strange[0]}",
                        expected=f"0 to {int(known.max())}")  # fmt: skip
    found = {}
    for label in sorted(set(labels.tolist())):
        own, other = _of(generated, labels == label), _of(reference.features, known == label)
        against = reference_from_features(other, f"{reference.digest}/{label}")
        try:
            found[label] = [
                record
                for metric in metrics
                if metric.needs_reference
                for record in score(metric, own, against, label)
            ]
        except MetricError as error:
            raise MetricError(f"class {label}: {error}") from None
    return found


def _of(features: Features, chosen: NDArray[np.bool_]) -> Features:
    return Features({name: rows[chosen] for name, rows in features.layers.items()})
