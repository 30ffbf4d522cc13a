"""CIFAR-10: 50,000 training and 10,000 test images of 32x32, 10 classes (Krizhevsky 2009).

Read from torchvision's folder (`cifar-10-batches-py`), an EDM-style zip, a Hugging Face parquet
file or folder, a folder of images, or .npy/.npz. The number of images must be that of the split.
"""

import io
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from cmbench.core.errors import UserError
from cmbench.core.files import parsing, read_regular
from cmbench.core.paths import user_path
from cmbench.core.safe_pickle import SafeUnpickler
from cmbench.datasets._arrays import ArrayImages
from cmbench.datasets._containers import locate
from cmbench.datasets._labels import Labels, renumbered
from cmbench.datasets._pictures import Pictures, read_pictures, require_count
from cmbench.datasets.base import Dataset

__all__ = ["CIFAR10", "read_cifar_batches"]

_COMMAND = (
    "python -c \"import torchvision; torchvision.datasets.CIFAR10('data', download=True)\"  "
    "(or give your copy: --data cifar10=PATH)"
)
_BATCHES = "cifar-10-batches-py"
_SPLITS = {"train": 50_000, "test": 10_000}
_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
          "truck")  # fmt: skip


class CIFAR10(Dataset):
    """32x32 colour images, shape (3, 32, 32), 10 classes. JPEG copies have another fingerprint
    than the original, so their numbers are never mixed.
    """

    transport: ClassVar[frozenset[str]] = frozenset({"path", "subset"})

    split: Literal["train", "test"] = "train"
    path: str | None = None
    subset: bool = Field(
        default=False, description="true: allow a subset of the split instead of all its images"
    )

    def stated_shape(self) -> tuple[int, int, int]:
        """3 x 32 x 32."""
        return (3, 32, 32)

    def open(self, path: Path | None = None) -> ArrayImages:
        """Returns the images of the split."""
        edm = ("cifar10-32x32.zip",) if self.split == "train" else ()  # EDM's training set.
        usual = (f"cifar10-32x32-{self.split}.zip", *edm, _BATCHES)
        given = path or (user_path(self.path) if self.path else None)
        place = self._inside(locate("cifar10", given, usual, command=_COMMAND))
        pictures = self._read(place)
        if pictures.pixels.shape[1:] != (3, 32, 32):
            raise UserError(
                f"{place} holds images of shape {pictures.pixels.shape[1:]}",
                expected="CIFAR-10: (3, 32, 32)",
            )
        require_count("cifar10", self.split, len(pictures.pixels), _SPLITS,
                      path=place, subset=self.subset)  # fmt: skip
        labels = pictures.labels
        if labels is not None:
            labels = renumbered(Labels(labels, pictures.names), _NAMES, str(place))
        return ArrayImages(
            pictures.pixels, labels, classes=10, names=_NAMES, ignored=pictures.ignored
        )

    def _read(self, place: Path) -> Pictures:
        if place.name == _BATCHES:
            train = [f"data_batch_{i}" for i in range(1, 6)]
            return read_cifar_batches(place, train if self.split == "train" else ["test_batch"])
        return read_pictures(place, split=self.split, expected=(3, 32, 32))

    def _inside(self, place: Path) -> Path:
        """Returns the split's own file, if the given folder holds both splits."""
        for name in (_BATCHES, f"cifar10-32x32-{self.split}.zip", self.split):
            if place.is_dir() and (place / name).exists():
                return place / name
        return place


def read_cifar_batches(folder: Path, names: list[str]) -> Pictures:
    """Reads the python version of CIFAR-10 (`data_batch_1`, ..., as torchvision unpacks it)."""
    pixels, labels = [], []
    for name in names:
        file = folder / name
        data = read_regular(file, "CIFAR-10 batch")
        with parsing(file, "a CIFAR-10 batch"):
            batch = SafeUnpickler(io.BytesIO(data)).load()
            # Python 2 wrote the names as text, Python 3 as bytes.
            fields = {n.decode() if isinstance(n, bytes) else n: v for n, v in batch.items()}
            pixels.append(np.asarray(fields["data"], np.uint8).reshape(-1, 3, 32, 32))
            labels.append(np.asarray(fields["labels"], np.int64))
    return Pictures(np.concatenate(pixels), np.concatenate(labels))
