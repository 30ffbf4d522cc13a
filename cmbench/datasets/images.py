"""Any images of the user's own: a zip, a folder (sub-folders are classes), .npy/.npz or parquet.

The resize policy is explicit: without `size` all images must already be equal; with it they are
cropped as `crop` says and resized by `resample`. Without `channels` they must be all grey or all
colour.
"""

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from cmbench.core.errors import Pending
from cmbench.datasets._arrays import ArrayImages
from cmbench.datasets._pictures import Fit, read_pictures
from cmbench.datasets.base import Dataset

__all__ = ["Images"]


class Images(Dataset):
    """Images from a container, shape (channels, H, W)."""

    transport: ClassVar[frozenset[str]] = frozenset({"path"})

    path: str | None = None
    channels: Literal[1, 3] | None = Field(
        default=None,
        description="none: as all images have; else image files are converted (1 by ITU-R 601)",
    )
    size: int | None = Field(
        default=None, ge=1, description="side to resize to; none: as they are"
    )
    crop: Literal["center", "none"] = "center"
    resample: Literal["lanczos", "bicubic", "bilinear", "box"] = "lanczos"

    def open(self, path: Path | None = None) -> ArrayImages:
        """Returns the images in the order of the parts of their paths."""
        place = path or (Path(self.path) if self.path else None)
        if place is None:
            raise Pending("data set images needs a place", command="--data images=PATH")
        if not os.path.lexists(place):
            raise Pending(f"{place} does not exist", command="--data images=PATH")
        fit = Fit(self.size, self.crop, self.resample) if self.size else None
        expected = (self.channels, self.size, self.size)
        read = read_pictures(place, channels=self.channels, fit=fit, expected=expected)
        classes = int(read.labels.max()) + 1 if read.labels is not None else 0
        return ArrayImages(
            read.pixels, read.labels, classes=classes, names=read.names, ignored=read.ignored
        )
