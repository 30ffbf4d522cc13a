"""What is checked before a training: images, labels and teacher against the model that is trained.

A wrong size or a missing label would often train all the same: a convolutional network takes any
side, and a label embedding that no label reaches keeps its random start.
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
    """Refuses images or a teacher that do not suit the network that is to be trained.

    Raises:
        UserError: If shape or classes differ, or a label is missing or out of range.
    """
    name, classes = recipe.recipe, int(getattr(student, "classes", 0))
    shape = getattr(student, "shape", None)
    require_images(name, shape, classes, held=images.shape, labels=images.labels())
    if teacher is not None:
        for what, own in (("shape", getattr(student, "shape", None)), ("classes", classes)):
            other = getattr(teacher, what, own)
            if own is not None and _plain(other) != _plain(own):
                raise UserError(
                    f"recipe {name}: the teacher {recipe.teacher} has {what} {_plain(other)}, "
                    f"the student {_plain(own)}",
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
    """Refuses images of another shape than the model's, and labels that it can't embed.

    Args:
        name: The recipe's name.
        shape: Shape (C, H, W) of the model's images; None where it has no fixed one.
        classes: Classes of the model; 0 for an unconditional one, which needs no labels.
        held: Shape (C, H, W) of the data set's images.
        labels: Label of each image, (N,), or None.

    Raises:
        UserError: Naming both shapes, or the first label outside 0 to classes - 1.
    """
    if shape is not None and tuple(held) != tuple(shape):
        raise UserError(
            f"recipe {name}: the model makes images of shape {list(shape)}, the data set holds "
            f"{list(held)}",
            expected="channels, height and width that agree",
            fix=f"model: {{shape: {list(held)}}}, or a data set of the model's size",
        )
    if classes:
        _require_labels(name, classes, labels)


def _require_labels(name: str, classes: int, labels: NDArray[np.int64] | None) -> None:
    expected = f"a label from 0 to {classes - 1} for every image"
    if labels is None:
        raise UserError(
            f"recipe {name}: the model has {classes} classes, and the data set has no labels",
            expected=expected,
            fix="a data set with labels, or model: {classes: 0}",
        )
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        first = int(outside[0])
        raise UserError(
            f"recipe {name}: image {first} has label {labels[first]}, and the model has {classes} "
            f"classes ({len(outside):,} of {len(labels):,} labels are out of range)",
            expected=expected,
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, list)) else value
