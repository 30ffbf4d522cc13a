"""scikit-learn's handwritten digits: 1,797 grey images of 8x8, inside the package, no download.

Values 0..16 become pixels round(v * 255 / 16). Every fifth image (index 4, 9, ...) is the test
split. Source: UCI Optical Recognition of Handwritten Digits, as scikit-learn ships it.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from cmbench.core.errors import UserError
from cmbench.datasets._arrays import ArrayImages
from cmbench.datasets.base import Dataset

__all__ = ["Digits"]


class Digits(Dataset):
    """8x8 digits, shape (1, 8, 8), 10 classes: 1,438 training and 359 test images."""

    split: Literal["train", "test", "all"] = "train"

    def stated_shape(self) -> tuple[int, int, int]:
        """Returns (1, 8, 8)."""
        return (1, 8, 8)

    def open(self, path: Path | None = None) -> ArrayImages:
        """Returns the images.

        Raises:
            UserError: If a path is given: the data is part of scikit-learn.
        """
        if path is not None:
            raise UserError(f"data set {self.name} is embedded and takes no path ({path})")
        from sklearn.datasets import load_digits

        data = load_digits()
        pixels = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]
        labels = data.target.astype(np.int64)
        test = np.arange(len(pixels)) % 5 == 4
        mask = {"train": ~test, "test": test, "all": np.ones_like(test)}[self.split]
        return ArrayImages(pixels[mask], labels[mask], classes=10)
