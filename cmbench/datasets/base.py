"""The contract of a data set: pixels and labels by index, with a fingerprint."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cmbench.core.component import Component

__all__ = ["Dataset", "ImageSet"]


class ImageSet(Protocol):
    """Images of one split, in a fixed order."""

    shape: tuple[int, int, int]
    classes: int

    def __len__(self) -> int: ...

    def pixels(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pixels (B, C, H, W) of the images with these indices.

        Raises:
            UserError: For a file that is broken or of another size, naming it.
        """
        ...

    def labels(self) -> NDArray[np.int64] | None:
        """Class label of every image, (N,), or None."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of the decoded pixels and labels in order: equal data, equal fingerprint,
        whatever the container.
        """
        ...


class Dataset(Component, ABC):
    """Names a data set, its split and its resize policy; `path` says where, not what."""

    kind: ClassVar[str] = "dataset"
    transport: ClassVar[frozenset[str]] = frozenset({"path"})

    def stated_shape(self) -> tuple[int, int, int] | None:
        """Shape (C, H, W) of its images where its name says it; None where only opening tells."""
        return None

    @abstractmethod
    def open(self, path: Path | None = None) -> ImageSet:
        """The images. `path` (the command line's --data) wins over the field of that name.

        Raises:
            Pending: If the data is not there, with the command or URL that brings it.
            UserError: If what is there is not this data set.
        """
