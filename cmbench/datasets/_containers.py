"""The one reader of image containers: folder, zip, .npy, .npz, parquet.

It serves generated images, references, statistics and training sets with one set of checks.
Unreadable images are named; nothing is converted unless requested.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path

from cmbench.core.errors import Pending, UserError
from cmbench.core.text import printable
from cmbench.datasets._array_files import ArrayFile, ExpectedShape
from cmbench.datasets._container_contract import Container, Image
from cmbench.datasets._decode import SUFFIXES, BadImage, Fit, Shape, decode, header_shape
from cmbench.datasets._image_files import ImageFiles, opened_zip
from cmbench.datasets._labels import Labels
from cmbench.datasets._parquet import ParquetFiles
from cmbench.datasets._splits import of_split
from cmbench.datasets._walk import Listing, list_folder, list_zip

__all__ = ["BadImage", "Container", "Image", "locate", "open_container"]

_KINDS = "a folder, .zip, .npz, .npy or .parquet"
_BLOCK = 256
_ANY: ExpectedShape = (None, None, None)


class _Arrays(Container):
    """An array of images."""

    uniform = True

    def __init__(self, path: Path, expected: ExpectedShape) -> None:
        self.path, self._file = path, ArrayFile(path, expected)

    def __len__(self) -> int:
        return len(self._file)

    def images(self, *, channels: int | None = None, fit: Fit | None = None) -> Iterator[Image]:
        """Yields the images unchanged; arrays are neither converted nor resized.

        Raises:
            UserError: If another size or other channels are requested.
        """
        own = self._file.shape
        if channels is not None and own[0] != channels:
            raise UserError(
                f"{printable(str(self.path))} holds images of {own[0]} channels",
                expected=f"{channels}",
            )
        if fit is not None and own[1:] != (fit.size, fit.size):
            raise UserError(
                f"{printable(str(self.path))} holds arrays of {own[1]}x{own[2]}, which are "
                "not resized",
                expected=f"arrays of side {fit.size}, or image files",
            )
        index = 0
        for block in self._file.blocks(_BLOCK):
            for pixels in block:
                yield Image(f"image {index}", pixels)
                index += 1

    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """Yields the shape of the array once: all images share it."""
        yield "image 0", self._file.shape

    def labels(self) -> Labels | None:
        """Returns the labels stored with the images in an .npz."""
        return self._file.labels()


class _Parquet(Container):
    """Image files in the rows of parquet files."""

    def __init__(self, path: Path, files: list[Path], ignored: int) -> None:
        self.path, self.ignored, self._files = path, ignored, ParquetFiles(files)

    def __len__(self) -> int:
        return len(self._files)

    def images(self, *, channels: int | None = None, fit: Fit | None = None) -> Iterator[Image]:
        """Yields the images of the rows."""
        for name, data in self._files.members():
            bad = data if isinstance(data, BadImage) else None
            yield Image(name, bad or decode(name, data, channels=channels, fit=fit))  # type: ignore[arg-type]

    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """Yields the shapes of the rows that have an image's header."""
        for name, data in self._files.members():
            shape = None if isinstance(data, BadImage) else header_shape(io.BytesIO(data))
            if shape is not None:
                yield name, shape

    def labels(self) -> Labels | None:
        """Returns the labels of the label column."""
        return self._files.labels()


def open_container(
    path: Path, *, split: str | None = None, expected: ExpectedShape = _ANY
) -> Container:
    """Opens a container of images; nothing is decoded yet.

    Args:
        path: A folder, .zip, .npz, .npy or .parquet.
        split: The split to read, where folders or parquet files are named after splits.
        expected: (C, H, W) as far as known, for arrays whose axes are ambiguous.

    Raises:
        UserError: For a path that is missing, empty, broken, of several splits, or not a
            container.
        Pending: If reading it needs a package that is not installed.
    """
    shown, suffix = printable(str(path)), path.suffix.lower()
    try:
        folder, regular = path.is_dir(), path.is_file()
        missing = not os.path.lexists(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{shown} can't be read: {error}", expected=_KINDS) from None
    if missing:
        raise UserError(f"{shown} does not exist", expected=_KINDS)
    if folder:
        return _of_listing(path, list_folder(path), split)
    if not regular:
        raise UserError(f"{shown} is not a regular file", expected=_KINDS)
    if suffix == ".zip":
        with opened_zip(path) as archive:
            assert archive is not None
            return _of_listing(path, list_zip(archive), split)
    if suffix in (".npz", ".npy"):
        return _Arrays(path, expected)
    if suffix == ".parquet":
        return _Parquet(path, [path], 0)
    one = suffix in SUFFIXES
    raise UserError(
        f"{shown} is one image" if one else f"{shown} is not a known container of images",
        expected=_KINDS,
        fix="give the folder that contains it" if one else "",
    )


def _of_listing(path: Path, listing: Listing, split: str | None) -> Container:
    shown = printable(str(path))
    if listing.images and listing.parquet:
        raise UserError(
            f"{shown} holds image files and parquet files: {listing.images[0].name}, "
            f"{listing.parquet[0].name}",
            expected="one kind",
        )
    if listing.parquet and path.is_dir():
        members = of_split(listing.parquet, split, path, by_file=True)
        others = listing.ignored + len(listing.labels) + len(listing.parquet) - len(members)
        return _Parquet(path, [Path(m.source) for m in members], others)  # type: ignore[arg-type]
    if not listing.images:
        inside = [m.name for m in (*listing.containers, *listing.parquet)]
        raise UserError(
            f"{shown} holds no images"
            + (f"; it holds {', '.join(inside[:3])}, which are containers" if inside else ""),
            expected="files ending in " + ", ".join(SUFFIXES),
            fix="give one of these files, or put the images together" if inside else "",
        )
    return ImageFiles(path, listing, of_split(listing.images, split, path))


def locate(name: str, given: Path | None, usual: tuple[str, ...], *, command: str) -> Path:
    """Returns the given path, or the first usual name under `CMBENCH_DATA` or ./data.

    Raises:
        UserError: If the given path does not exist.
        Pending: If the data is not on this machine, with the command that downloads it.
    """
    if given is not None:
        if not given.exists():
            raise UserError(f"data set {name}: {printable(str(given))} does not exist")
        return given
    folders = [Path(os.environ["CMBENCH_DATA"])] if os.environ.get("CMBENCH_DATA") else []
    for folder in (*folders, Path("data")):
        for item in usual:
            if (folder / item).exists():
                return folder / item
    raise Pending(f"data set {name} is not on this machine", command=command)
