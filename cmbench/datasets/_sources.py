"""Containers of images: zip, folder, .npy, .npz, parquet, CIFAR's and MNIST's own files.

What a container holds is decoded once into one array; every fault names the member.
"""

import gzip
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cmbench.core.array_files import check_unpacked
from cmbench.core.errors import Pending, UserError
from cmbench.core.files import parsing, read_regular
from cmbench.core.safe_pickle import SafeUnpickler

__all__ = ["Fit", "Pictures", "read_cifar_batches", "read_idx", "read_pictures"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")


class Pictures(NamedTuple):
    """Pixels (N, C, H, W) uint8 and labels (N,) or None."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None


class Fit(NamedTuple):
    """How pictures of other sizes are brought to (size, size): explicit, never by default."""

    size: int
    crop: str
    resample: str


def read_pictures(path: Path, *, channels: int | None = 3, fit: Fit | None = None) -> Pictures:
    """Reads a zip, a folder, a .npy/.npz or a .parquet of images.

    Without `channels`, arrays keep theirs and files are read as RGB.

    Raises:
        UserError: For a broken image, mixed sizes, an empty container, or an unknown kind of file.
        Pending: If reading it needs a package that is not installed.
    """
    of_files = channels or 3
    if path.is_dir():
        parquet = sorted(path.rglob("*.parquet"))
        return _parquet(parquet, of_files, fit) if parquet else _folder(path, of_files, fit)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return _zip(path, of_files, fit)
    if suffix in (".npy", ".npz"):
        read = _arrays(path)
        if channels is not None and read.pixels.shape[1] != channels:
            raise UserError(
                f"{path} holds images of {read.pixels.shape[1]} channels",
                expected=f"{channels}; or give the data set's `channels`",
            )
        if fit and read.pixels.shape[2:] != (fit.size, fit.size):
            raise UserError(
                f"{path} holds arrays of {read.pixels.shape[2:]}, which are not resized",
                expected=f"arrays of side {fit.size}, or image files",
            )
        return read
    if suffix == ".parquet":
        return _parquet([path], of_files, fit)
    raise UserError(
        f"{path} is no container of images that cmbench reads",
        expected="a folder, .zip, .npy, .npz or .parquet",
    )


def _zip(path: Path, channels: int, fit: Fit | None) -> Pictures:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if n.lower().endswith(_SUFFIXES))
            members = ((f"{path}:{n}", _member(archive, n, path)) for n in names)
            pixels = _decode(members, len(names), path, channels, fit)
            listed = _json_labels(archive, path)
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{path} is not a whole zip file ({error})", fix="bring it again"
        ) from None
    if listed is None:
        return Pictures(pixels, None)
    missing = next((n for n in names if n not in listed), None)
    if missing is not None:
        raise UserError(f"{path}: dataset.json has no label for {missing}")
    return Pictures(pixels, np.array([listed[n] for n in names], np.int64))


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}:{name} can't be read: {error}", fix="bring the file again"
        ) from None


def _json_labels(archive: zipfile.ZipFile, path: Path) -> dict[str, int] | None:
    if "dataset.json" not in archive.namelist():
        return None
    try:
        rows = json.loads(archive.read("dataset.json")).get("labels")
        return {str(n): int(label) for n, label in rows} if rows else None
    except (ValueError, TypeError, AttributeError):
        raise UserError(
            f"{path}: dataset.json does not read",
            expected='{"labels": [["00000/img.png", 6], ...]} or {"labels": null}',
        ) from None


def _folder(path: Path, channels: int, fit: Fit | None) -> Pictures:
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _SUFFIXES)
    members = ((str(f), f.read_bytes()) for f in files)
    pixels = _decode(members, len(files), path, channels, fit)
    classes = sorted({f.parent for f in files})
    labels = None
    if len(classes) > 1:
        labels = np.array([classes.index(f.parent) for f in files], np.int64)
    return Pictures(pixels, labels)


def _decode(
    members: Iterable[tuple[str, bytes]], count: int, path: Path, channels: int, fit: Fit | None
) -> NDArray[np.uint8]:
    if count == 0:
        raise UserError(
            f"{path} holds no images", expected="files ending in " + ", ".join(_SUFFIXES)
        )
    result: NDArray[np.uint8] | None = None
    first = ""
    for i, (name, data) in enumerate(members):
        picture = _picture(name, data, channels, fit)
        if result is None:
            result, first = np.empty((count, *picture.shape), np.uint8), name
        if picture.shape != result.shape[1:]:
            raise UserError(
                f"mixed sizes: {first} is {result.shape[2:]}, {name} is {picture.shape[1:]}",
                fix="use data set `images` with `size` and `crop`, or make them equal",
            )
        result[i] = picture
    assert result is not None
    return result


def _picture(name: str, data: bytes, channels: int, fit: Fit | None) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse_transparency(image, name)
            converted = image.convert("L" if channels == 1 else "RGB")
            pixels = np.asarray(_fitted(converted, fit) if fit else converted)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{name} is not a whole image: {error}", fix="replace or remove it"
        ) from None
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _refuse_transparency(image: Image.Image, name: str) -> None:
    """An alpha channel that hides something: over which background is not ours to guess."""
    if not image.has_transparency_data:
        return
    if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise UserError(
            f"{name} has transparent pixels",
            expected="opaque images",
            fix="flatten them onto a background of your choice first",
        )


def _fitted(image: Image.Image, fit: Fit) -> Image.Image:
    if fit.crop == "center":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    filters = {
        "lanczos": Image.Resampling.LANCZOS,
        "bicubic": Image.Resampling.BICUBIC,
        "box": Image.Resampling.BOX,
        "bilinear": Image.Resampling.BILINEAR,
    }
    return image.resize((fit.size, fit.size), filters[fit.resample])


def _arrays(path: Path) -> Pictures:
    try:
        loaded = np.load(path, allow_pickle=False)
        named = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"arr_0": loaded}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a whole .npy/.npz file: {error}") from None
    name = next((n for n in ("arr_0", "images", "samples", "x") if n in named), None)
    if name is None or named[name].ndim != 4 or named[name].dtype != np.uint8:
        raise UserError(
            f"{path} holds no uint8 images of 4 axes",
            expected="array arr_0 (or images, samples), uint8, (N, H, W, C) or (N, C, H, W)",
        )
    pixels = named[name]
    if pixels.shape[-1] in (1, 3) and pixels.shape[1] not in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    given = next((named[n] for n in ("arr_1", "labels", "y") if n in named), None)
    labels = None if given is None else given.astype(np.int64).reshape(-1)
    if labels is not None and len(labels) != len(pixels):
        raise UserError(f"{path} holds {len(labels)} labels for {len(pixels)} images")
    return Pictures(np.ascontiguousarray(pixels), labels)


def _parquet(files: list[Path], channels: int, fit: Fit | None) -> Pictures:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise Pending(
            "reading parquet needs the package pyarrow", command="pip install 'cmbench[parquet]'"
        ) from None
    rows: list[dict[str, Any]] = [row for f in files for row in pq.read_table(f).to_pylist()]
    if not rows:
        raise UserError(f"{files[0]} holds no rows")
    column = next((c for c in ("img", "image") if c in rows[0]), None)
    if column is None:
        raise UserError(
            f"{files[0]} has no column img or image", expected="a Hugging Face image set"
        )
    members = ((f"{files[0]}: row {i}", _bytes(row[column])) for i, row in enumerate(rows))
    pixels = _decode(members, len(rows), files[0], channels, fit)
    label = next((c for c in ("label", "fine_label") if c in rows[0]), None)
    labels = np.array([row[label] for row in rows], np.int64) if label else None
    return Pictures(pixels, labels)


def _bytes(cell: Any) -> bytes:
    return cell["bytes"] if isinstance(cell, dict) else bytes(cell)


def read_cifar_batches(folder: Path, names: list[str]) -> Pictures:
    """Reads the python version of CIFAR-10 (`data_batch_1`, ..., as torchvision unpacks it)."""
    pixels, labels = [], []
    for name in names:
        file = folder / name
        data = read_regular(file, "CIFAR-10 batch")
        with parsing(file, "a CIFAR-10 batch"):
            batch = SafeUnpickler(io.BytesIO(data)).load()
            # Python 2 wrote the names as text, Python 3 as bytes.
            held = {n.decode() if isinstance(n, bytes) else n: v for n, v in batch.items()}
            pixels.append(np.asarray(held["data"], np.uint8).reshape(-1, 3, 32, 32))
            labels.append(np.asarray(held["labels"], np.int64))
    return Pictures(np.concatenate(pixels), np.concatenate(labels))


def read_idx(file: Path) -> NDArray[np.uint8]:
    """Reads an idx file of bytes (MNIST's format), gzipped or not."""
    data = read_regular(file, "idx file")
    with parsing(file, "an idx file"):
        packed = file.suffix == ".gz"
        stream = gzip.GzipFile(fileobj=io.BytesIO(data)) if packed else io.BytesIO(data)
        head = stream.read(4)
        if len(head) < 4 or head[:3] != b"\0\0\x08":
            raise UserError("not an idx file of bytes: it doesn't start as one does")
        shape = tuple(int.from_bytes(stream.read(4), "big") for _ in range(head[3]))
        size = math.prod(shape)
        if not size:
            raise UserError("the idx file holds no images or labels")
        check_unpacked(size, len(data), "the array")
        found = np.frombuffer(stream.read(size + 1), np.uint8)
        return found.reshape(shape)
