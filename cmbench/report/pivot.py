"""The table of the field: one score, a row per method, a column per number of evaluations.

Numbers of evaluations that two methods or more share are columns; a method's best at any other
stands in a last column, with the number it took. What authors printed stands beside, in grey.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cmbench.report.board import DECOY, Board, Column, number
from cmbench.report.published import beside, published_of
from cmbench.stats.ranks import rank_ranges
from cmbench.stats.rows import Row, RowScore

__all__ = ["Pivot", "PivotCell", "PivotLine", "pivots"]

_MOST_COLUMNS = 8


@dataclass(frozen=True)
class PivotCell:
    """One method at one number of evaluations.

    Args:
        text: Value and interval; empty where there is none.
        best: Whether no other of its column is surely better, while some are surely worse.
        published: What authors printed for it; empty where nothing is comparable.
        value: The number; None where there is none.
    """

    text: str = ""
    best: bool = False
    published: str = ""
    value: float | None = None


@dataclass(frozen=True)
class PivotLine:
    """One method.

    Args:
        group: The suite's group; empty where it gives none.
        measured: False for a line that only authors' numbers fill.
        costs: Parameters and training, in the order of `Pivot.cost_heads`.
    """

    name: str
    group: str
    cells: list[PivotCell]
    costs: list[str]
    measured: bool = True


@dataclass(frozen=True)
class Pivot:
    """A board's methods by number of evaluations, in one score."""

    board: Board
    column: Column

    @cached_property
    def heads(self) -> list[str]:
        """Headings of the columns of numbers."""
        return [f"{nfe:g}" for nfe in self.columns] + (["other NFE"] if self._others else [])

    @property
    def note(self) -> str:
        """Explanation of the marks that the table has."""
        cells = [cell for line in self.lines for cell in line.cells]
        told = [
            "Value ± half of the 95% interval.",
            "Bold: no other of the column is surely better." if any(c.best for c in cells) else "",
            "Other NFE: the best at a number of evaluations without a column."
            if self._others
            else "",
            "Small: what the authors printed." if any(c.published for c in cells) else "",
        ]
        return " ".join(text for text in told if text)

    @cached_property
    def cost_heads(self) -> list[str]:
        """Headings of the columns of costs: those in which the methods differ."""
        return [head for head, values in self._costs.items() if len(set(values.values())) > 1]

    @cached_property
    def columns(self) -> list[float]:
        """Numbers of evaluations that have a column."""
        shared = Counter(nfe for spent in self._scored.values() for nfe in spent)
        if len(shared) <= _MOST_COLUMNS:
            return sorted(shared)
        kept = [nfe for nfe, lines in shared.most_common(_MOST_COLUMNS) if lines > 1]
        return sorted(kept or list(shared)[:_MOST_COLUMNS])

    @cached_property
    def lines(self) -> list[PivotLine]:
        """The methods in the suite's order, group by group."""
        found = [self._line(name, spent) for name, spent in self._scored.items()]
        found += self._published_alone()
        groups = list(dict.fromkeys(line.group for line in found))
        return sorted(found, key=lambda line: groups.index(line.group))

    @cached_property
    def _scored(self) -> dict[str, dict[float, tuple[Row, RowScore]]]:
        found: dict[str, dict[float, tuple[Row, RowScore]]] = {}
        for row, score in zip(self.board.done, self.board.scores[self.column], strict=True):
            if score is not None and row.family != DECOY:
                found.setdefault(row.name, {}).setdefault(row.nfe or 0.0, (row, score))
        return found

    @cached_property
    def _others(self) -> bool:
        return any(set(spent) - set(self.columns) for spent in self._scored.values())

    @cached_property
    def _best(self) -> dict[float, set[str]]:
        """The lines that are marked in each column."""
        return {nfe: self._best_at(nfe) for nfe in self.columns}

    def _best_at(self, nfe: float) -> set[str]:
        there = [(name, spent[nfe][1]) for name, spent in self._scored.items() if nfe in spent]
        ranges = rank_ranges(
            [s.value for _, s in there], [s.error for _, s in there],
            degrees=[s.degrees for _, s in there],
            higher_is_better=self.column.higher_is_better,
        )  # fmt: skip
        best = {name for (name, _), (first, _) in zip(there, ranges, strict=True) if first == 1}
        # A mark that all have, or that one alone could have, tells nothing.
        return best if len(best) < len(there) else set()

    def _line(self, name: str, spent: dict[float, tuple[Row, RowScore]]) -> PivotLine:
        cells = [self._cell(name, nfe, spent) for nfe in self.columns]
        if self._others:
            cells.append(self._other(spent))
        row = next(iter(spent.values()))[0]
        costs = [self._costs[head].get(name, "–") for head in self.cost_heads]
        return PivotLine(name, self.board.layout.group(row), cells, costs)

    def _cell(self, name: str, nfe: float, spent: dict[float, tuple[Row, RowScore]]) -> PivotCell:
        if nfe not in spent:
            return PivotCell()
        row, score = spent[nfe]
        printed = [f"{p.published.value:g}" for p in beside(row, score) if not p.why_not]
        return PivotCell(number(score), name in self._best[nfe], ", ".join(printed), score.value)

    def _other(self, spent: dict[float, tuple[Row, RowScore]]) -> PivotCell:
        rest = {nfe: score for nfe, (_, score) in spent.items() if nfe not in self.columns}
        if not rest:
            return PivotCell()
        sign = -1 if self.column.higher_is_better else 1
        nfe = min(rest, key=lambda n: sign * rest[n].value)
        return PivotCell(f"{number(rest[nfe])} at {nfe:g}", value=rest[nfe].value)

    @cached_property
    def _costs(self) -> dict[str, dict[str, str]]:
        """Costs by heading and line that are the same at every number of evaluations."""
        found: dict[str, dict[str, str]] = {"M parameters": {}, "training, M passes": {}}
        for name, spent in self._scored.items():
            record = next(iter(spent.values()))[0].first
            if record.parameters:
                found["M parameters"][name] = f"{record.parameters / 1e6:.3g}"
            if record.training:
                passes = record.training.images * record.training.evaluations_per_image
                found["training, M passes"][name] = f"{passes / 1e6:.3g}"
        return found

    def _published_alone(self) -> list[PivotLine]:
        """Lines of models that wait, whose authors printed this score."""
        score = next(s for s in self.board.scores[self.column] if s is not None)
        there = {row.model for row in self.board.done}
        waiting = {r.model: r for r in self.board.waiting if r.model not in there}
        found = []
        for model, record in waiting.items():
            printed = {float(p.nfe): p.value for p in published_of(record.published, score)}
            cells = [
                PivotCell(published=f"{printed[nfe]:g}") if nfe in printed else PivotCell()
                for nfe in self.columns
            ]
            if any(cell.published for cell in cells):
                cells += [PivotCell()] if self._others else []
                costs = ["–"] * len(self.cost_heads)
                found.append(PivotLine(model, "published", cells, costs, measured=False))
        return found


def pivots(board: Board, most: int) -> Sequence[Pivot]:
    """The tables of the first `most` scores; none for a board of one method at one NFE."""
    if len({(row.name, row.nfe) for row in board.done if row.family != DECOY}) < 2:
        return []
    return [Pivot(board, column) for column in board.columns[:most]]
