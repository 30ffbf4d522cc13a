"""Leaderboards as LaTeX's booktabs tables."""

from cmbench.report.board import Board
from cmbench.report.escape import tex
from cmbench.report.heads import heading, named_columns, naming
from cmbench.report.markdown import marked
from cmbench.report.pivot import Pivot, PivotCell

__all__ = ["as_latex", "pivot_latex"]


def as_latex(board: Board) -> str:
    """Every row and score. Needs the package booktabs."""
    named = named_columns(board)
    heads = [*(tex(name) for name in named), *(tex(heading(c)) for c in board.columns)]
    rows = []
    for row, entries in zip(board.done, board.entries, strict=True):
        cells = [tex(text) for text in naming(board, row)]
        rows.append([*cells, *(marked(e, _bold, tex) for e in entries)])
    return _table("l" * len(named) + "r" * len(board.columns), [heads], rows)


def pivot_latex(pivot: Pivot) -> str:
    """The table of the field. Needs the packages booktabs and xcolor."""
    numbers, costs = len(pivot.heads), len(pivot.cost_heads)
    over = [
        "",
        f"\\multicolumn{{{numbers}}}{{c}}{{{tex(heading(pivot.column))} by NFE}}",
        *[""] * costs,
    ]
    heads = ["method", *(tex(head) for head in [*pivot.heads, *pivot.cost_heads])]
    rows, group = [], ""
    for line in pivot.lines:
        if line.group != group:
            group = line.group
            rows.append([f"\\multicolumn{{{1 + numbers + costs}}}{{l}}{{\\emph{{{tex(group)}}}}}"])
        cells = [_pivot_cell(cell) for cell in line.cells]
        rows.append([tex(line.name), *cells, *(tex(cost) for cost in line.costs)])
    return _table("l" + "r" * (numbers + costs), [over, heads], rows)


def _table(spec: str, heads: list[list[str]], rows: list[list[str]]) -> str:
    head, body = (
        "\n".join(" & ".join(cells) + r" \\" for cells in part) for part in (heads, rows)
    )
    return (
        f"\\begin{{tabular}}{{{spec}}}\n\\toprule\n{head}\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def _pivot_cell(cell: PivotCell) -> str:
    text = _bold(tex(cell.text)) if cell.best else tex(cell.text)
    if not cell.published:
        return text
    return " ".join(p for p in (text, f"\\textcolor{{gray}}{{{tex(cell.published)}}}") if p)


def _bold(text: str) -> str:
    return f"\\textbf{{{text}}}"
