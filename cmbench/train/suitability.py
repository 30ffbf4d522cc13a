"""Checks before a training run: images, labels and teacher must fit the model.

A wrong size or a missing label would often go unnoticed: a convolutional network accepts any
size, and a label embedding without a label keeps its random values.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from cmbench.core.errors import UserError
from cmbench.datasets.base import ImageSet
from cmbench.train.recipe import Recipe

__all__ = ["require_images", "require_suitable"]


def require_suitable(
    recipe: Recipe, student: nn.Module, images: ImageSet, teacher: nn.Module | None
) -> None:
    """Refuses images or a teacher that do not fit the student.

    Raises:
        UserError: If shape or classes differ, or a label is missing or out of range.
    """
    name, classes = recipe.recipe, int(getattr(student, "classes", 0))
    shape = getattr(student, "shape", None)
    require_images(name, shape, classes, held=images.shape, labels=images.labels())
    if teacher is not None:
        for what, value in (("shape", getattr(student, "shape", None)), ("classes", classes)):
            other = getattr(teacher, what, value)
            if value is not None and _plain(other) != _plain(value):
                raise UserError(
                    f"recipe {name}: the teacher {recipe.teacher} has {what} {_plain(other)}, "
                    f"the student {_plain(value)}",
                    expected="one shape and one number of classes for both",
                )


def require_images(
    name: str,
    shape: tuple[int, ...] | None,
    classes: int,
    *,
    held: tuple[int, ...],
    labels: NDArray[np.int64] | None,
) -> None:
    """Refuses images whose shape differs from the model's, and labels out of its range.

    Args:
        name: The recipe's name.
        shape: Shape (C, H, W) of the model's images; None if it is not fixed.
        classes: Number of classes of the model; 0 for an unconditional one without labels.
        held: Shape (C, H, W) of the dataset's images.
        labels: Label of each image, (N,), or None.

    Raises:
        UserError: If the shapes differ, or a label is outside 0 to classes - 1; names both
            shapes, or the first such label.
    """
    if shape is not None and tuple(held) != tuple(shape):
        raise UserError(
            f"recipe {name}: the model's images have shape {list(shape)}, the dataset's "
            f"{list(held)}",
            expected="the same channels, height and width",
            fix=f"set model: {{shape: {list(held)}}}, or choose a dataset of the model's size",
        )
    if classes:
        _require_labels(name, classes, labels)


def _require_labels(name: str, classes: int, labels: NDArray[np.int64] | None) -> None:
    expected = f"a label from 0 to {classes - 1} for every image"
    if labels is None:
        raise UserError(
            f"recipe {name}: the model has {classes} classes, but the dataset has no labels",
            expected=expected,
            fix="choose a dataset with labels, or set model: {classes: 0}",
        )
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        first = int(outside[0])
        raise UserError(
            f"recipe {name}: image {first} has label {labels[first]}, but the model has {classes} "
            f"classes ({len(outside):,} of {len(labels):,} labels are out of range)",
            expected=expected,
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, list)) else value
