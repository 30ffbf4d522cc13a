"""Leaderboards as Markdown."""

from collections.abc import Callable

from cmbench.report.board import Board, Entry, number
from cmbench.report.disclosed import disclosed_markdown
from cmbench.report.escape import code, plain
from cmbench.report.findings import findings_markdown
from cmbench.report.heads import (
    NOTE,
    REPEATS_NOTE,
    flops_text,
    heading,
    named_columns,
    naming,
    nfe_text,
    seconds_text,
)
from cmbench.report.pivot import Pivot, PivotCell, pivots
from cmbench.report.published import PUBLISHED_NOTE, published_beside, published_waiting
from cmbench.report.ranks import rank_text

__all__ = ["as_markdown", "marked", "pivot_markdown"]


def as_markdown(board: Board) -> str:
    """The leaderboard as Markdown: the field, all numbers, and what belongs to them."""
    named = named_columns(board)
    heads = [*named, *(heading(c) for c in board.columns), "GFLOPs/image", "s/image"]
    lines = [_line([plain(head) for head in heads])]
    lines.append("|---" * len(named) + "|---:" * (len(heads) - len(named)) + "|")
    for row, entries in zip(board.done, board.entries, strict=True):
        cells = [plain(text) for text in naming(board, row)]
        cells += [marked(e, _bold) for e in entries]
        lines.append(_line([*cells, flops_text(row), seconds_text(board.seconds(row))]))
    note = NOTE + (f" {REPEATS_NOTE}" if board.repeated else "")
    field = "".join(f"{pivot_markdown(pivot)}\n## All numbers\n\n" for pivot in pivots(board, 1))
    table = "\n".join(lines)
    found = findings_markdown(board.judgements)
    chosen = disclosed_markdown(board.disclosed)
    printed = f"{_published(board)}{_printed(board)}"
    told = f"{rank_text(board)}{printed}{found}{chosen}{_waiting(board)}"
    return f"# {plain(board.title)}\n\n{field}{table}\n\n{note}\n{told}"


def pivot_markdown(pivot: Pivot) -> str:
    """The table of the field: one row per method, one column per number of evaluations."""
    heads = ["method", *pivot.heads, *pivot.cost_heads]
    lines = [_line(heads), "|---" + "|---:" * (len(heads) - 1) + "|"]
    group = ""
    for line in pivot.lines:
        if line.group != group:
            group = line.group
            lines.append(_line([f"*{plain(group)}*", *[""] * (len(heads) - 1)]))
        cells = [_pivot_cell(cell) for cell in line.cells]
        lines.append(_line([plain(line.name), *cells, *line.costs]))
    return f"{plain(heading(pivot.column))} by NFE:\n\n" + "\n".join(lines) + f"\n\n{pivot.note}\n"


def marked(entry: Entry, bold: Callable[[str], str], escaped: Callable[[str], str] = plain) -> str:
    """An entry's text, bold where it is among the best, with the choice that it came from."""
    text = bold(escaped(entry.text)) if entry.best else escaped(entry.text)
    return f"{text} ({escaped(entry.chosen)})" if entry.chosen else text


def _pivot_cell(cell: PivotCell) -> str:
    text = _bold(cell.text) if cell.best else cell.text
    return " ".join(
        part for part in (text, cell.published and f"<sub>{cell.published}</sub>") if part
    )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _bold(text: str) -> str:
    return f"**{text}**"


def _waiting(board: Board) -> str:
    lines = [
        f"- {plain(what)}" + (f"; bring it with {code(command)}" if command else "")
        for what, command in board.missing()
    ]
    return "\n## Not there yet\n\n" + "\n".join(lines) + "\n" if lines else ""


def _printed(board: Board) -> str:
    rows = published_waiting(board.waiting)
    if not rows:
        return ""
    lines = [_line(["model", "score", "NFE", "published", "source"]), "|---|---|---:|---:|---|"]
    for row in rows:
        p = row.published
        cells = [plain(row.model), plain(p.metric), f"{p.nfe}", f"{p.value:g}", plain(p.source)]
        lines.append(_line(cells))
    return "\n## Published, waiting to be measured\n\n" + "\n".join(lines) + "\n"


def _published(board: Board) -> str:
    pairs = published_beside(board.done)
    if not pairs:
        return ""
    heads = ("model", "sampler", "NFE", "score", "published", "measured", "difference",
             "in standard errors", "source")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---|---" + "|---:" * 6 + "|---|"]
    for p in pairs:
        cells = [plain(p.record.name), plain(str(p.record.sampler.get("name", ""))),
                 nfe_text(p.record), plain(p.score.title), f"{p.published.value:g}",
                 number(p.score), plain(p.difference_text), p.errors_text,
                 plain(p.published.source)]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n## Published beside measured\n\n" + "\n".join(lines) + f"\n\n{PUBLISHED_NOTE}\n"
