"""Sheets of samples at equal noise: a row a model, a column a number of evaluations."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cmbench.record.schema import Record
from cmbench.report.tables import Board

__all__ = ["sample_sheet"]

_SIDE = 8
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
