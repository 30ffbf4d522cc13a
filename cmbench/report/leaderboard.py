"""Leaderboards as Markdown, CSV and LaTeX: renderings of a board."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence

from cmbench.record.schema import Record
from cmbench.report.board import Board, Column, Entry, number
from cmbench.report.disclosed import disclosed_markdown
from cmbench.report.findings import findings_markdown
from cmbench.report.markdown import plain
from cmbench.report.published import PUBLISHED_NOTE, beside, published_beside, spreadsheet_columns
from cmbench.report.ranks import rank_text
from cmbench.report.spread import repeats
from cmbench.stats.rows import Row

__all__ = ["as_csv", "as_latex", "as_markdown", "tables"]

NOTE = (
    "Value ± half of the 95% interval, or the interval itself where it is skewed; bold: no other "
    "is surely better, all rows of the column taken together."
)
REPEATS_NOTE = (
    "Rows with several seeds or trainings are their mean; its interval holds the spread between "
    "them (Student's t)."
)
_CSV = (
    "suite", "label", "model", "nfe", "seed", "score", "title", "value", "error", "low", "high",
    "images", "fingerprint", "seconds_per_image", "cell", "status", "published", "difference",
    "difference_in_errors", "published_source", "reason", "command", "seeds", "trainings",
    "degrees_of_freedom",
)  # fmt: skip


def tables(board: Board) -> dict[str, str]:
    """The leaderboard as Markdown, CSV and LaTeX, by the names of their files."""
    return {
        "leaderboard.md": as_markdown(board),
        "leaderboard.csv": as_csv(board),
        "leaderboard.tex": as_latex(board),
    }


def as_markdown(board: Board) -> str:
    """The leaderboard as Markdown."""
    named = _named_columns(board)
    heads = [*named, *(plain(_heading(c)) for c in board.columns), "s/image"]
    lines = ["| " + " | ".join(heads) + " |"]
    lines.append("|---" * len(named) + "|---:" * (len(heads) - len(named)) + "|")
    for row, entries in zip(board.done, board.entries, strict=True):
        cells = [plain(text) for text in _naming(board, row)]
        cells += [_marked(e, _md_bold) for e in entries]
        lines.append("| " + " | ".join([*cells, _seconds(board.seconds(row))]) + " |")
    note = NOTE + (f" {REPEATS_NOTE}" if board.repeated else "")
    table = "\n".join(lines)
    found = findings_markdown(board.judgements)
    chosen = disclosed_markdown(board.disclosed)
    told = f"{rank_text(board)}{_published(board)}{found}{chosen}{_waiting(board)}"
    return f"# {plain(board.title)}\n\n{table}\n\n{note}\n{told}"


def as_csv(board: Board) -> str:
    """One row a cell and score, with everything a spreadsheet may want."""
    axes = sorted({key for record in board.records for key in record.axes})
    rows = [line for row in board.done for line in _csv_row(board, row)]
    rows += [_csv_waiting(record) for record in board.waiting]
    out = io.StringIO()
    writer = csv.DictWriter(
        out, [*_CSV, *(f"axis {key}" for key in axes)], restval="", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _csv_row(board: Board, row: Row) -> Iterator[dict[str, object]]:
    told = {
        "suite": row.first.suite, "label": row.label, "model": row.model, "nfe": row.nfe,
        "seed": _several(row.seeds), "cell": _several([r.cell for r in row.records]),
        "trainings": row.trainings, "seeds": len(row.seeds),
        **{f"axis {key}": value for key, value in row.axes.items()},
    }  # fmt: skip
    for s in row.scores:
        low, high = s.interval or (None, None)
        degrees = s.degrees if math.isfinite(s.degrees) else None
        yield told | {
            "score": s.name, "title": s.title, "value": s.value, "error": s.error, "low": low,
            "high": high, "images": s.count, "fingerprint": s.fingerprint[:12], "status": "done",
            "seconds_per_image": board.seconds(row), "degrees_of_freedom": degrees,
        } | spreadsheet_columns(beside(row, s))  # fmt: skip
    for p in row.pending_scores:
        yield told | {"score": p.name, "title": p.title, "status": "pending", "reason": p.reason,
                      "command": p.command}  # fmt: skip


def _csv_waiting(record: Record) -> dict[str, object]:
    return {
        "suite": record.suite, "label": record.label, "model": record.model, "seed": record.seed,
        "cell": record.cell, "status": record.status, "reason": record.reason,
        "command": record.command, **{f"axis {k}": v for k, v in record.axes.items()},
    }  # fmt: skip


def as_latex(board: Board) -> str:
    """The leaderboard as a booktabs table."""
    named = _named_columns(board)
    heads = [*(_tex(name) for name in named), *(_tex(_heading(c)) for c in board.columns)]
    rows = []
    for row, entries in zip(board.done, board.entries, strict=True):
        cells = [_tex(text) for text in _naming(board, row)]
        cells += [_marked(e, _tex_bold).replace("±", r"$\pm$") for e in entries]
        rows.append(" & ".join(cells) + r" \\")
    spec = "l" * len(named) + "r" * len(board.columns)
    head = " & ".join(heads) + r" \\"
    body = "\n".join(rows)
    return (
        f"\\begin{{tabular}}{{{spec}}}\n\\toprule\n{head}\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


def _waiting(board: Board) -> str:
    lines = [
        f"- {plain(what)}" + (f"; bring it with `{command}`" if command else "")
        for what, command in board.missing()
    ]
    return "\n## Not there yet\n\n" + "\n".join(lines) + "\n" if lines else ""


def _published(board: Board) -> str:
    pairs = published_beside(board.done)
    if not pairs:
        return ""
    heads = ("model", "sampler", "NFE", "score", "published", "measured", "difference",
             "in standard errors", "source")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---|---" + "|---:" * 6 + "|---|"]
    for p in pairs:
        cells = [plain(p.record.name), str(p.record.sampler.get("name", "")),
                 _nfe(p.record), plain(p.score.title), f"{p.published.value:g}",
                 number(p.score), p.difference_text, p.errors_text,
                 plain(p.published.source)]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n## Published beside measured\n\n" + "\n".join(lines) + f"\n\n{PUBLISHED_NOTE}\n"


def _heading(column: Column) -> str:
    arrow = "↑" if column.higher_is_better else "↓"
    return f"{column.title} {arrow} (n={column.count:,})"


def _marked(entry: Entry, bold: Callable[[str], str]) -> str:
    text = bold(entry.text) if entry.best else entry.text
    return f"{text} ({entry.chosen})" if entry.chosen else text


def _md_bold(text: str) -> str:
    return f"**{text}**"


def _tex_bold(text: str) -> str:
    return f"\\textbf{{{text}}}"


def _named_columns(board: Board) -> list[str]:
    """Headings of the columns that name a row."""
    return ["model", *board.axes, "NFE", *(["repeats"] if board.repeated else [])]


def _naming(board: Board, row: Row) -> list[str]:
    axes = [str(row.axes.get(key, "–")) for key in board.axes]
    return [row.label, *axes, _nfe(row), *([repeats(row) or "–"] if board.repeated else [])]


def _several(values: Sequence[object]) -> object:
    return values[0] if len(values) == 1 else "; ".join(map(str, values))


def _nfe(row: Row) -> str:
    return "?" if row.nfe is None else f"{row.nfe:g}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {c: "\\" + c for c in "&%$#_{}"} | {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    return "".join(special.get(c, c) for c in text)
