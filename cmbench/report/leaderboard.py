"""The leaderboard's files: one table of the field, and all numbers, in three formats."""

from cmbench.report.board import Board
from cmbench.report.latex import as_latex, pivot_latex
from cmbench.report.markdown import as_markdown
from cmbench.report.pivot import pivots
from cmbench.report.spreadsheet import as_csv, pivot_csv

__all__ = ["as_csv", "as_latex", "as_markdown", "tables"]


def tables(board: Board) -> dict[str, str]:
    """Text of each table by the name of its file; those of the field where there is one.

    The texts follow from the records, the speeds, selection.json and suite.yaml alone.
    """
    found = {
        "leaderboard.md": as_markdown(board),
        "leaderboard.csv": as_csv(board),
        "leaderboard.tex": as_latex(board),
    }
    for pivot in pivots(board, 1):
        found |= {"field.csv": pivot_csv(pivot), "field.tex": pivot_latex(pivot)}
    return found
