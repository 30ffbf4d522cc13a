"""Sheets of samples at equal noise: a row a model, a column a number of evaluations."""

import base64
import io
import math
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cmbench.report.board import MOST_LINES, Board
from cmbench.stats.rows import Row

__all__ = ["sample_sheet", "sample_tiles"]

_SIDE = 8
_MOST_BYTES = 1_500_000
"""Of samples in one page, so that it can be sent by mail."""
_MOST_CELLS = 240
"""Of more, evenly spread numbers of evaluations are shown."""
_MARGIN = 10


def sample_sheet(board: Board, folder: Path, *, scale: int = 3) -> Image.Image | None:
    """The first 4 x 4 images of the leading labels' cells, of many 2 x 2; None without any."""
    records = _shown(board, folder)
    if not records:
        return None
    shown = 4 if len(records) <= _MOST_CELLS // 2 else 2
    columns = sorted({r.nfe or 0 for r in records})
    labels = list(dict.fromkeys(r.name for r in records))
    tiles = {(r.name, r.nfe or 0): _tile(_file(folder, r), shown, scale) for r in records}
    width = max(t.width for t in tiles.values()) + _MARGIN
    height = max(t.height for t in tiles.values()) + _MARGIN
    font = ImageFont.load_default(20)
    left = max(int(font.getlength(_short(label))) for label in labels) + 2 * _MARGIN
    top = 34
    sheet = Image.new("RGB", (left + width * len(columns), top + height * len(labels)), "white")
    draw = ImageDraw.Draw(sheet)
    if len(board.labels) > MOST_LINES:
        told = f"{MOST_LINES} of {len(board.labels)} models"
        draw.text((_MARGIN, 5), told, fill="black", font=font)
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
    """The first images of the leading labels' cells as data URIs; None without any.

    As many of the first 16 images as keep the page small; all cells show the same number.
    """
    records = _shown(board, folder)
    if not records:
        return None
    for shown in (16, 8, 4):
        found = _crops(records, folder, shown, most=math.inf if shown == 4 else _MOST_BYTES)
        if found:
            break
    columns = sorted({nfe for _, nfe in found})
    there = {label for label, _ in found}
    rows = [
        {
            "label": label,
            "index": i,
            "tiles": [_uri(found.get((label, nfe))) for nfe in columns],
        }
        for i, label in enumerate(board.labels)
        if label in there
    ]
    return {"shown": shown, "seed": records[0].first.seed, "columns": columns, "rows": rows}


def _shown(board: Board, folder: Path) -> list[Row]:
    """The leading lines' rows that have samples, each by its first seed and training."""
    chosen = set(board.leading())
    mine = [r for r in board.done if r.name in chosen]
    if len(mine) > _MOST_CELLS:
        spent = sorted({r.nfe or 0 for r in mine})
        count = max(1, _MOST_CELLS // len(chosen))
        kept = {spent[i * (len(spent) - 1) // max(1, count - 1)] for i in range(count)}
        mine = [r for r in mine if (r.nfe or 0) in kept]
    return [r for r in mine if _file(folder, r).is_file()]


def _crops(
    records: list[Row], folder: Path, shown: int, most: float
) -> dict[tuple[str, float], bytes]:
    """PNGs by label and evaluations; empty if they are more than `most` bytes."""
    found: dict[tuple[str, float], bytes] = {}
    total = 0
    for record in records:
        png = _crop(_file(folder, record), shown)
        found[record.name, record.nfe or 0] = png
        total += len(png)
        if total > most:
            return {}
    return found


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


def _file(folder: Path, row: Row) -> Path:
    return folder / "samples" / f"{row.cell}.png"


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
