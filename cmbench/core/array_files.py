"""NumPy's .npz files from elsewhere: what a header claims is checked before it is allocated."""

import io
import math
import os
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cmbench.core.errors import UserError
from cmbench.core.files import parsing, regular_file

__all__ = ["ArrayHeader", "check_unpacked", "npz_headers", "read_header", "read_npz"]

_LONGEST_HEADER = 10_000
_FREE = 64 << 20
_MOST_PACKED = 100
"""Times that a large member may unpack to what it takes in the file; zeros reach 1,030."""


@dataclass(frozen=True)
class ArrayHeader:
    """Header of an array in a .npy or .npz file.

    Args:
        shape: The sizes of its axes.
        dtype: The type of its entries.
        fortran: Whether its first axis runs fastest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool = False

    @property
    def nbytes(self) -> int:
        """The bytes of all entries."""
        return math.prod(self.shape) * self.dtype.itemsize


def npz_headers(path: Path, kind: str = "file") -> dict[str, ArrayHeader]:
    """Reads the headers of all arrays in a .npz file, and none of the arrays.

    Raises:
        UserError: If the file is missing, no regular file, truncated or no .npz file; or if an
            array is larger than what the file holds of it.
    """
    with parsing(regular_file(path, kind), "a .npz file"), _archive(path) as archive:
        return {_name(entry): _header(archive, entry) for entry in _members(archive)}


def read_npz(
    path: Path, names: Collection[str] | None = None, kind: str = "file"
) -> dict[str, np.ndarray[Any, Any]]:
    """Reads the arrays of a .npz file called `names`, as far as they are there; by default all.

    Raises:
        UserError: As `npz_headers`, and if one of them holds Python objects.
    """
    with parsing(regular_file(path, kind), "a .npz file"), _archive(path) as archive:
        found = {}
        for entry in _members(archive):
            if names is None or _name(entry) in names:
                _refuse_objects(_header(archive, entry), entry.filename)
                with archive.open(entry) as file:
                    found[_name(entry)] = np.lib.format.read_array(file, allow_pickle=False)
        return found


def check_unpacked(size: int, packed: int, what: str) -> None:
    """Refuses what unpacks to far more than real data would: a bomb of zeros.

    Args:
        size: Bytes after unpacking.
        packed: Bytes in the file.
        what: Its name, for the error.

    Raises:
        UserError: If it is large, and more than 100 times what the file holds.
    """
    if size > max(_FREE, _MOST_PACKED * packed):
        raise UserError(f"refused: {what} unpacks from {packed:,} to {size:,} bytes")


def _archive(path: Path) -> zipfile.ZipFile:
    with path.open("rb") as file:
        if file.peek(6)[:6] == b"\x93NUMPY":
            _refuse_objects(read_header(file, path.name), path.name)
            raise UserError(f"{path} is one array", expected="an .npz with named arrays")
        size = os.fstat(file.fileno()).st_size
    archive = zipfile.ZipFile(path)
    if sum(entry.compress_size for entry in archive.infolist()) > size:
        archive.close()
        raise UserError("refused: a zip archive whose members overlap")
    return archive


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]


def _name(entry: zipfile.ZipInfo) -> str:
    return entry.filename.removesuffix(".npy")


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> ArrayHeader:
    with archive.open(entry) as file:
        header = read_header(file, entry.filename)
    if header.dtype.hasobject:
        return header
    claimed = header.nbytes
    if claimed > entry.file_size:
        raise UserError(
            f"refused: the array '{_name(entry)}' of shape {header.shape} claims {claimed:,} "
            f"bytes, of which the file holds {entry.file_size:,}"
        )
    check_unpacked(claimed, entry.compress_size, f"the array '{_name(entry)}'")
    return header


def _refuse_objects(header: ArrayHeader, name: str) -> None:
    if header.dtype.hasobject:
        raise UserError(
            f"'{name}' holds Python objects, which are not read",
            expected="arrays of numbers",
            fix="save each array of numbers under a name of its own with numpy.savez",
        )


def read_header(file: Any, name: str) -> ArrayHeader:
    """Reads the header of the .npy array that starts here; the entries follow.

    Args:
        file: The open file or member.
        name: Its name, for the error.

    Raises:
        UserError: For a header that is too long, or sizes that are not integers of 0 or more.
        ValueError: If no array starts here.
    """
    major, _ = np.lib.format.read_magic(file)
    width = 2 if major == 1 else 4
    raw = file.read(width)
    length = int.from_bytes(raw, "little")
    if length > _LONGEST_HEADER:
        raise UserError(f"refused: '{name}' has a header of {length:,} bytes")
    whole: BinaryIO = io.BytesIO(raw + file.read(length))
    readers = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    shape, fortran, dtype = readers[major > 1](whole)
    if not all(type(n) is int and n >= 0 for n in shape):
        raise UserError(f"'{name}' has the shape {shape}")
    return ArrayHeader(shape, dtype, fortran)
