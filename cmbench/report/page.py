"""report.html: one file that needs no network, built from records.

Its policy lets two scripts run, by their digests, and nothing be fetched: a name or a suite text
that came with the records can't become code even if it got past the escaping.
"""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from cmbench.record.folder import read_provenance
from cmbench.report.board import Board, Entry, number
from cmbench.report.disclosed import DISCLOSED_NOTE
from cmbench.report.findings import FINDINGS_NOTE, evidence, spread
from cmbench.report.grids import sample_tiles
from cmbench.report.output import read_own
from cmbench.report.page_data import column_names, page_data
from cmbench.report.pivot import pivots
from cmbench.report.published import PUBLISHED_NOTE, published_beside, published_waiting
from cmbench.report.ranks import decoy_lines, rank_range
from cmbench.report.spread import repeats
from cmbench.stats.rows import Row

__all__ = ["render_page"]

_MOST_PIVOTS = 8
"""Scores that have a table of the field in the page."""


def render_page(board: Board, folder: Path, tables: dict[str, str], stamp: str = "") -> str:
    """The page's text.

    Args:
        tables: The leaderboards by file name, for its buttons.
        stamp: What `cmbench.report.stamp` knows an unchanged report by.
    """
    environment = Environment(
        loader=PackageLoader("cmbench.report"), autoescape=select_autoescape(["html"])
    )
    library, script = _part("vendor/plot.min.js"), _part("report.js")
    data = page_data(board, folder)
    return environment.get_template("report.html").render(
        board=board,
        stamp=stamp,
        pivots=pivots(board, _MOST_PIVOTS),
        field_csv=tables.get("field.csv", ""),
        field_latex=tables.get("field.tex", ""),
        names=column_names(board),
        data=data,
        trained=data["training"],
        rows=_rows(board),
        across=_two_scores(board),
        decoys=_decoys(board),
        tiles=sample_tiles(board, folder),
        findings=[(j, evidence(j), spread(j)) for j in board.judgements],
        findings_note=FINDINGS_NOTE,
        disclosed_note=DISCLOSED_NOTE,
        published=[(pair, number(pair.score)) for pair in published_beside(board.done)],
        published_note=PUBLISHED_NOTE,
        printed=published_waiting(board.waiting),
        provenance=read_provenance(folder),
        suite_text=read_own(folder / "suite.yaml"),
        markdown=tables["leaderboard.md"],
        csv=tables["leaderboard.csv"],
        latex=tables["leaderboard.tex"],
        css=_part("report.css"),
        library=library,
        script=script,
        policy=_policy(library, script),
    )


def _part(name: str) -> Markup:
    """A file of ours for the page, as it is."""
    return Markup((files("cmbench.report") / "templates" / name).read_text("utf-8"))


def _policy(*scripts: str) -> Markup:
    digests = (hashlib.sha256(text.encode()).digest() for text in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
    return Markup(
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


class _Line(NamedTuple):
    """One line of the table: a row with its scores, costs and repeats."""

    record: Row
    scores: list[tuple[Entry, str]]
    seconds: float | None
    repeats: str
    flops: float | None


def _rows(board: Board) -> list[_Line]:
    return [
        _Line(
            row,
            [(e, "" if e.rank is None else rank_range(e.rank)) for e in entries],
            board.seconds(row),
            repeats(row),
            flops / 1e9 if (flops := row.first.flops_per_image) else None,
        )
        for row, entries in zip(board.done, board.entries, strict=True)
    ]


def _two_scores(board: Board) -> tuple[int, int]:
    """Scores that stand against each other at first: recall and precision, or the first two."""
    names = [c.name for c in board.columns]
    if {"precision", "recall"} <= set(names):
        return names.index("recall"), names.index("precision")
    return 0, 1


def _decoys(board: Board) -> list[str]:
    lines = decoy_lines(board).splitlines()
    return [line[2:].replace("**", "") for line in lines if line.startswith("- ")]
