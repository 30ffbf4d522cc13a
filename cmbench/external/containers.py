"""Images made elsewhere, read a batch at a time; what is wrong with any of them is named.

A folder or zip of image files, an .npz (ADM's `arr_0`, score SDE's `samples`) or an .npy. Arrays
inside an .npz are streamed from the archive, never held whole.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cmbench.core.errors import UserError

__all__ = ["BadImage", "ImageStream", "images_inside"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_NAMES = ("arr_0", "images", "samples", "x")
_CORRUPT = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, zlib.error,
            zipfile.BadZipFile, Image.DecompressionBombError)  # fmt: skip
Fault = Literal["size", "mode", "corrupt"]


@dataclass(frozen=True)
class BadImage:
    """An image that can't be scored: its name, what kind of fault, and what was found."""

    name: str
    fault: Fault
    detail: str


@dataclass
class ImageStream:
    """Images of a container in the order of their sorted names (arrays: as they lie).

    Args:
        path: Folder, .zip, .npz or .npy.
        size: (height, width) that every image must have; the first whole image's if None.
        channels: 1 or 3; the first whole image's if None.
    """

    path: Path
    size: tuple[int, int] | None = None
    channels: int | None = None
    bad: list[BadImage] = field(default_factory=list)
    total: int = 0
    ignored: int = 0
    duplicates: int = 0
    folders: list[str] = field(default_factory=list)
    """Folder of each image handed out, as far as images are files: their class, often."""

    def __post_init__(self) -> None:
        self._state = hashlib.sha256()
        self._seen: set[bytes] = set()

    @property
    def digest(self) -> str:
        """SHA-256 of the pixels handed out so far, in order: the container does not matter."""
        return self._state.hexdigest()

    def batches(self, batch: int) -> Iterator[NDArray[np.uint8]]:
        """Pixels (B, C, H, W), at most `batch` a time; faults are collected in `bad`.

        Raises:
            UserError: For a container that is missing, empty, truncated, or holds no pixels.
        """
        if not self.path.exists():
            raise UserError(f"{self.path} does not exist", expected="a folder, .zip, .npz or .npy")
        suffix = self.path.suffix.lower()
        if self.path.is_dir() or suffix == ".zip":
            blocks = self._decoded(batch)
        elif suffix in (".npz", ".npy"):
            blocks = self._from_array(batch)
        else:
            raise UserError(
                f"{self.path} is no container of images that is read here",
                expected="a folder, .zip, .npz or .npy",
            )
        for block in blocks:
            self._take_note(block)
            yield block

    def _take_note(self, block: NDArray[np.uint8]) -> None:
        for image in block:
            raw = np.ascontiguousarray(image).tobytes()
            self._state.update(raw)
            mark = hashlib.sha256(raw).digest()[:16]
            self.duplicates += mark in self._seen
            self._seen.add(mark)

    def _decoded(self, batch: int) -> Iterator[NDArray[np.uint8]]:
        held: list[NDArray[np.uint8]] = []
        for name, data in self._files():
            self.total += 1
            image = self._image(name, data)
            if image is None:
                continue
            held.append(image)
            self.folders.append(PurePosixPath(name.replace("\\", "/")).parent.name)
            if len(held) == batch:
                yield np.stack(held)
                held.clear()
        if held:
            yield np.stack(held)
        if not self.total:
            raise UserError(
                f"{self.path} holds no images", expected="files ending in " + ", ".join(_SUFFIXES)
            )

    def _files(self) -> Iterator[tuple[str, bytes | BadImage]]:
        if self.path.is_dir():
            files = sorted(f for f in self.path.rglob("*") if f.is_file())
            wanted = [f for f in files if f.suffix.lower() in _SUFFIXES]
            self.ignored = len(files) - len(wanted)
            for file in wanted:
                name = str(file.relative_to(self.path))
                try:
                    yield name, file.read_bytes()
                except OSError as error:
                    yield name, BadImage(name, "corrupt", str(error))
            return
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = sorted(n for n in archive.namelist() if not n.endswith("/"))
                names = [n for n in members if n.lower().endswith(_SUFFIXES)]
                self.ignored = len(members) - len(names)
                for name in names:
                    yield name, _member(archive, name)
        except zipfile.BadZipFile as error:
            raise UserError(f"{self.path} is not a whole zip file ({error})") from None

    def _image(self, name: str, data: bytes | BadImage) -> NDArray[np.uint8] | None:
        found = data if isinstance(data, BadImage) else _decode(name, data)
        if not isinstance(found, BadImage):
            fault = self._misfit(name, found)
            if fault is None:
                return found
            found = fault
        self.bad.append(found)
        return None

    def _misfit(self, name: str, image: NDArray[np.uint8]) -> BadImage | None:
        channels, *size = image.shape
        if self.channels is None:
            self.channels = channels
        if self.size is None:
            self.size = (size[0], size[1])
        if channels != self.channels:
            words = {1: "grey", 3: "colour"}
            return BadImage(name, "mode", f"{words[channels]}, not {words[self.channels]}")
        if tuple(size) != self.size:
            return BadImage(
                name, "size", f"{size[0]}x{size[1]}, not {self.size[0]}x{self.size[1]}"
            )
        return None

    def _from_array(self, batch: int) -> Iterator[NDArray[np.uint8]]:
        blocks = _npz_blocks if self.path.suffix.lower() == ".npz" else _npy_blocks
        try:
            for block in blocks(self.path, batch):
                pixels = _channels_first(block, self.path)
                fault = self._misfit("array", pixels[0])
                if fault is not None:
                    raise UserError(
                        f"{self.path}: images are {fault.detail}",
                        fix="--size, or another reference",
                    )
                self.total += len(pixels)
                yield pixels
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{self.path} is not a whole array file: {error}") from None
        if not self.total:
            raise UserError(f"{self.path} holds no images")


