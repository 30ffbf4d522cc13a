"""Images in memory, as one array."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError

__all__ = ["ArrayImages"]


class ArrayImages:
    """Pixels (N, C, H, W) uint8 with labels (N,), or None.

    Args:
        pixels: The images.
        labels: Class of each, from 0.
        classes: Number of classes; 0 if it is not known or there are none.
        names: Names of the classes in the order of their labels, where they have names.
        ignored: Files of the container that are not images.

    Raises:
        UserError: For another type or number of axes, or labels of another length or range.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64] | None,
        *,
        classes: int = 0,
        names: tuple[str, ...] | None = None,
        ignored: int = 0,
    ) -> None:
        if pixels.ndim != 4 or pixels.dtype != np.uint8:
            raise UserError(
                f"images of shape {pixels.shape} and type {pixels.dtype}",
                expected="uint8 of shape (N, C, H, W)",
            )
        if labels is not None and len(labels) != len(pixels):
            raise UserError(f"{len(labels)} labels for {len(pixels)} images")
        if labels is not None and len(labels):
            _require_range(labels, classes)
        self.names, self.ignored = names, ignored
        self._pixels, self._labels = pixels, labels
        channels, height, width = pixels.shape[1:]
        self.shape: tuple[int, int, int] = (channels, height, width)
        self.classes = classes

    def __len__(self) -> int:
        return len(self._pixels)

    def pixels(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Returns the pixels (B, C, H, W) of these images."""
        pixels: NDArray[np.uint8] = self._pixels[np.asarray(indices, dtype=np.int64)]
        return pixels

    def labels(self) -> NDArray[np.int64] | None:
        """Returns the class of every image, (N,), or None."""
        return self._labels

    def fingerprint(self) -> str:
        """Returns the SHA-256 of shape, pixels and labels in order."""
        state = hashlib.sha256(str(self._pixels.shape).encode())
        state.update(np.ascontiguousarray(self._pixels).tobytes())
        if self._labels is not None:
            state.update(np.ascontiguousarray(self._labels).tobytes())
        return state.hexdigest()


def _require_range(labels: NDArray[np.int64], classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes and high >= classes):
        most = f"to {classes - 1}" if classes else "or more"
        raise UserError(
            f"labels run from {low} to {high}",
            expected=f"0 {most}",
            fix="subtract 1 from the labels" if (low, high) == (1, classes) else "",
        )
