"""Fashion-MNIST: 60,000 training and 10,000 test images of 28x28, 10 classes (Xiao et al. 2017).

Read from torchvision's folder (`FashionMNIST/raw`, idx files, gzipped or not), or from any
container that data set `images` reads. The number of images is held against the split.
"""

import gzip
import io
import math
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cmbench.core.array_files import check_unpacked
from cmbench.core.errors import UserError
from cmbench.core.files import parsing, read_regular
from cmbench.core.paths import user_path
from cmbench.datasets._arrays import ArrayImages
from cmbench.datasets._containers import locate
from cmbench.datasets._labels import Labels, renumbered
from cmbench.datasets._pictures import Pictures, read_pictures, require_count
from cmbench.datasets.base import Dataset

__all__ = ["FashionMNIST", "read_idx"]

_COMMAND = (
    "python -c \"import torchvision; torchvision.datasets.FashionMNIST('data', download=True)\"  "
    "(or give your copy: --data fashion_mnist=PATH)"
)
_SPLITS = {"train": 60_000, "test": 10_000}
_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
          "Bag", "Ankle boot")  # fmt: skip


class FashionMNIST(Dataset):
    """28x28 grey images, zero-padded to `size`: shape (1, size, size), 10 classes."""

    transport: ClassVar[frozenset[str]] = frozenset({"path", "subset"})

    split: Literal["train", "test"] = "train"
    size: Literal[28, 32] = 32
    path: str | None = None
    subset: bool = Field(
        default=False, description="true: allow a subset of the split instead of all its images"
    )

    def stated_shape(self) -> tuple[int, int, int]:
        """One channel, padded to `size`."""
        return (1, self.size, self.size)

    def open(self, path: Path | None = None) -> ArrayImages:
        """Returns the images of the split."""
        usual = ("FashionMNIST/raw", "fashion-mnist")
        given = path or (user_path(self.path) if self.path else None)
        place = locate("fashion_mnist", given, usual, command=_COMMAND)
        if place.is_dir() and (place / "FashionMNIST" / "raw").is_dir():
            place = place / "FashionMNIST" / "raw"
        read = self._read(place)
        if read.pixels.shape[1:] != (1, 28, 28):
            raise UserError(
                f"{place} holds images of shape {read.pixels.shape[1:]}",
                expected="Fashion-MNIST: (1, 28, 28); `size: 32` pads them",
            )
        require_count("fashion_mnist", self.split, len(read.pixels), _SPLITS,
                      path=place, subset=self.subset)  # fmt: skip
        labels = read.labels
        if labels is not None:
            labels = renumbered(Labels(labels, read.names), _NAMES, str(place))
        edge = (self.size - 28) // 2
        padded = np.pad(read.pixels, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
        return ArrayImages(padded, labels, classes=10, names=_NAMES, ignored=read.ignored)

    def _read(self, place: Path) -> Pictures:
        if place.is_dir() and any(place.glob("*-idx3-ubyte*")):
            pixels = self._idx(place, "images", 3)[:, None]
            return Pictures(pixels, self._idx(place, "labels", 1).astype(np.int64))
        if place.is_dir() and (place / self.split).exists():
            place = place / self.split
        return read_pictures(place, channels=1, split=self.split, expected=(1, 28, 28))

    def _idx(self, folder: Path, what: str, axes: int) -> NDArray[np.uint8]:
        prefix = "train" if self.split == "train" else "t10k"
        name = f"{prefix}-{what}-idx{axes}-ubyte"
        for file in (folder / name, folder / f"{name}.gz"):
            if file.is_file():
                return read_idx(file)
        raise UserError(f"{folder} has no {name}")


def read_idx(file: Path) -> NDArray[np.uint8]:
    """Reads an idx file of bytes (MNIST's format), gzipped or not."""
    data = read_regular(file, "idx file")
    with parsing(file, "an idx file"):
        packed = file.suffix == ".gz"
        stream = gzip.GzipFile(fileobj=io.BytesIO(data)) if packed else io.BytesIO(data)
        head = stream.read(4)
        if len(head) < 4 or head[:3] != b"\0\0\x08":
            raise UserError("not an idx file of bytes: it doesn't start as one does")
        shape = tuple(int.from_bytes(stream.read(4), "big") for _ in range(head[3]))
        size = math.prod(shape)
        if not size:
            raise UserError("the idx file holds no images or labels")
        check_unpacked(size, len(data), "the array")
        found = np.frombuffer(stream.read(size + 1), np.uint8)
        return found.reshape(shape)
