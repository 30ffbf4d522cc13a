"""Images that lie in memory as one array."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError

__all__ = ["ArrayImages"]


class ArrayImages:
    """Pixels (N, C, H, W) uint8 with labels (N,), or None.

    Raises:
        UserError: For another type or number of axes, or labels of another length.
    """

    def __init__(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64] | None, *, classes: int = 0
    ) -> None:
        if pixels.ndim != 4 or pixels.dtype != np.uint8:
            raise UserError(
                f"images of shape {pixels.shape} and type {pixels.dtype}",
                expected="uint8 of shape (N, C, H, W)",
            )
        if labels is not None and len(labels) != len(pixels):
            raise UserError(f"{len(labels)} labels for {len(pixels)} images")
        self._pixels, self._labels = pixels, labels
        channels, height, width = pixels.shape[1:]
        self.shape: tuple[int, int, int] = (channels, height, width)
        self.classes = classes

    def __len__(self) -> int:
        return len(self._pixels)

    def pixels(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pixels (B, C, H, W) of these images."""
        chosen: NDArray[np.uint8] = self._pixels[np.asarray(indices, dtype=np.int64)]
        return chosen

    def labels(self) -> NDArray[np.int64] | None:
        """Class of every image, (N,), or None."""
        return self._labels

    def fingerprint(self) -> str:
        """SHA-256 of shape, pixels and labels in order: the container does not matter."""
        state = hashlib.sha256(str(self._pixels.shape).encode())
        state.update(np.ascontiguousarray(self._pixels).tobytes())
        if self._labels is not None:
            state.update(np.ascontiguousarray(self._labels).tobytes())
        return state.hexdigest()
