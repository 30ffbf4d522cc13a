"""Plots of records: quality against each cost, precision and recall, losses.

At most eight lines, each with a colour, marker and dash of its own, so that it reads without
colour, and its name at its end; teachers in black; what authors printed as hollow marks; 95%
intervals as bars. The same records give the same bytes.
"""

import io
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cmbench.core.files import write_bytes, write_text
from cmbench.report.board import MOST_LINES, Board, Column
from cmbench.report.escape import printable
from cmbench.report.output import inside
from cmbench.report.page_data import read_training
from cmbench.report.published import beside
from cmbench.stats.rows import Row, RowScore

__all__ = ["loss_figure", "quality_figure", "save_figure", "scatter_figure"]

_MOST_NOTES = 200
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a8467c", "#8a6d00", "#5b4bb3", "#a3201c", "#3f7d00")
_MARKERS = "osD^vP*X"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
_TEACHER = "#333333"
_AXES = {
    "NFE": "network evaluations per image (NFE)",
    "seconds": "seconds per image, on the machine of the run",
    "FLOPs": "GFLOPs per image",
    "training": "forward passes of training, in millions, teacher apart",
}
_SHARES = ("precision", "recall", "coverage")

Point = tuple[float, Row, RowScore]


@contextmanager
def _style() -> Iterator[None]:
    rc: Any = {
        **seaborn.axes_style("whitegrid"),
        "svg.hashsalt": "cmbench", "svg.fonttype": "none", "axes.spines.top": False,
        "axes.spines.right": False, "font.size": 11, "axes.edgecolor": "#b0b6bc",
        "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e7ea",
        "xtick.bottom": False, "ytick.left": False, "lines.solid_capstyle": "round",
    }  # fmt: skip
    with mpl.rc_context(rc):
        yield


def quality_figure(board: Board, column: Column, *, against: str) -> Figure | None:
    """One score against a cost, one named line per method; None without points.

    Args:
        board: The rows.
        column: The score.
        against: `NFE`, `seconds`, `FLOPs` or `training`.
    """
    names = board.leading(column)
    lines = {name: _points(board, column, name, against) for name in names}
    drawn = {name: points for name, points in lines.items() if points}
    if not drawn:
        return None
    with _style():
        figure = Figure(figsize=(8.0, 4.5))
        axes = figure.subplots()
        looks = {name: _look(i, name in board.teachers) for i, name in enumerate(names)}
        for name, points in drawn.items():
            _line(axes, looks[name], points, published=against == "NFE")
        _dress(axes, board, column, against, [s.value for p in drawn.values() for _, _, s in p])
        _name_lines(axes, {n: (looks[n], _end(p)) for n, p in drawn.items()}, board.teachers)
        _lay_out(figure, map(_told, drawn, [n in board.teachers for n in drawn]))
    return figure


def _points(board: Board, column: Column, name: str, against: str) -> list[Point]:
    """The line's rows by their cost; of a training's cost its best row alone."""
    found = [(_cost(board, row, against), row, column.of(row)) for row in board.lines[name]]
    kept = [(x, row, s) for x, row, s in found if x is not None and s is not None]
    if against == "training" and kept:
        sign = -1 if column.higher_is_better else 1
        kept = [min(kept, key=lambda point: sign * point[2].value)]
    return sorted(kept, key=lambda point: point[0])


def _cost(board: Board, row: Row, against: str) -> float | None:
    if against == "NFE":
        return row.nfe
    if against == "seconds":
        return board.seconds(row)
    if against == "FLOPs":
        flops = row.first.flops_per_image
        return None if flops is None else flops / 1e9
    training = row.first.training
    return training.images * training.evaluations_per_image / 1e6 if training else None


@dataclass(frozen=True)
class _Look:
    """Colour, marker and dash of a line: each tells it apart without the others."""

    colour: str
    marker: str
    dash: Any
    width: float = 1.6


def _look(i: int, teacher: bool) -> _Look:
    dash = _DASHES[i % len(_DASHES)]
    if teacher:
        return _Look(_TEACHER, _MARKERS[i % len(_MARKERS)], dash, 2.4)
    return _Look(_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)], dash)


