"""Fashion-MNIST: 60,000 training and 10,000 test images of 28x28, 10 classes (Xiao et al. 2017).

Read from torchvision's folder (`FashionMNIST/raw`, idx files, gzipped or not), or from any
container that data set `images` reads.
"""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError
from cmbench.datasets._arrays import ArrayImages
from cmbench.datasets._places import locate
from cmbench.datasets._sources import read_idx, read_pictures
from cmbench.datasets.base import Dataset

__all__ = ["FashionMNIST"]

_COMMAND = (
    "python -c \"import torchvision; torchvision.datasets.FashionMNIST('data', download=True)\"  "
    "(or give your copy: --data fashion_mnist=PATH)"
)


class FashionMNIST(Dataset):
    """28x28 grey images, zero-padded to `size`: shape (1, size, size), 10 classes."""

    transport: ClassVar[frozenset[str]] = frozenset({"path"})

    split: Literal["train", "test"] = "train"
    size: Literal[28, 32] = 32
    path: str | None = None

    def open(self, path: Path | None = None) -> ArrayImages:
        """The images of the split."""
        usual = ("FashionMNIST/raw", "fashion-mnist")
        given = path or (Path(self.path) if self.path else None)
        place = locate("fashion_mnist", given, usual, command=_COMMAND)
        if place.is_dir() and (place / "FashionMNIST" / "raw").is_dir():
            place = place / "FashionMNIST" / "raw"
        if place.is_dir() and any(place.glob("*-idx3-ubyte*")):
            pixels = self._idx(place, "images", 3)[:, None]
            labels = self._idx(place, "labels", 1).astype(np.int64)
        else:
            read = read_pictures(place, channels=1)
            pixels = read.pixels
            labels = read.labels if read.labels is not None else np.zeros(0, np.int64)
        edge = (self.size - 28) // 2
        padded = np.pad(pixels, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
        return ArrayImages(padded, labels if len(labels) else None, classes=10)

    def _idx(self, folder: Path, what: str, axes: int) -> NDArray[np.uint8]:
        prefix = "train" if self.split == "train" else "t10k"
        name = f"{prefix}-{what}-idx{axes}-ubyte"
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                return read_idx(file)
        raise UserError(f"{folder} has no {name}")
