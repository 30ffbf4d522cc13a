"""The strip of the field: the same noise by method and number of evaluations.

A row a method, its own numbers of evaluations from left to right, none left empty; places in a
tile start from the same noise in all of them.
"""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cmbench.report.board import Board
from cmbench.report.escape import printable
from cmbench.report.thumbnails import first_images, samples_of
from cmbench.stats.rows import Row

__all__ = ["sample_sheet", "sample_tiles"]

_WIDTH = 1600
"""Most pixels across a sheet."""
_MOST_METHODS = 12
"""Methods on a sheet: more are no picture to look at once."""
_MOST_ROWS = 24
"""Methods in the page's strip."""
_MOST_CELLS = 8
"""Numbers of evaluations in one row; of more, evenly spread ones are shown."""
_TILE = 96
"""Pixels across an image of a sheet, about."""
_LABEL = 250
_GAP = 10
_CAPTION = 22
_MOST_BYTES = 1_000_000
"""Bytes of all samples in one page, so that it can be sent by mail."""
_FORMS = ((16, 64), (16, 48), (8, 48), (4, 48), (4, 32), (1, 32), (1, 16))
"""Images of a cell and pixels of their sides, from the best that a page may hold."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Strip:
    """One method with its images: by number of evaluations, the places' images."""

    name: str
    group: str
    cells: list[tuple[Row, list[Image.Image]]]