def _line(axes: Axes, look: _Look, points: list[Point], *, published: bool) -> None:
    for _, _, unasked in [p for p in points if p[0] <= 0]:  # no place on a log axis: a level
        axes.axhline(unasked.value, color=look.colour, linestyle=":", label="no call")
    points = [p for p in points if p[0] > 0]
    if not points:
        return
    xs, ys = [p[0] for p in points], [p[2].value for p in points]
    low = [_reach(s, 0) for _, _, s in points]
    high = [_reach(s, 1) for _, _, s in points]
    axes.errorbar(
        xs, ys, yerr=[low, high], color=look.colour, capsize=2.5, elinewidth=1,
        marker=look.marker, markersize=6, markeredgecolor="white", markeredgewidth=0.7,
        linestyle=look.dash, linewidth=look.width,
    )  # fmt: skip
    printed = [p for _, row, s in points for p in beside(row, s) if not p.why_not]
    if published and printed:
        axes.plot(
            [p.published.nfe for p in printed], [p.published.value for p in printed],
            linestyle="none", marker=look.marker, markersize=8, markerfacecolor="none",
            markeredgecolor=look.colour, markeredgewidth=1.4,
        )  # fmt: skip


def _reach(score: RowScore, side: int) -> float:
    """Length of an error bar; a value may lie outside of its interval by a rounding."""
    if score.interval is None:
        return 0.0
    return max(0.0, abs(score.interval[side] - score.value))


def _end(points: list[Point]) -> tuple[float, float]:
    """End point of a line; one without a place on the log axis ends at the right edge (NaN)."""
    x, _, score = points[-1]
    return (x if x > 0 else math.nan), score.value


def _name_lines(
    axes: Axes, ends: dict[str, tuple[_Look, tuple[float, float]]], teachers: set[str]
) -> None:
    """Names at the right edge, in the height of each line's end, pushed apart where they meet."""
    if not ends:
        return
    low, high = axes.get_ylim()
    heights = {n: axes.transAxes.inverted().transform(axes.transData.transform((1.0, y)))[1]
               for n, (_, (_, y)) in ends.items()}  # fmt: skip
    spots = _apart({n: min(1.0, max(0.0, float(h))) for n, h in heights.items()}, 0.075)
    for name, spot in spots.items():
        look, (x, y) = ends[name]
        told = _told(name, name in teachers)
        note = axes.annotate(
            told, xy=(1.0, y) if math.isnan(x) else (x, y),
            xycoords=("axes fraction", "data") if math.isnan(x) else "data",
            xytext=(1.03, spot), textcoords="axes fraction", color=look.colour, fontsize=10,
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": look.colour, "lw": 0.5, "alpha": 0.5,
                        "shrinkA": 2, "shrinkB": 4, "relpos": (0, 0.5)},
        )  # fmt: skip
        note.set_in_layout(False)  # room for all names is kept by `_lay_out`
    axes.set_ylim(low, high)


def _told(name: str, teacher: bool) -> str:
    return f"{_short(name)} (teacher)" if teacher else _short(name)


def _apart(heights: dict[str, float], least: float) -> dict[str, float]:
    """The heights, at least `least` apart and in their order, near to where they were."""
    order = sorted(heights, key=lambda name: heights[name])
    found: list[float] = []
    for name in order:
        found.append(max(heights[name], found[-1] + least if found else -math.inf))
    top = 1.0
    for i in reversed(range(len(found))):
        found[i] = min(found[i], top)
        top = found[i] - least
    return dict(zip(order, found, strict=True))


def _dress(axes: Axes, board: Board, column: Column, against: str, values: list[float]) -> None:
    axes.set_xscale("log", base=2 if against == "NFE" else 10)
    _plain_numbers(axes.xaxis, 2 if against == "NFE" else 10)
    axes.set_xlabel(_AXES[against])
    if values and min(values) > 0 and column.name not in _SHARES and max(values) / min(values) > 5:
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis, 10)
    better = "higher is better" if column.higher_is_better else "lower is better"
    axes.set_ylabel(f"{_short(column.title)} ({better})")
    heading = f"{_short(board.title, 60)}: n = {column.count:,}, 95% intervals"
    axes.set_title(heading + _cut(board), loc="left", fontsize=10)


