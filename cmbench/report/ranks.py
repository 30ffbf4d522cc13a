"""Ranks as ranges, ties shown as ties; and what decoys say of the metrics, for leaderboards."""

from cmbench.report.board import DECOY, Board, Column
from cmbench.report.escape import plain
from cmbench.stats.rows import RowScore

__all__ = ["RANKS_NOTE", "decoy_lines", "rank_range", "rank_text"]

_FLOOR = "real"
RANKS_NOTE = (
    "First and last rank that each row may hold, all rows of a column at once: of boards whose "
    "rows are all equal, at most 5% rank any two apart."
)


def rank_text(board: Board) -> str:
    """A Markdown table of rank ranges, and the decoys' findings; empty for a single cell."""
    if sum(r.family != DECOY for r in board.done) < 2:
        return decoy_lines(board)
    heads = ["model", "NFE", *(plain(c.title) for c in board.columns)]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * len(board.columns)]
    for record, row in zip(board.done, board.entries, strict=True):
        if record.family == DECOY:
            continue
        cells = ["–" if e.rank is None else rank_range(e.rank) for e in row]
        nfe = "?" if record.nfe is None else f"{record.nfe:g}"
        lines.append("| " + " | ".join([plain(record.name), nfe, *cells]) + " |")
    note = RANKS_NOTE
    return f"\n## Ranks\n\n{note}\n\n" + "\n".join(lines) + "\n" + decoy_lines(board)


def decoy_lines(board: Board) -> str:
    """Lists for each score the floor of real images, and the decoys ranked above models."""
    lines = []
    for column, scores in board.scores.items():
        paired = [(r, s) for r, s in zip(board.done, scores, strict=True) if s is not None]
        models = [s for r, s in paired if r.family != DECOY]
        for record, score in paired:
            if record.family != DECOY:
                continue
            name = record.model.partition("/")[2].replace("_", " ")
            if name == _FLOOR:
                lines.append(f"- {plain(column.title)}: real images score {score.value:.4g}")
                continue
            beaten = sum(_better(score, other, column) for other in models)
            if beaten:
                lines.append(
                    f"- **{plain(column.title)} ranks the decoy '{plain(name)}' above {beaten} of "
                    f"{len(models)} models** ({score.value:.4g})"
                )
    return "\n## Decoys\n\n" + "\n".join(lines) + "\n" if lines else ""


def _better(one: RowScore, other: RowScore, column: Column) -> bool:
    gain = (one.value - other.value) * (1 if column.higher_is_better else -1)
    if one.error is None or other.error is None:
        return gain > 0
    return bool(gain > 1.96 * (one.error**2 + other.error**2) ** 0.5)


def rank_range(found: tuple[int, int]) -> str:
    """`3`, or `3–7`."""
    return str(found[0]) if found[0] == found[1] else f"{found[0]}–{found[1]}"
