"""Plots made of records: quality against evaluations and seconds, precision and recall, losses.

One line a label, with colour, marker and dash of its own, so that it reads without colour; 95%
intervals as bars. The same records give the same bytes.
"""

import io
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cmbench.report.board import MOST_LINES, Board, Column
from cmbench.report.page_data import read_training
from cmbench.stats.rows import Row, RowScore

__all__ = ["loss_figure", "quality_figure", "save_figure", "scatter_figure"]

_MARKERS = "osD^vP*Xph<>"
_MOST_NOTES = 200
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1)))


@contextmanager
def _style() -> Iterator[None]:
    rc: Any = {
        "svg.hashsalt": "cmbench", "svg.fonttype": "none", "axes.spines.top": False,
        "axes.spines.right": False, "font.size": 10, "legend.frameon": False,
    }  # fmt: skip
    with mpl.rc_context(), sns.axes_style("whitegrid", rc=rc), mpl.rc_context(rc):
        yield


def quality_figure(board: Board, column: Column, *, against: str) -> Figure | None:
    """One score against `nfe` or `seconds` an image, a line a label; None without points."""
    lines = {label: _points(board, column, label, against) for label in board.leading(column)}
    if not any(lines.values()):
        return None
    with _style():
        figure = Figure(figsize=(7.6, _height(lines, 4.4)))
        axes = figure.subplots()
        values: list[float] = []
        for i, (label, points) in enumerate(lines.items()):
            if points:
                _line(axes, i, label, points)
                values += [s.value for _, s in points]
        _dress(axes, board, column, against, values)
        _lay_out(figure)
    return figure


def _height(lines: Sized, least: float) -> float:
    """Inches that a legend of so many lines needs."""
    return max(least, 0.6 + 0.19 * len(lines))


def _points(
    board: Board, column: Column, label: str, against: str
) -> list[tuple[float, RowScore]]:
    found = [(_place(board, r, against), column.of(r)) for r in board.lines[label]]
    kept = [(x, s) for x, s in found if x is not None and s is not None]
    return sorted(kept, key=lambda item: item[0])


def _place(board: Board, row: Row, against: str) -> float | None:
    return row.nfe if against == "nfe" else board.seconds(row)


def _line(axes: Axes, i: int, label: str, points: list[tuple[float, RowScore]]) -> None:
    colour = sns.color_palette("colorblind", 10)[i % 10]
    for _, unasked in [p for p in points if p[0] <= 0]:  # no place on a log axis: a level to beat
        axes.axhline(unasked.value, color=colour, linestyle=":", label=f"{_short(label)}, no call")
    points = [p for p in points if p[0] > 0]
    if not points:
        return
    xs, ys = [x for x, _ in points], [s.value for _, s in points]
    low = [s.value - s.interval[0] if s.interval else 0 for _, s in points]
    high = [s.interval[1] - s.value if s.interval else 0 for _, s in points]
    axes.errorbar(
        xs, ys, yerr=[low, high], label=_short(label), color=colour, capsize=2.5, elinewidth=1,
        marker=_MARKERS[i % len(_MARKERS)], markersize=6, markeredgecolor="white",
        markeredgewidth=0.7, linestyle=_DASHES[(i + i // 10) % len(_DASHES)], linewidth=1.6,
    )  # fmt: skip


def _dress(axes: Axes, board: Board, column: Column, against: str, values: list[float]) -> None:
    if against == "nfe":
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
        axes.set_xlabel("network evaluations an image (NFE)")
    else:
        axes.set_xscale("log")
        axes.set_xlabel("seconds an image, measured on the machine of the run")
    bounded = column.name in ("precision", "recall", "coverage")
    if values and min(values) > 0 and not bounded and max(values) / min(values) > 5:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    better = "higher is better" if column.higher_is_better else "lower is better"
    axes.set_ylabel(f"{column.title} ({better})")
    heading = f"{_short(board.title, 60)}: {column.title}, n = {column.count:,}, 95% intervals"
    axes.set_title(heading + _cut(board), loc="left", fontsize=10)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)


def scatter_figure(board: Board) -> Figure | None:
    """Precision against recall, a point a cell with its NFE; None where there are none."""
    names = {c.name: c for c in board.columns}
    if not {"precision", "recall"} <= set(names):
        return None
    with _style():
        figure = Figure(figsize=(6.8, _height(board.leading(), 4.6)))
        axes = figure.subplots()
        labels = board.leading()
        noted = sum(len(board.lines[label]) for label in labels) <= _MOST_NOTES
        for i, label in enumerate(labels):
            colour = sns.color_palette("colorblind", 10)[i % 10]
            rows = board.lines[label]
            pairs = [(names["recall"].of(r), names["precision"].of(r), r) for r in rows]
            kept = [(a.value, b.value, r) for a, b, r in pairs if a and b]
            axes.plot([k[0] for k in kept], [k[1] for k in kept], color=colour, lw=1,
                      marker=_MARKERS[i % len(_MARKERS)], label=_short(label),
                      linestyle=_DASHES[(i + i // 10) % len(_DASHES)])  # fmt: skip
            for x, y, r in kept if noted else ():
                axes.annotate(f"{r.nfe:g}", (x, y), xytext=(4, 3), textcoords="offset points",
                              fontsize=7, color=colour)  # fmt: skip
        axes.set_xlabel("recall (higher is better)")
        axes.set_ylabel("precision (higher is better)")
        beside = ": figures beside points are NFE" if noted else ""
        heading = f"{_short(board.title, 60)}{beside}{_cut(board)}"
        axes.set_title(heading, loc="left", fontsize=10)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        _lay_out(figure)
    return figure


def loss_figure(folder: Path) -> Figure | None:
    """Training losses, each by its own first value; None where nothing was trained."""
    every = read_training(folder)
    if not every:
        return None
    logs = every[:MOST_LINES]
    with _style():
        figure = Figure(figsize=(7.6, _height(logs, 3.8)))
        axes = figure.subplots()
        for i, log in enumerate(logs):
            xs = [p.images for p in log.points]
            first = log.points[0].loss or 1.0
            axes.plot(xs, [p.loss / first for p in log.points], label=_short(log.label), lw=1.4,
                      color=sns.color_palette("colorblind", 10)[i % 10],
                      linestyle=_DASHES[(i + i // 10) % len(_DASHES)])  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel("images seen")
        axes.set_ylabel("loss / first logged loss")
        cut = f" ({len(logs)} of {len(every)})" if len(logs) < len(every) else ""
        heading = f"Training losses{cut}, not comparable between objectives"
        axes.set_title(heading, loc="left", fontsize=10)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        _lay_out(figure)
    return figure


def _lay_out(figure: Figure) -> None:
    """Once for all files: a figure with a layout of its own would do it anew for each."""
    ConstrainedLayoutEngine().execute(figure)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes `path`.png (150 dpi) and `path`.svg, without dates or versions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _style():
        figure.savefig(path.with_suffix(".png"), dpi=150, metadata={"Software": None})
        path.with_suffix(".svg").write_text(svg_text(figure), "utf-8")


def svg_text(figure: Figure) -> str:
    """The figure as SVG text."""
    out = io.StringIO()
    with _style():
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _cut(board: Board) -> str:
    """Says that not all lines are drawn, where they are not."""
    every = len(board.labels)
    return f", {MOST_LINES} of {every} lines" if every > MOST_LINES else ""


def _short(text: str, length: int = 32) -> str:
    """Text for a legend: cut, and no mathematics or hidden underscore rule of matplotlib's."""
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return cut.replace("$", r"\$").lstrip("_")
