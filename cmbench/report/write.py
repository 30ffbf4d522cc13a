"""Writing reports: tables, plots, sheets of samples and the page, from results folders alone."""

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure
from pydantic import ValidationError

from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file, sweep, write_text
from cmbench.report.board import Board, read_board
from cmbench.report.curves import loss_figure, quality_figure, save_figure, scatter_figure
from cmbench.report.escape import slug
from cmbench.report.grids import sample_sheet
from cmbench.report.leaderboard import as_markdown, tables
from cmbench.report.output import inside
from cmbench.report.page import render_page
from cmbench.report.stamp import is_current, stamp_of

__all__ = ["open_board", "side_by_side", "write_report", "write_reports"]


def write_report(folder: Path, *, plots: bool = True) -> list[Path]:
    """Writes leaderboard.* and field.*, plots/, samples.png and report.html into `folder`.

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
        return _written(board, folder, _figures(board, folder) if plots else ())


def write_reports(
    folders: list[Path], tell: Callable[[Path, int, bool], None]
) -> tuple[dict[Path, list[Path]], list[UserError]]:
    """Writes the reports of several folders; those that nothing changed stay as they are.

    One that can't be written does not keep the others from it: its error is returned.

    Args:
        folders: Results folders.
        tell: Called after each with the folder, how many are left, and whether it was written.

    Raises:
        UserError: As `write_report`, where there is one folder alone.
    """
    found, failed = {}, []
    for i, folder in enumerate(folders):
        fresh = len(folders) > 1 and is_current(folder)
        try:
            found[folder] = _there(folder) if fresh else write_report(folder)
        except UserError as error:
            if len(folders) == 1:
                raise
            failed.append(error)
            continue
        tell(folder, len(folders) - i - 1, not fresh)
    return found, failed


def _there(folder: Path) -> list[Path]:
    return [folder / name for name in (*_TABLES, "report.html") if (folder / name).is_file()]


_TABLES = ("leaderboard.md", "leaderboard.csv", "leaderboard.tex", "field.csv", "field.tex")


def _written(board: Board, folder: Path, figures: Iterable[tuple[str, Figure]]) -> list[Path]:
    texts = tables(board)
    try:
        for name, figure in figures:
            save_figure(figure, folder, name)
        sheet = sample_sheet(board, folder)
        if sheet is not None:
            with atomic_file(inside(folder, "samples.png")) as file:
                sheet.save(file, format="PNG")
        for name, text in texts.items():
            write_text(inside(folder, name), text)
        texts["report.html"] = render_page(board, folder, texts, stamp_of(folder, texts))
        write_text(inside(folder, "report.html"), texts["report.html"])
    except OSError as error:
        raise UserError(
            f"the report can't be written: {error.strerror or error}", where=os.fspath(folder)
        ) from None
    return [folder / name for name in texts]


def _figures(board: Board, folder: Path) -> Iterator[tuple[str, Figure]]:
    """The plots by names of files; one at a time, since each takes some megabytes."""
    taken: set[str] = set()
    for title, figure in _titled(board, folder):
        if figure is None:
            continue
        name, count = slug(title), 2
        while name in taken:
            name, count = f"{slug(title)}_{count}", count + 1
        taken.add(name)
        yield name, figure


def _titled(board: Board, folder: Path) -> Iterator[tuple[str, Figure | None]]:
    for i, column in enumerate(board.columns):
        twin = any(c.title == column.title for c in board.columns[:i])
        name = f"{column.title} {column.fingerprint[:6]}" if twin else column.title
        # The first score is the suite's own: it alone is drawn against every cost.
        for cost in ("NFE", "seconds") if i else ("NFE", "seconds", "FLOPs", "training"):
            yield f"{name} against {cost}", quality_figure(board, column, against=cost)
    yield "precision against recall", scatter_figure(board)
    yield "training", loss_figure(folder)


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
