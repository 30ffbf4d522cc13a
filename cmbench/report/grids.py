"""Sheets of samples at equal noise: a row a model, a column a number of evaluations."""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cmbench.record.schema import Record
from cmbench.report.tables import Board

__all__ = ["sample_sheet", "sample_tiles"]

_SIDE = 8
_MOST_BYTES = 1_500_000
"""Of samples in one page, so that it can be sent by mail."""
_MARGIN = 10


def sample_sheet(
    board: Board, folder: Path, *, shown: int = 4, scale: int = 3
) -> Image.Image | None:
    """The first `shown` x `shown` images of every cell, enlarged; None where there are none."""
    first = min((r.seed for r in board.done), default=0)
    records = [r for r in board.done if r.seed == first and _file(folder, r).is_file()]
    if not records:
        return None
    columns = sorted({r.nfe or 0 for r in records})
    labels = [label for label in board.labels if any(r.label == label for r in records)]
    tiles = {(r.label, r.nfe or 0): _tile(_file(folder, r), shown, scale) for r in records}
    width = max(t.width for t in tiles.values()) + _MARGIN
    height = max(t.height for t in tiles.values()) + _MARGIN
    font = ImageFont.load_default(20)
    left = max(int(font.getlength(_short(label))) for label in labels) + 2 * _MARGIN
    top = 34
    sheet = Image.new("RGB", (left + width * len(columns), top + height * len(labels)), "white")
    draw = ImageDraw.Draw(sheet)
    for j, nfe in enumerate(columns):
        draw.text((left + j * width, 5), f"NFE {nfe:g}", fill="black", font=font)
    for i, label in enumerate(labels):
        middle = top + i * height + height // 2 - 14
        draw.text((_MARGIN, middle), _short(label), fill="black", font=font)
        for j, nfe in enumerate(columns):
            if (label, nfe) in tiles:
                sheet.paste(tiles[label, nfe], (left + j * width, top + i * height))
    return sheet


def sample_tiles(board: Board, folder: Path) -> dict[str, Any] | None:
    """The first images of every cell as data URIs, by model and evaluations; None without any.

    As many of the first 16 images as keep the page small; all cells show the same number.
    """
    first = min((r.seed for r in board.done), default=0)
    records = [r for r in board.done if r.seed == first and _file(folder, r).is_file()]
    if not records:
        return None
    for shown in (16, 8, 4):
        found = {(r.label, r.nfe or 0): _crop(_file(folder, r), shown) for r in records}
        if sum(map(len, found.values())) <= _MOST_BYTES:
            break
    columns = sorted({nfe for _, nfe in found})
    rows = [
        {
            "label": label,
            "index": i,
            "tiles": [_uri(found.get((label, nfe))) for nfe in columns],
        }
        for i, label in enumerate(board.labels)
        if any(name == label for name, _ in found)
    ]
    return {"shown": shown, "seed": first, "columns": columns, "rows": rows}


def _crop(path: Path, shown: int) -> bytes:
    """A PNG of the first `shown` images, four in a row, at their own size."""
    with Image.open(path) as image:
        side = image.width // _SIDE
        mode = "L" if image.mode == "L" else "RGB"
        pitch = side + 1  # a pixel of paper between two images
        sheet = Image.new(mode, (4 * pitch - 1, shown // 4 * pitch - 1), "white")
        for i in range(shown):
            left, upper = i % _SIDE * side, i // _SIDE * side
            one = image.convert(mode).crop((left, upper, left + side, upper + side))
            sheet.paste(one, (i % 4 * pitch, i // 4 * pitch))
    out = io.BytesIO()
    sheet.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _uri(png: bytes | None) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode() if png else ""


def _file(folder: Path, record: Record) -> Path:
    return folder / "samples" / f"{record.cell}.png"


def _tile(path: Path, shown: int, scale: int) -> Image.Image:
    with Image.open(path) as image:
        side = image.width // _SIDE
        rows = min(shown, image.height // side)
        part = image.convert("RGB").crop((0, 0, side * shown, side * rows))
    zoom = scale * max(1, 16 // side)
    edge = side * zoom + 2
    tile = Image.new("RGB", (edge * shown - 2, edge * rows - 2), "white")
    for i in range(shown * rows):
        left, upper = i % shown * side, i // shown * side
        one = part.crop((left, upper, left + side, upper + side))
        enlarged = one.resize((side * zoom, side * zoom), Image.Resampling.NEAREST)
        tile.paste(enlarged, (i % shown * edge, i // shown * edge))
    return tile


def _short(label: str) -> str:
    return label if len(label) <= 28 else label[:27] + "…"
