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
        """Returns the pixels (B, C, H, W) of the images with these indices.

        Raises:
            UserError: For a file that is broken or of another size; the error names it.
        """
        ...

    def labels(self) -> NDArray[np.int64] | None:
        """Returns the class label of every image, (N,), or None."""
        ...

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the decoded pixels and labels in order: equal data have equal
        fingerprints in any container.
        """
        ...


class Dataset(Component, ABC):
    """Names a data set, its split and its resize policy; `path` does not enter its identity."""

    kind: ClassVar[str] = "dataset"
    transport: ClassVar[frozenset[str]] = frozenset({"path"})

    def stated_shape(self) -> tuple[int, int, int] | None:
        """Shape (C, H, W) of its images where its name says it; None where only opening tells."""
        return None

    @abstractmethod
    def open(self, path: Path | None = None) -> ImageSet:
        """Opens the images. `path` (the command line's --data) overrides the field `path`.

        Raises:
            Pending: If the data is not on this machine, with the command that downloads it.
            UserError: If the data there is not this data set.
        """
