"""Reads all images of a container for a data set; the first bad image is an error."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError
from cmbench.core.text import printable
from cmbench.datasets._array_files import ExpectedShape
from cmbench.datasets._containers import BadImage, Container, open_container
from cmbench.datasets._decode import Fit

__all__ = ["Fit", "Pictures", "read_pictures", "require_count"]

_NAMED = 5


class Pictures(NamedTuple):
    """Pixels (N, C, H, W) uint8; labels (N,) and class names, or None; files ignored."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    names: tuple[str, ...] | None = None
    ignored: int = 0


def read_pictures(
    path: Path,
    *,
    channels: int | None = 3,
    fit: Fit | None = None,
    split: str | None = None,
    expected: ExpectedShape = (None, None, None),
) -> Pictures:
    """Reads all images of a container.

    Args:
        path: A folder, .zip, .npz, .npy or .parquet.
        channels: 1 or 3 converts image files to grey or RGB; None keeps their channels.
        fit: Crops and resizes image files.
        split: The split to read, where folders or parquet files are named after splits.
        expected: (C, H, W) as far as known, for arrays whose axes are ambiguous.

    Raises:
        UserError: For a broken image, mixed sizes or modes, an empty container, labels that don't
            fit, or an unknown kind of file.
        Pending: If reading it needs a package that is not installed.
    """
    container = open_container(path, split=split, expected=expected)
    labels = container.labels()
    pixels = _pixels(container, channels, fit)
    if labels is None or (labels.names is not None and len(labels.names) == 1):
        return Pictures(pixels, None, None, container.ignored)  # a single folder is not a class
    return Pictures(pixels, labels.values, labels.names, container.ignored)


def _pixels(container: Container, channels: int | None, fit: Fit | None) -> NDArray[np.uint8]:
    result: NDArray[np.uint8] | None = None
    for index, (name, pixels) in enumerate(container.images(channels=channels, fit=fit)):
        if isinstance(pixels, BadImage):
            raise _refused(container, pixels)
        if result is None:
            result = _allocated(container, pixels.shape)
        if pixels.shape != result.shape[1:]:
            raise _mixed(container, name, channels, fit)
        result[index] = pixels
    if result is None:
        raise UserError(f"{printable(str(container.path))} holds no images")
    return result


def _allocated(container: Container, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        return np.empty((len(container), *shape), np.uint8)
    except (MemoryError, ValueError):
        size = len(container) * int(np.prod(shape, dtype=object))
        raise UserError(
            f"{printable(str(container.path))}: {len(container):,} images of {shape} need "
            f"{size / 1e9:,.0f} GB of memory",
            fix="give `size` to resize them, or fewer images",
        ) from None


def _refused(container: Container, bad: BadImage) -> UserError:
    fixes = {
        "transparent": "flatten it onto a background of your choice",
        "EXIF": "rotate the pixels upright and remove the tag (ImageOps.exif_transpose)",
        "8 bits": "convert it to 8 bits by a rule of your choice",
        "not 8-bit": "convert it to 8-bit grey or RGB",
        "frame": "save its frames as single images",
    }
    fix = next((text for key, text in fixes.items() if key in bad.detail), "")
    what = "is not an intact image" if bad.fault == "corrupt" else "can't be read"
    if "transparent" in bad.detail:
        what = "has transparent pixels"
    return UserError(
        f"{printable(str(container.path))}: {bad.name} {what}: {bad.detail}",
        expected="intact, opaque, upright single images of 8-bit grey or RGB",
        fix=fix or "replace or remove it",
    )


def _mixed(container: Container, name: str, channels: int | None, fit: Fit | None) -> UserError:
    """Names the images whose shape is not the most frequent one."""
    usual = container.usual_shape()
    assert usual is not None
    shown = printable(str(container.path))
    if fit is None and any(shape[1:] != usual[1:] for _, shape in container.shapes()):
        odd = [(n, f"{s[1]}x{s[2]}") for n, s in container.shapes() if s[1:] != usual[1:]]
        most, fix = f"{usual[1]}x{usual[2]}", "data set `images` with `size` and `crop`, or remove"
    else:
        words = {1: "grey", 3: "colour"}
        odd = [(n, words[s[0]]) for n, s in container.shapes() if s[0] != usual[0]]
        most, fix = words[usual[0]], f"data set `images` with `channels: {usual[0]}`, or remove"
    listed = ", ".join(f"{n} ({what})" for n, what in odd[:_NAMED])
    more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
    return UserError(
        f"{shown}: mixed images: {len(odd)} of {len(container)} are not {most} as most are: "
        f"{listed or name}{more}",
        fix=f"{fix} the odd ones",
    )


def require_count(
    name: str, split: str, count: int, splits: dict[str, int], *, path: Path, subset: bool
) -> None:
    """Checks that the number of images is that of the requested split.

    Args:
        name: The data set.
        split: The requested split.
        count: Number of images read.
        splits: Number of images of each split.
        path: The container.
        subset: Whether a subset of the split is allowed.

    Raises:
        UserError: For another number, unless it is a subset and that is allowed.
    """
    wanted = splits[split]
    if count == wanted or (subset and count < wanted):
        return
    other = next((s for s, n in splits.items() if n == count), None)
    is_other = f", the number of split {other}" if other else ""
    raise UserError(
        f"{printable(str(path))} holds {count:,} images{is_other}",
        expected=f"{wanted:,}, the {split} split of {name}",
        fix=f"dataset: {{name: {name}, split: {split}, subset: true}} for a subset, "
        "or data set `images`" if count < wanted else "",
    )  # fmt: skip
