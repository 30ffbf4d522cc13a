"""Leaderboards as Markdown, CSV and LaTeX: renderings of a board."""

import csv
import io
from collections.abc import Callable

from cmbench.record.schema import Record
from cmbench.report.board import Board, Column, Entry, number
from cmbench.report.disclosed import disclosed_markdown
from cmbench.report.findings import findings_markdown
from cmbench.report.markdown import plain
from cmbench.report.published import NOTE, beside, published_beside, spreadsheet_columns
from cmbench.report.ranks import rank_text

__all__ = ["as_csv", "as_latex", "as_markdown", "tables"]


def tables(board: Board) -> dict[str, str]:
    """The leaderboard as Markdown, CSV and LaTeX, by the names of their files."""
    return {
        "leaderboard.md": as_markdown(board),
        "leaderboard.csv": as_csv(board),
        "leaderboard.tex": as_latex(board),
    }


def as_markdown(board: Board) -> str:
    """The leaderboard as Markdown."""
    heads = ["model", "NFE", *(_heading(c) for c in board.columns), "s/image"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * 2 + "|---:" * (len(heads) - 2) + "|"]
    for record, row in zip(board.done, board.entries, strict=True):
        cells = [plain(record.label), _nfe(record)]
        cells += [_marked(e, _md_bold) for e in row]
        lines.append("| " + " | ".join([*cells, _seconds(board.seconds(record))]) + " |")
    note = "Value ± half of the 95% interval; bold: can't be told from the best in its column."
    table = "\n".join(lines)
    found = findings_markdown(board.judgements)
    chosen = disclosed_markdown(board.disclosed)
    told = f"{rank_text(board)}{_published(board)}{found}{chosen}{_waiting(board)}"
    return f"# {plain(board.title)}\n\n{table}\n\n{note}\n{told}"


def as_csv(board: Board) -> str:
    """One row a cell and score, with everything a spreadsheet may want."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["suite", "label", "model", "nfe", "seed", "score", "title", "value", "error", "low",
         "high", "images", "fingerprint", "seconds_per_image", "cell", "status", "published",
         "difference", "difference_in_errors", "published_source", "reason", "command"]
    )  # fmt: skip
    for r in board.done:
        for s in r.scores:
            low, high = s.interval or (None, None)
            writer.writerow(
                [r.suite, r.label, r.model, r.nfe, r.seed, s.name, s.title, s.value, s.error,
                 low, high, s.count, s.fingerprint[:12], board.seconds(r), r.cell, r.status,
                 *spreadsheet_columns(beside(r, s)), "", ""]
            )  # fmt: skip
        for p in r.pending_scores:
            writer.writerow(
                [r.suite, r.label, r.model, r.nfe, r.seed, p.name, p.title, *[""] * 7, r.cell,
                 "pending", *[""] * 4, p.reason, p.command]
            )  # fmt: skip
    for r in board.waiting:
        writer.writerow(
            [r.suite, r.label, r.model, "", r.seed, *[""] * 9, r.cell, r.status, *[""] * 4,
             r.reason, r.command]
        )  # fmt: skip
    return out.getvalue()


def as_latex(board: Board) -> str:
    """The leaderboard as a booktabs table."""
    heads = ["model", "NFE", *(_tex(_heading(c)) for c in board.columns)]
    rows = []
    for record, row in zip(board.done, board.entries, strict=True):
        cells = [_tex(record.label), _nfe(record)]
        cells += [_marked(e, _tex_bold).replace("±", r"$\pm$") for e in row]
        rows.append(" & ".join(cells) + r" \\")
    spec = "ll" + "r" * len(board.columns)
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
        cells = [plain(p.record.label), str(p.record.sampler.get("name", "")),
                 _nfe(p.record), plain(p.score.title), f"{p.published.value:g}",
                 number(p.score), p.difference_text, p.errors_text,
                 plain(p.published.source)]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n## Published beside measured\n\n" + "\n".join(lines) + f"\n\n{NOTE}\n"


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


def _nfe(record: Record) -> str:
    return "?" if record.nfe is None else f"{record.nfe:g}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {c: "\\" + c for c in "&%$#_{}"} | {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    return "".join(special.get(c, c) for c in text)