def sample_sheet(board: Board, folder: Path) -> Image.Image | None:
    """The strip of the leading methods as one picture; None without samples."""
    shown = board.leading(most=_MOST_METHODS)
    strips = [s for s in _strips(board, folder, shown, count=4, most=_TILE) if s.cells]
    if not strips:
        return None
    across = max(len(strip.cells) for strip in strips)
    room = (_WIDTH - _LABEL - _GAP) // across - _GAP
    side = _side(strips[0].cells[0][1][0].width)
    count = max(1, min(4, room // side))
    side = min(side, room // count)
    tile = count * (side + 2) - 2
    height = side + _CAPTION + _GAP
    fonts: tuple[Font, Font] = ImageFont.load_default(20), ImageFont.load_default(16)
    width = _LABEL + across * (tile + _GAP) + _GAP
    left_out = len(board.labels) - len(shown)
    foot = _CAPTION + _GAP if left_out else 0
    sheet = Image.new("RGB", (width, _GAP + height * len(strips) + foot), "white")
    draw = ImageDraw.Draw(sheet)
    for i, strip in enumerate(strips):
        top = _GAP + i * height
        _write_name(draw, strip.name, top, side + _CAPTION, fonts[0])
        for j, (row, images) in enumerate(strip.cells):
            left = _LABEL + j * (tile + _GAP)
            draw.text((left, top), _spent(row), fill="#555555", font=fonts[1])
            for k, image in enumerate(images[:count]):
                place = (left + k * (side + 2), top + _CAPTION)
                sheet.paste(_enlarged(image, side), place)
                edge = (place[0] - 1, place[1] - 1, place[0] + side, place[1] + side)
                draw.rectangle(edge, outline="#bbbbbb")  # white images end somewhere too
    if left_out:
        told = f"{len(shown)} of {len(board.labels)} methods: the leading ones"
        draw.text((_GAP, sheet.height - _CAPTION - _GAP // 2), told, fill="#555555", font=fonts[1])
    return sheet


def sample_tiles(board: Board, folder: Path) -> dict[str, Any] | None:
    """The strip as data URIs for the page, within its budget of bytes; None without samples."""
    shown = board.leading(most=_MOST_ROWS)
    strips = [s for s in _strips(board, folder, shown, *_FORMS[0]) if s.cells]
    if not strips:
        return None
    count, made = _within_budget(strips)
    places = {name: i for i, name in enumerate(board.labels)}
    rows = [
        {
            "label": strip.name,
            "index": places[strip.name],
            "tiles": [{"nfe": _spent(row), "uri": made[row.cell]} for row, _ in strip.cells],
        }
        for strip in strips
    ]
    across = min(4, count)
    return {
        "shown": count,
        "across": across,
        "down": -(-count // across),
        "seed": strips[0].cells[0][0].first.seed,
        "rows": rows,
    }


def _within_budget(strips: list[_Strip]) -> tuple[int, dict[str, str]]:
    for count, side in _FORMS:
        held = min(len(images) for strip in strips for _, images in strip.cells)
        count = min(count, held)
        made = {
            row.cell: _sprite(images[:count], side)
            for strip in strips
            for row, images in strip.cells
        }
        if sum(map(len, made.values())) <= _MOST_BYTES * 4 / 3:
            return count, made
    return count, made


def _sprite(images: list[Image.Image], side: int) -> str:
    """Images four in a row as one data URI: PNG at their own size, JPEG where they are reduced."""
    reduced = images[0].width > side or images[0].width >= 64
    own = min(side, images[0].width)
    across = min(4, len(images))
    sheet = Image.new(images[0].mode, (across * own, -(-len(images) // across) * own), "white")
    for i, image in enumerate(images):
        part = image if image.width <= own else image.resize((own, own), Image.Resampling.BOX)
        sheet.paste(part, (i % across * own, i // across * own))
    out = io.BytesIO()
    if reduced:
        sheet.save(out, format="JPEG", quality=88)
    else:
        sheet.save(out, format="PNG", optimize=True)
    kind = "jpeg" if reduced else "png"
    return f"data:image/{kind};base64," + base64.b64encode(out.getvalue()).decode()


def _strips(
    board: Board, folder: Path, names: Iterable[str], count: int, most: int
) -> list[_Strip]:
    found = []
    for name in names:
        rows = [row for row in board.lines[name] if samples_of(folder, row)]
        cells = [(row, _images(folder, row, count, most)) for row in _spread(rows)]
        group = board.layout.group(board.lines[name][0])
        found.append(_Strip(name, group, [(row, images) for row, images in cells if images]))
    return found


def _images(folder: Path, row: Row, count: int, most: int) -> list[Image.Image]:
    path = samples_of(folder, row)
    return first_images(path, count, most) if path else []


def _spread(rows: list[Row]) -> list[Row]:
    """Returns at most `_MOST_CELLS` of the rows, the first and the last among them."""
    if len(rows) <= _MOST_CELLS:
        return rows
    last = len(rows) - 1
    return [rows[i * last // (_MOST_CELLS - 1)] for i in range(_MOST_CELLS)]


def _side(own: int) -> int:
    """Pixels of a side on the sheet: small images by an integer factor, so pixels stay even."""
    return own * max(1, round(_TILE / own)) if own < _TILE else _TILE


def _enlarged(image: Image.Image, side: int) -> Image.Image:
    if image.width == side:
        return image.convert("RGB")
    way = Image.Resampling.NEAREST if side % image.width == 0 else Image.Resampling.BOX
    return image.convert("RGB").resize((side, side), way)


def _spent(row: Row) -> str:
    return "NFE ?" if row.nfe is None else f"NFE {row.nfe:g}"


def _write_name(draw: ImageDraw.ImageDraw, name: str, top: int, room: int, font: Font) -> None:
    """The name left of its row, broken between words alone, cut where a line is too long."""
    lines = _broken(printable(name), font)
    height = 24 * len(lines)
    for i, line in enumerate(lines):
        draw.text(
            (_GAP, top + max(0, (room - height) // 2) + 24 * i), line, fill="black", font=font
        )


def _broken(text: str, font: Font) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= _LABEL - 2 * _GAP:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_cut(line, font) for line in lines if line][:4]


def _cut(line: str, font: Font) -> str:
    while font.getlength(line) > _LABEL - 2 * _GAP:
        line = line.removesuffix("…")[:-1] + "…"
    return line
