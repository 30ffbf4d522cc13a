"""Writing reports: tables, plots, sheets of samples and the page, from results folders alone."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure
from pydantic import ValidationError

from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file, sweep, write_text
from cmbench.report.board import Board, read_board
from cmbench.report.curves import loss_figure, quality_figure, save_figure, scatter_figure
from cmbench.report.grids import sample_sheet
from cmbench.report.leaderboard import as_markdown, tables
from cmbench.report.page import render_page

__all__ = ["open_board", "side_by_side", "write_report"]


def write_report(folder: Path, *, plots: bool = True) -> list[Path]:
    """Writes leaderboard.{md,csv,tex}, plots/, samples.png and report.html into `folder`.

    Args:
        folder: A suite's results folder.
        plots: Whether plots are drawn too; they take most of the time.

    Raises:
        UserError: If the folder holds no records, or can't be written.
    """
    for place in (folder, folder / "plots"):
        sweep(place)
    with _no_search_for_cycles():
        board = open_board(folder)
        return _written(board, folder, _figures(board, folder) if plots else {})


def _figures(board: Board, folder: Path) -> dict[str, Figure]:
    """The plots by the names of their files."""
    figures: dict[str, Figure | None] = {}
    for i, column in enumerate(board.columns):
        twin = any(c.title == column.title for c in board.columns[:i])
        name = f"{column.title} {column.fingerprint[:6]}" if twin else column.title
        figures[f"{name} against NFE"] = quality_figure(board, column, against="nfe")
        figures[f"{name} against seconds"] = quality_figure(board, column, against="seconds")
    figures["precision against recall"] = scatter_figure(board)
    figures["training"] = loss_figure(folder)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _written(board: Board, folder: Path, drawn: dict[str, Figure]) -> list[Path]:
    texts = tables(board)
    try:
        for name, figure in drawn.items():
            save_figure(figure, folder / "plots" / name.lower().replace(" ", "_"))
        sheet = sample_sheet(board, folder)
        if sheet is not None:
            with atomic_file(folder / "samples.png") as file:
                sheet.save(file, format="PNG")
        texts["report.html"] = render_page(board, folder, dict(texts))
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        raise UserError(
            f"the report can't be written: {error.strerror or error}", where=str(folder)
        ) from None
    return [folder / name for name in texts]


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Python looks through all records again and again for cycles that they don't have: a sixth
    of the time at 10,000 cells.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def side_by_side(folders: list[Path]) -> str:
    """Several suites in one Markdown text, a table each: protocols are never mixed in a column."""
    return "\n".join(as_markdown(open_board(folder)) for folder in folders)


def open_board(folder: Path) -> Board:
    """The board of a results folder.

    Raises:
        UserError: If it holds no records, or one that does not read.
    """
    try:
        return read_board(folder)
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no results",
            expected="a folder that `cmbench run` wrote, such as results/digits_nfe",
            fix="cmbench run digits_nfe",
        ) from None
    except (ValidationError, ValueError) as error:
        raise UserError(
            f"{folder} holds a file that does not read as a record: {str(error).splitlines()[0]}",
            fix="run the suite again",
        ) from None
