"""Names of rows and headings of columns in every table."""

from cmbench.report.board import Board, Column
from cmbench.report.spread import repeats
from cmbench.stats.rows import Row

__all__ = [
    "NOTE",
    "REPEATS_NOTE",
    "flops_text",
    "heading",
    "named_columns",
    "naming",
    "nfe_text",
    "seconds_text",
]

NOTE = (
    "Value ± half of the 95% interval, or the interval itself where it is skewed; bold: no other "
    "is surely better, all rows of the column taken together."
)
REPEATS_NOTE = (
    "Rows with several seeds or trainings are their mean; its interval holds the spread between "
    "them (Student's t)."
)


def heading(column: Column) -> str:
    """`FID ↓ (n=50,000)`."""
    arrow = "↑" if column.higher_is_better else "↓"
    return f"{column.title} {arrow} (n={column.count:,})"


def named_columns(board: Board) -> list[str]:
    """Headings of the columns that name a row."""
    return ["model", *board.axes, "NFE", *(["repeats"] if board.repeated else [])]


def naming(board: Board, row: Row) -> list[str]:
    """Values of a row below the headings of `named_columns`."""
    axes = [str(row.axes.get(key, "–")) for key in board.axes]
    return [row.label, *axes, nfe_text(row), *([repeats(row) or "–"] if board.repeated else [])]


def nfe_text(row: Row) -> str:
    """Network evaluations per image."""
    return "?" if row.nfe is None else f"{row.nfe:g}"


def seconds_text(value: float | None) -> str:
    """Seconds per image, or a dash."""
    return "–" if value is None else f"{value:.2g}"


def flops_text(row: Row) -> str:
    """GFLOPs per image, or a dash."""
    flops = row.first.flops_per_image
    return "–" if flops is None else f"{flops / 1e9:.3g}"
