"""CIFAR-10: 50,000 training and 10,000 test images of 32x32, 10 classes (Krizhevsky 2009).

Read from torchvision's folder (`cifar-10-batches-py`), an EDM-style zip, a Hugging Face parquet
file or folder, a folder of images, or .npy/.npz.
"""

from pathlib import Path
from typing import ClassVar, Literal

from cmbench.core.errors import UserError
from cmbench.datasets._arrays import ArrayImages
from cmbench.datasets._places import locate
from cmbench.datasets._sources import read_cifar_batches, read_pictures
from cmbench.datasets.base import Dataset

__all__ = ["CIFAR10"]

_COMMAND = (
    "python -c \"import torchvision; torchvision.datasets.CIFAR10('data', download=True)\"  "
    "(or give your copy: --data cifar10=PATH)"
)


class CIFAR10(Dataset):
    """32x32 colour images, shape (3, 32, 32), 10 classes. JPEG copies have another fingerprint
    than the original, so their numbers are never mixed.
    """

    transport: ClassVar[frozenset[str]] = frozenset({"path"})

    split: Literal["train", "test"] = "train"
    path: str | None = None

    def open(self, path: Path | None = None) -> ArrayImages:
        """The images of the split."""
        usual = (f"cifar10-32x32-{self.split}.zip", "cifar10-32x32.zip", "cifar-10-batches-py")
        given = path or (Path(self.path) if self.path else None)
        place = locate("cifar10", given, usual, command=_COMMAND)
        place = self._inside(place)
        if place.name == "cifar-10-batches-py":
            train = [f"data_batch_{i}" for i in range(1, 6)]
            pictures = read_cifar_batches(
                place, train if self.split == "train" else ["test_batch"]
            )
        else:
            pictures = read_pictures(place)
        if pictures.pixels.shape[1:] != (3, 32, 32):
            raise UserError(
                f"{place} holds images of shape {pictures.pixels.shape[1:]}",
                expected="CIFAR-10: (3, 32, 32)",
            )
        return ArrayImages(pictures.pixels, pictures.labels, classes=10)

    def _inside(self, place: Path) -> Path:
        """The split's own file, where a folder that holds both was given."""
        for name in ("cifar-10-batches-py", f"cifar10-32x32-{self.split}.zip", self.split):
            if place.is_dir() and (place / name).exists():
                return place / name
        return place