def images_inside(path: Path) -> NDArray[np.uint8]:
    """All images of an .npz, (N, H, W, C), as ADM keeps them.

    Raises:
        UserError: If it holds none, or is truncated.
    """
    blocks = list(ImageStream(path).batches(1000))
    return np.concatenate(blocks).transpose(0, 2, 3, 1)


def _member(archive: zipfile.ZipFile, name: str) -> bytes | BadImage:
    try:
        return archive.read(name)
    except (*_CORRUPT, RuntimeError, NotImplementedError) as error:
        return BadImage(name, "corrupt", str(error))


def _decode(name: str, data: bytes) -> NDArray[np.uint8] | BadImage:
    """Pixels (C, H, W); palettes and opaque alpha are taken off, which loses nothing."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if getattr(image, "n_frames", 1) > 1:
                return BadImage(name, "mode", "more than one frame")
            if image.mode not in ("RGB", "L", "1", "P", "RGBA", "LA"):
                return BadImage(name, "mode", f"{image.mode}, not 8-bit grey or RGB")
            if _hides(image):
                return BadImage(name, "mode", f"{image.mode} with transparent pixels")
            grey = image.mode in ("L", "1", "LA")
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except _CORRUPT as error:
        return BadImage(name, "corrupt", str(error).replace("<_io.BytesIO object", "<bytes"))
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _hides(image: Image.Image) -> bool:
    """Whether an alpha channel hides something: over which background is not ours to guess."""
    if not image.has_transparency_data:
        return False
    return bool(image.convert("RGBA").getchannel("A").getextrema() != (255, 255))


def _channels_first(block: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    if block.dtype != np.uint8 or block.ndim != 4:
        raise UserError(
            f"{path} holds {block.dtype} of {block.ndim} axes, not pixels",
            expected="uint8, (N, H, W, C) or (N, C, H, W)",
            fix="quantise floats first, by the rule your protocol names",
        )
    if block.shape[-1] in (1, 3) and block.shape[1] not in (1, 3):
        block = block.transpose(0, 3, 1, 2)
    if block.shape[1] not in (1, 3):
        raise UserError(f"{path} holds images of {block.shape[1]} channels", expected="1 or 3")
    return np.array(block, order="C")  # A copy of its own: what was read may not be written to.


def _npy_blocks(path: Path, batch: int) -> Iterator[NDArray[Any]]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    for first in range(0, len(array), batch):
        yield array[first : first + batch]


def _npz_blocks(path: Path, batch: int) -> Iterator[NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        held = set(archive.namelist())
        name = next((n for n in _NAMES if f"{n}.npy" in held), None)
        if name is None:
            raise UserError(
                f"{path} has no array of images", expected="one of " + ", ".join(_NAMES)
            )
        with archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                header = np.lib.format.read_array_header_2_0
            shape, fortran, kind = header(file)
            if fortran or kind.hasobject or len(shape) != 4:
                raise UserError(
                    f"{path}: {name} is no plain array of images (shape {shape}, {kind})",
                    expected="uint8 in C order, (N, H, W, C) or (N, C, H, W)",
                )
            yield from _read_blocks(file, shape, kind, batch)


def _read_blocks(
    file: Any, shape: tuple[int, ...], kind: np.dtype[Any], batch: int
) -> Iterator[NDArray[Any]]:
    each = int(np.prod(shape[1:])) * kind.itemsize
    for first in range(0, shape[0], batch):
        count = min(batch, shape[0] - first)
        data = file.read(each * count)
        if len(data) != each * count:
            raise EOFError(f"it ends at image {first + len(data) // each} of {shape[0]}")
        yield np.frombuffer(data, kind).reshape(count, *shape[1:])