def _plain_numbers(axis: Axis, base: int) -> None:
    """`1 2 5 10`, not powers of ten."""
    subs = (1.0,) if base == 2 else (1.0, 2.0, 5.0)
    axis.set_major_locator(mpl.ticker.LogLocator(base=base, subs=subs, numticks=12))
    axis.set_minor_locator(mpl.ticker.NullLocator())
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))


def scatter_figure(board: Board) -> Figure | None:
    """Precision against recall, one point per row with its NFE; None where there are none."""
    names = {c.name: c for c in board.columns}
    if not {"precision", "recall"} <= set(names):
        return None
    with _style():
        figure = Figure(figsize=(8.0, 4.8))
        axes = figure.subplots()
        lines = board.leading()
        noted = sum(len(board.lines[name]) for name in lines) <= _MOST_NOTES
        ends: dict[str, tuple[_Look, tuple[float, float]]] = {}
        for i, name in enumerate(lines):
            look = _look(i, name in board.teachers)
            pairs = [
                (names["recall"].of(r), names["precision"].of(r), r) for r in board.lines[name]
            ]
            kept = [(a.value, b.value, r) for a, b, r in pairs if a and b]
            axes.plot([k[0] for k in kept], [k[1] for k in kept], color=look.colour, lw=1,
                      marker=look.marker, linestyle=look.dash)  # fmt: skip
            for x, y, r in kept if noted else ():
                axes.annotate("?" if r.nfe is None else f"{r.nfe:g}", (x, y), xytext=(4, 3),
                              textcoords="offset points", fontsize=8,
                              color=look.colour)  # fmt: skip
            if kept:
                ends[name] = look, (kept[-1][0], kept[-1][1])
        axes.set_xlabel("recall (higher is better)")
        axes.set_ylabel("precision (higher is better)")
        figures = ": figures beside points are NFE" if noted else ""
        axes.set_title(f"{_short(board.title, 60)}{figures}{_cut(board)}", loc="left", fontsize=10)
        _name_lines(axes, ends, board.teachers)
        _lay_out(figure, map(_told, ends, [n in board.teachers for n in ends]))
    return figure


def loss_figure(folder: Path) -> Figure | None:
    """Training losses, each by its own first value; None where nothing was trained."""
    every = read_training(folder)
    if not every:
        return None
    logs = every[:MOST_LINES]
    with _style():
        figure = Figure(figsize=(8.0, 4.0))
        axes = figure.subplots()
        ends: dict[str, tuple[_Look, tuple[float, float]]] = {}
        for i, log in enumerate(logs):
            xs, look = [p.images for p in log.points], _look(i, False)
            losses = [p.loss / (log.points[0].loss or 1.0) for p in log.points]
            axes.plot(xs, losses, lw=1.4, color=look.colour, linestyle=look.dash)
            ends[log.label] = look, (xs[-1], losses[-1])
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis, 10)
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.set_xlabel("images seen")
        axes.set_ylabel("loss / first logged loss")
        cut = f" ({len(logs)} of {len(every)})" if len(logs) < len(every) else ""
        heading = f"Training losses{cut}, not comparable between objectives"
        axes.set_title(heading, loc="left", fontsize=10)
        _name_lines(axes, ends, set())
        _lay_out(figure, map(_short, ends))
    return figure


def _lay_out(figure: Figure, names: Iterable[str]) -> None:
    """Lays the figure out once for all files, with room for the names at the right edge.

    A figure with a layout of its own would do it anew for each file.
    """
    longest = max((len(name) for name in names), default=0)
    room = (0.088 * longest + 0.25) / figure.get_figwidth()
    ConstrainedLayoutEngine(rect=(0, 0, 1 - room, 1)).execute(figure)


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Writes plots/`name`.png (150 dpi) and .svg atomically, without dates or versions.

    Raises:
        UserError: If `plots` leads out of the folder.
    """
    png = io.BytesIO()
    with _style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
        write_bytes(inside(folder, f"plots/{name}.png"), png.getvalue())
        write_text(inside(folder, f"plots/{name}.svg"), svg_text(figure))


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
    shown = printable(text)
    cut = shown if len(shown) <= length else shown[: length - 1] + "…"
    return cut.replace("$", r"\$").lstrip("_")
