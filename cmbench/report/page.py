"""report.html: one file that needs no network, made of records."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from cmbench.record.schema import Provenance
from cmbench.report.curves import svg_text
from cmbench.report.findings import evidence
from cmbench.report.published import NOTE, published_beside
from cmbench.report.tables import Board, number

__all__ = ["render_page"]


def render_page(
    board: Board, folder: Path, figures: dict[str, Figure], sheet: Image.Image | None
) -> str:
    """The page's text."""
    environment = Environment(
        loader=PackageLoader("cmbench.report"), autoescape=select_autoescape(["html"])
    )
    return environment.get_template("report.html").render(
        board=board,
        findings=[(j, evidence(j)) for j in board.judgements],
        rows=_rows(board),
        published=[(pair, number(pair.score)) for pair in published_beside(board.done)],
        published_note=NOTE,
        figures={name: _inline(figure, i) for i, (name, figure) in enumerate(figures.items())},
        sheet=_data_uri(sheet) if sheet else None,
        provenance=_provenance(folder),
        suite_text=_text(folder / "suite.yaml"),
        markdown=board.markdown(),
        csv=board.csv(),
        latex=board.latex(),
    )


def _rows(board: Board) -> list[dict[str, Any]]:
    best = {c: board.best(c) for c in board.columns}
    rows = []
    for record in board.done:
        scores = []
        for column in board.columns:
            score = column.of(record)
            scores.append(
                {
                    "text": number(score) if score else "–",
                    "value": score.value if score else None,
                    "best": record.cell in best[column],
                }
            )
        rows.append(
            {
                "record": record,
                "scores": scores,
                "seconds": board.seconds(record),
            }
        )
    return rows


def _inline(figure: Figure, i: int) -> Markup:
    """The figure's SVG for the page, its ids made unlike those of other figures."""
    text = svg_text(figure)
    body = text[text.index("<svg") :]
    for mark in ('id="', "url(#", 'xlink:href="#'):
        body = body.replace(mark, f"{mark}f{i}-")
    return Markup(body)


def _data_uri(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _provenance(folder: Path) -> Provenance | None:
    path = folder / "provenance.json"
    return Provenance.model_validate_json(path.read_text("utf-8")) if path.is_file() else None


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""
