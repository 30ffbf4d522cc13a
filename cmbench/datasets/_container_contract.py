"""The contract of a container of images: images in a fixed order, shapes, labels."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError
from cmbench.core.text import printable
from cmbench.datasets._decode import BadImage, Fit, Shape
from cmbench.datasets._labels import Labels

__all__ = ["Container", "Image"]


class Image(NamedTuple):
    """An image of a container: its name, and its pixels (C, H, W) uint8 or its fault."""

    name: str
    pixels: NDArray[np.uint8] | BadImage


class Container(ABC):
    """Images in a fixed order, read one after another, with their labels."""

    path: Path
    ignored: int = 0
    """Number of files that are not images: hidden files, system files, other types."""
    uniform: ClassVar[bool] = False
    """True if all images of such a container have one shape."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of images, faulty ones included."""

    @abstractmethod
    def images(self, *, channels: int | None = None, fit: Fit | None = None) -> Iterator[Image]:
        """Yields every image; one that can't be read is yielded as its fault.

        Args:
            channels: 1 or 3 converts image files; None keeps what they have.
            fit: Crops and resizes image files.

        Raises:
            UserError: If the container itself is truncated.
        """

    @abstractmethod
    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """Yields name and (C, H, W) of every readable image, from its header."""

    @abstractmethod
    def labels(self) -> Labels | None:
        """Returns the label of every image, or None if the container has none.

        Raises:
            UserError: For labels that don't fit the images.
        """

    def usual_shape(self) -> Shape | None:
        """Returns the (C, H, W) that most images have; None if no image can be read.

        Raises:
            UserError: If two shapes are equally common.
        """
        counts = Counter(shape for _, shape in self.shapes()).most_common(2)
        if len(counts) == 2 and counts[0][1] == counts[1][1]:
            one, two = (f"{shape} (C, H, W)" for shape, _ in counts)
            raise UserError(
                f"{printable(str(self.path))}: as many images are {one} as {two}, "
                f"{counts[0][1]} each",
                expected="one shape that most images have",
                fix="keep one kind of images in the folder, or give --size",
            )
        return counts[0][0] if counts else None
