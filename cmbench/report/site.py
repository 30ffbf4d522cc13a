"""A static site over several suites: an index, and every suite's report beside it. No network."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from cmbench.core.errors import UserError
from cmbench.core.files import write_bytes, write_text
from cmbench.report.board import Board
from cmbench.report.output import inside, is_own
from cmbench.report.write import open_board, write_reports

__all__ = ["write_site"]

_CARRIED = ("report.html", "leaderboard.csv", "leaderboard.tex", "leaderboard.md", "field.csv",
            "field.tex", "suite.yaml")  # fmt: skip


def _silent(folder: Path, left: int, written: bool) -> None:
    """Says nothing."""


def write_site(
    folders: list[Path], out: Path, tell: Callable[[Path, int, bool], None] = _silent
) -> Path:
    """Writes `out`/index.html and `out`/<suite>/report.html with its tables; returns the index.

    Raises:
        UserError: If a folder holds no results, two have one name, or `out` can't be written.
    """
    names = [folder.resolve().name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two results folders are called '{name}'", where=str(out))
    boards = []
    _, failed = write_reports(folders, tell)
    if failed:
        raise failed[0]
    for folder, name in zip(folders, names, strict=True):
        _carry(folder, out / name)
        boards.append((name, open_board(folder)))
    environment = Environment(
        loader=PackageLoader("cmbench.report"), autoescape=select_autoescape(["html"])
    )
    page = environment.get_template("site.html").render(
        suites=[_suite(name, board) for name, board in boards],
        rows=[row for name, board in boards for row in _rows(name, board)],
    )
    write_text(out / "index.html", page)
    return out / "index.html"


def _carry(folder: Path, place: Path) -> None:
    if place.resolve() == folder.resolve():
        raise UserError(
            "the site can't be written over the results themselves",
            where=str(place),
            fix="cmbench report --site site",
        )
    try:
        for name in _CARRIED:
            if is_own(folder / name):
                write_bytes(
                    inside(place.parent, f"{place.name}/{name}"), (folder / name).read_bytes()
                )
    except OSError as error:
        raise UserError(
            f"the site can't be written: {error.strerror or error}", where=os.fspath(place)
        ) from None


def _suite(name: str, board: Board) -> dict[str, Any]:
    verdicts = [judgement.verdict for judgement in board.judgements]
    return {
        "name": name,
        "title": board.title,
        "done": len(board.done),
        "waiting": len(board.waiting),
        "models": len(board.labels),
        "scores": list(dict.fromkeys(column.title for column in board.columns)),
        "confirmed": sum(verdict == "confirmed" for verdict in verdicts),
        "findings": len(verdicts),
    }


def _rows(name: str, board: Board) -> list[dict[str, Any]]:
    return [
        {
            "suite": name,
            "record": record,
            "column": column,
            "text": row[place].text,
            "chosen": row[place].chosen,
            "value": score.value,
            "best": row[place].best,
        }
        for place, column in enumerate(board.columns)
        for record, row in zip(board.done, board.entries, strict=True)
        if (score := row[place].score) is not None
    ]
