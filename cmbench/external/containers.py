"""Reads images from other programs in batches, and collects the bad ones.

The reader is that of the data sets (`cmbench.datasets._containers`): the same containers, order
and checks. For scores it adds a list of bad images in place of an error, a count of duplicates,
and a digest of the pixels.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError
from cmbench.core.text import printable
from cmbench.datasets._containers import BadImage, Container, open_container
from cmbench.datasets._labels import Labels

__all__ = ["BadImage", "ImageStream", "ignored_files", "images_inside"]

_WORDS = {1: "grey", 3: "colour"}


@dataclass
class ImageStream:
    """Images of a container in the order of their path components (arrays: in stored order).

    Args:
        path: Folder, .zip, .npz, .npy or .parquet.
        size: (height, width) that every image must have; if None, the most frequent.
        channels: 1 or 3; if None, the most frequent.
    """

    path: Path
    size: tuple[int, int] | None = None
    channels: int | None = None
    bad: list[BadImage] = field(default_factory=list)
    total: int = 0
    ignored: int = 0
    duplicates: int = 0

    def __post_init__(self) -> None:
        self._state = hashlib.sha256()
        self._seen: set[bytes] = set()
        self._kept: list[int] = []
        self._container: Container | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the pixels read so far, in order, independent of the container."""
        return self._state.hexdigest()

    def batches(self, batch: int) -> Iterator[NDArray[np.uint8]]:
        """Yields pixels (B, C, H, W), at most `batch` at a time; faults are collected in `bad`.

        Raises:
            UserError: For a container that is missing, empty, truncated, or holds no pixels.
        """
        height, width = self.size or (None, None)
        self._container = open_container(self.path, expected=(self.channels, height, width))
        self.ignored = self._container.ignored
        self._fill_in(self._container)
        block: list[NDArray[np.uint8]] = []
        for name, pixels in self._container.images():
            self.total += 1
            fault = pixels if isinstance(pixels, BadImage) else self._misfit(name, pixels)
            if fault is not None and self._container.uniform:
                raise UserError(
                    f"{printable(str(self.path))}: images are {fault.detail}",
                    fix="--size, or another reference",
                )
            if fault is not None:
                self.bad.append(fault)
            elif not isinstance(pixels, BadImage):
                self._note(pixels)
                block.append(pixels)
            if len(block) == batch:
                yield np.stack(block)
                block.clear()
        if block:
            yield np.stack(block)

    def labels(self) -> Labels | None:
        """Returns the labels of the images that were read, or None if the container has none.

        Raises:
            UserError: For labels that don't fit the images.
        """
        labels = self._container.labels() if self._container else None
        return None if labels is None else Labels(labels.values[self._kept], labels.names)

    def _fill_in(self, container: Container) -> None:
        """Sets size and channels, if not given, to the most frequent ones."""
        if self.size is not None and self.channels is not None:
            return
        usual = container.usual_shape()
        if usual is None:
            return
        self.channels = usual[0] if self.channels is None else self.channels
        self.size = usual[1:] if self.size is None else self.size

    def _note(self, pixels: NDArray[np.uint8]) -> None:
        raw = np.ascontiguousarray(pixels).tobytes()
        self._state.update(raw)
        mark = hashlib.sha256(raw).digest()[:16]
        self.duplicates += mark in self._seen
        self._seen.add(mark)
        self._kept.append(self.total - 1)

    def _misfit(self, name: str, image: NDArray[np.uint8]) -> BadImage | None:
        channels, *size = image.shape
        if channels != self.channels:
            return BadImage(
                name, "mode", f"{_WORDS[channels]}, not {_WORDS.get(self.channels or 0, '?')}"
            )
        if self.size is not None and tuple(size) != self.size:
            return BadImage(
                name, "size", f"{size[0]}x{size[1]}, not {self.size[0]}x{self.size[1]}"
            )
        return None


def ignored_files(count: int) -> str:
    """Returns the sentence on ignored files; an empty string if there are none."""
    if not count:
        return ""
    words = "files that are no images were" if count > 1 else "file that is no image was"
    return f"{count:,} {words} ignored"


def images_inside(path: Path) -> NDArray[np.uint8]:
    """Returns all images of an .npz, (N, H, W, C), the layout of ADM.

    Raises:
        UserError: If it holds none, or is truncated.
    """
    stream = ImageStream(path)
    blocks = list(stream.batches(1000))
    if not blocks:
        raise UserError(f"{printable(str(path))} holds no images")
    return np.concatenate(blocks).transpose(0, 2, 3, 1)
