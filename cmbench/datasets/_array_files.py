"""Reads images and labels from .npy and .npz files in blocks.

Headers are checked against the size of the data before anything is allocated, and no code in a
file is run: arrays of Python objects (pickles) are refused.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cmbench.core.array_files import ArrayHeader, read_header
from cmbench.core.errors import UserError
from cmbench.datasets._decode import CORRUPT
from cmbench.datasets._labels import Labels, label_array

__all__ = ["ArrayFile", "ExpectedShape"]

_IMAGES = ("arr_0", "images", "samples", "x")
_LABELS = ("arr_1", "labels", "label", "y")
_FAULTS = (*CORRUPT, RuntimeError, NotImplementedError, RecursionError)
ExpectedShape = tuple[int | None, int | None, int | None]
"""(C, H, W) as far as it is known: it resolves arrays whose axes are ambiguous."""


class ArrayFile:
    """The images of a .npy or .npz, uint8 (N, H, W, C) or (N, C, H, W), with labels if any.

    Raises:
        UserError: If the file holds no images, or is truncated.
    """

    def __init__(self, path: Path, expected: ExpectedShape = (None, None, None)) -> None:
        self.path = path
        self._zipped = path.suffix.lower() == ".npz"
        self._names = self._held()
        self._name = self._one_of(_IMAGES)
        if self._zipped and self._name is None:
            raise self._no_images()
        with self._opened(self._name) as (_, header):
            self._header = header
        self._channels_last = self._layout(expected)

    def __len__(self) -> int:
        return self._header.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image, (C, H, W)."""
        a, b, c = self._header.shape[1:]
        return (c, a, b) if self._channels_last else (a, b, c)

    def blocks(self, batch: int) -> Iterator[NDArray[np.uint8]]:
        """Yields pixels (B, C, H, W), at most `batch` images at a time.

        Raises:
            UserError: If the file ends early.
        """
        with self._opened(self._name) as (file, header):
            for block in self._read(file, header, batch):
                pixels = block.transpose(0, 3, 1, 2) if self._channels_last else block
                yield np.array(pixels, order="C")

    def labels(self) -> Labels | None:
        """Returns the labels, or None if the file has none.

        Raises:
            UserError: For labels of another length, type or range.
        """
        name = self._one_of(_LABELS) if self._zipped else None
        if name is None:
            return None
        with self._opened(name) as (file, header):
            if header.dtype.hasobject or header.nbytes > 2**28:
                raise self._unfit(f"{name} is {header.dtype} {header.shape}, not labels")
            (values,) = self._read(file, header, max(1, prod(header.shape[:1])), whole=True)
        return Labels(label_array(values, len(self), f"{self.path}: {name}"))

    def _held(self) -> set[str]:
        if not self._zipped:
            return set()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return {n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")}
        except _FAULTS as error:
            raise self._broken(error) from None

    def _one_of(self, names: tuple[str, ...]) -> str | None:
        present = [name for name in names if name in self._names]
        if len(present) > 1:
            raise UserError(
                f"{self.path} holds both {present[0]} and {present[1]}",
                expected="one array of images and one of labels",
            )
        return present[0] if present else None

    @contextmanager
    def _opened(self, name: str | None) -> Iterator[tuple[IO[bytes], ArrayHeader]]:
        """Opens an array after its header, whose size is checked against the data."""
        try:
            if name is None:
                with self.path.open("rb") as file:
                    yield file, self._checked(file, self.path.stat().st_size)
                return
            with (
                zipfile.ZipFile(self.path) as archive,
                archive.open(f"{name}.npy") as member,
            ):
                yield member, self._checked(member, archive.getinfo(f"{name}.npy").file_size)
        except UserError as error:
            placed = str(self.path) in str(error)
            raise (error if placed else error.at(str(self.path))) from None
        except _FAULTS as error:
            raise self._broken(error) from None

    def _checked(self, file: IO[bytes], size: int) -> ArrayHeader:
        header = read_header(file, self._name or self.path.name)
        if header.dtype.hasobject:
            raise self._pickled()
        if size - file.tell() < header.nbytes:
            raise EOFError(
                f"its header says {header.nbytes:,} bytes of pixels, {size - file.tell():,} follow"
            )
        return header

    def _layout(self, expected: ExpectedShape) -> bool:
        """Tests whether channels are the last axis (N, H, W, C), or the second (N, C, H, W)."""
        shape, dtype = self._header.shape, self._header.dtype
        if dtype != np.uint8 or len(shape) != 4:
            raise self._unfit(
                f"holds no uint8 images of 4 axes: {self._name or 'it'} is {dtype} {shape}",
                "" if dtype == np.uint8 else "quantise first, by the rule your protocol names",
            )
        if 0 in shape:
            raise self._unfit(f"holds no images: shape {shape}")
        first, last = shape[1] in (1, 3), shape[3] in (1, 3)
        if not first and not last:
            channels = min(shape[1], shape[3])
            raise self._unfit(f"holds images of {channels} channels (shape {shape})")
        if first and last:
            return self._decided(expected)
        return last

    def _decided(self, expected: ExpectedShape) -> bool:
        """Resolves the ambiguous axes of an array such as (N, 3, 8, 3)."""
        a, b, c = self._header.shape[1:]
        fits = [
            all(want in (None, got) for want, got in zip(expected, own, strict=True))
            for own in ((a, b, c), (c, a, b))
        ]
        if fits[0] == fits[1] and (a, b, c) != (1, 1, 1):
            raise self._unfit(
                f"holds {self._header.shape}, whose channels may be axis 1 or axis 3",
                "save the images as PNG files",
            )
        return fits[1] and not fits[0]

    def _read(
        self, file: IO[bytes], header: ArrayHeader, batch: int, *, whole: bool = False
    ) -> Iterator[NDArray[Any]]:
        if header.fortran or whole:
            data = _exactly(file, header.nbytes, header)
            order: Any = "F" if header.fortran else "C"
            array = np.frombuffer(data, header.dtype).reshape(header.shape, order=order)
            yield from [array] if whole else _parts(array, batch)
            return
        each = prod(header.shape[1:]) * header.dtype.itemsize
        for first in range(0, header.shape[0], batch):
            count = min(batch, header.shape[0] - first)
            data = _exactly(file, each * count, header, first)
            yield np.frombuffer(data, header.dtype).reshape(count, *header.shape[1:])

    def _no_images(self) -> UserError:
        contents = ", ".join(sorted(self._names)[:10]) or "nothing"
        fix = ""
        if {"data", "labels"} <= self._names:
            fix = ("ImageNet's downsampled files keep rows: save data.reshape(-1, 3, side, side) "
                   "as arr_0 and labels - 1 as arr_1")  # fmt: skip
        elif {"mu", "sigma"} <= self._names:
            fix = "these are statistics of images, not images"
        return UserError(
            f"{self.path} has no array of images; it has: {contents}",
            expected="one of " + ", ".join(_IMAGES),
            fix=fix,
        )

    def _pickled(self) -> UserError:
        return UserError(
            f"{self.path} holds pickled Python objects, which may run code and are not read",
            expected="plain arrays: uint8 images as arr_0, or statistics as mu and sigma",
            fix="in the Python that wrote it: np.savez('new.npz', **np.load(file, "
            "allow_pickle=True).item()) for a dictionary of arrays",
        )

    def _unfit(self, what: str, fix: str = "") -> UserError:
        return UserError(
            f"{self.path} {what}",
            expected="array arr_0 (or images, samples, x), uint8, (N, H, W, C) or (N, C, H, W) "
            "with 1 or 3 channels",
            fix=fix,
        )

    def _broken(self, error: BaseException) -> UserError:
        detail = str(error) or type(error).__name__
        return UserError(
            f"{self.path} is a damaged .npy/.npz file: {detail}",
            fix="download or write it again",
        )


def _exactly(file: IO[bytes], size: int, header: ArrayHeader, first: int = 0) -> bytes:
    data = file.read(size)
    if len(data) != size:
        each = max(1, prod(header.shape[1:]) * header.dtype.itemsize)
        raise EOFError(f"it ends at image {first + len(data) // each} of {header.shape[0]}")
    return data


def _parts(array: NDArray[Any], batch: int) -> Iterator[NDArray[Any]]:
    for first in range(0, len(array), batch):
        yield array[first : first + batch]
