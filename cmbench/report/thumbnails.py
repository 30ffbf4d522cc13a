"""The first images of a cell, cut from its sheet of samples and brought to a size that is shown.

A sheet is decoded once and only its first images are kept, so that a report over sheets of 4,096
pixels needs no more memory than one of them.
"""

from pathlib import Path

from PIL import Image

from cmbench.record.folder import on_stderr
from cmbench.report.escape import printable
from cmbench.report.output import is_own
from cmbench.stats.rows import Row

__all__ = ["first_images", "samples_of"]

ACROSS = 8
"""Images in a row of a sheet."""
_MOST_PIXELS = 70_000_000
"""Pixels of the largest sheet that is decoded: 8 x 8 images of 1,024."""


def samples_of(folder: Path, row: Row) -> Path | None:
    """The sheet of samples of the row's first record; None where there is none of its own."""
    path = folder / "samples" / f"{row.cell}.png"
    return path if is_own(path) else None


def first_images(path: Path, count: int, most: int) -> list[Image.Image]:
    """The first images of a sheet, at most `count`, no side longer than `most` pixels.

    An unreadable sheet gives none, with a message on standard error.
    """
    try:
        with Image.open(path, formats=["PNG"]) as sheet:
            if sheet.width * sheet.height > _MOST_PIXELS:
                raise ValueError(f"{sheet.width} x {sheet.height} pixels are too many")
            side = sheet.width // ACROSS
            if side < 1 or sheet.height < side:
                raise ValueError(f"{sheet.width} x {sheet.height} pixels hold no rows of {ACROSS}")
            there = min(count, sheet.height // side * ACROSS)
            return [_image(sheet, side, i, most) for i in range(there)]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        on_stderr(f"skipped {path}: {printable(str(error))[:200]}")
        return []


def _image(sheet: Image.Image, side: int, place: int, most: int) -> Image.Image:
    left, upper = place % ACROSS * side, place // ACROSS * side
    mode = "L" if sheet.mode in ("1", "L") else "RGB"
    one = sheet.crop((left, upper, left + side, upper + side)).convert(mode)
    return one if side <= most else one.resize((most, most), Image.Resampling.BOX)
