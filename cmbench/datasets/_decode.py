"""Decodes one image file; an image that is not 8-bit grey or RGB is refused, never converted.

The same checks serve generated images, references and training sets.
"""

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

__all__ = ["CORRUPT", "MAX_BYTES", "SUFFIXES", "BadImage", "Fit", "Shape", "decode",
           "header_shape"]  # fmt: skip

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff",
            ".ppm", ".pgm", ".pbm", ".pnm")  # fmt: skip
MAX_BYTES = 256 * 2**20
"""Maximum size of an uncompressed image file: a member of a zip may claim any size."""
CORRUPT = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, KeyError,
           TypeError, IndexError, OverflowError, MemoryError, struct.error, zlib.error,
           zipfile.BadZipFile, Image.DecompressionBombError)  # fmt: skip
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_ORIENTATION = 0x0112
_GREY = ("L", "1", "LA")
_FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
}
Fault = Literal["size", "mode", "corrupt", "file"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class BadImage:
    """An unreadable image: its name, the kind of fault, and the details.

    The kinds: `size` and `mode` (of the pixels), `corrupt` (can't be decoded), `file` (can't be
    opened: a broken link, a folder, a pipe, an encrypted or oversized member).
    """

    name: str
    fault: Fault
    detail: str


class Fit(NamedTuple):
    """Crop and resize of images to (size, size), only on request."""

    size: int
    crop: str
    resample: str


def decode(
    name: str, data: bytes, *, channels: int | None = None, fit: Fit | None = None
) -> NDArray[np.uint8] | BadImage:
    """Returns the pixels (C, H, W) of an image file, or its fault.

    Palettes and opaque alpha channels are removed, which loses nothing.

    Args:
        name: Name of the file, for the fault.
        data: The file's bytes.
        channels: 1 or 3 converts to grey (ITU-R 601 luma) or RGB; None keeps the file's channels.
        fit: Crop and resize, if requested.
    """
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            unfit = _unfit(image)
            if unfit:
                return BadImage(name, "mode", unfit)
            image.load()
            if _hides(image):
                return BadImage(name, "mode", f"{image.mode} with transparent pixels")
            grey = channels == 1 if channels else image.mode in _GREY
            converted = image.convert("L" if grey else "RGB")
            pixels = np.asarray(_fitted(converted, fit) if fit else converted)
    except CORRUPT as error:
        return BadImage(name, "corrupt", _reason(error, data))
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def header_shape(file: IO[bytes]) -> Shape | None:
    """Returns (C, H, W) from a file's header without decoding it; None if it is not an image."""
    try:
        with _quiet(), Image.open(file, formats=_FORMATS) as image:
            return (1 if image.mode in _GREY else 3, image.height, image.width)
    except CORRUPT:
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Pillow's warnings about broken metadata, which do not concern the pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _unfit(image: Image.Image) -> str:
    """Returns why the image is not a single, upright image of 8-bit grey or RGB; "" if it is."""
    if image.mode not in ("RGB", "L", "1", "P", "RGBA", "LA"):
        return f"{image.mode}, not 8-bit grey or RGB"
    if _deep(image):
        return "more than 8 bits per channel"
    if getattr(image, "n_frames", 1) > 1:
        return "more than one frame"
    orientation = _orientation(image)
    return (
        f"EXIF orientation {orientation}: stored rotated or mirrored" if orientation != 1 else ""
    )


def _deep(image: Image.Image) -> bool:
    """Detects 16-bit RGB, of which Pillow silently keeps the high byte."""
    for tile in getattr(image, "tile", [])[:1]:
        parts = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if any(isinstance(part, str) and part.partition(";")[2][:2] in ("16", "32")
               for part in parts):  # fmt: skip
            return True
        if tile.codec_name in ("ppm", "ppm_plain") and any(
            isinstance(part, int) and part > 255 for part in parts
        ):
            return True
    return False


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 (upright) if it is missing or unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except CORRUPT:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _hides(image: Image.Image) -> bool:
    """Tests whether an alpha channel is not opaque: the background would have to be guessed."""
    if not image.has_transparency_data:
        return False
    return bool(image.convert("RGBA").getchannel("A").getextrema() != (255, 255))


def _fitted(image: Image.Image, fit: Fit) -> Image.Image:
    if fit.crop == "center":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image.resize((fit.size, fit.size), _FILTERS[fit.resample])


def _reason(error: Exception, data: bytes) -> str:
    if not data:
        return "the file is empty"
    if data.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself: git lfs pull"
    if data.lstrip()[:1] == b"<":
        return "a page of text (HTML or XML), not an image"
    if isinstance(error, UnidentifiedImageError):
        return "no PNG, JPEG, BMP, WebP, GIF, TIFF or PPM image"
    return str(error).replace("<_io.BytesIO object", "<bytes") or type(error).__name__
