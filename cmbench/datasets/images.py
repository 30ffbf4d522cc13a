"""Images of the user's own: a zip, a folder (sub-folders are classes), .npy/.npz or parquet.

The resize policy is explicit: without `size` all images must have one size; with it they are
cropped by `crop` and resized by `resample`. Without `channels` they must be all grey or all
colour.
"""

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from cmbench.core.bounds import Width
from cmbench.core.errors import Pending
from cmbench.core.paths import user_path
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
        description="None: those of the images; else image files are converted (1 by ITU-R 601)",
    )
    size: Width | None = Field(default=None, description="side to resize to; None: not resized")
    crop: Literal["center", "none"] = "center"
    resample: Literal["lanczos", "bicubic", "bilinear", "box"] = "lanczos"

    def open(self, path: Path | None = None) -> ArrayImages:
        """Returns the images in the order of their path components."""
        place = path or (user_path(self.path) if self.path else None)
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
