"""One model in every suite that holds it: a table whose columns keep the protocols apart."""

from pathlib import Path

from cmbench.core.errors import UserError, nearest
from cmbench.record.schema import Record, Speed
from cmbench.report.board import Board
from cmbench.report.disclosed import Disclosed
from cmbench.report.write import open_board

__all__ = ["model_across"]


def model_across(folders: list[Path], model: str) -> Board:
    """The cells of `model` (`family/card`, or a family) in all `folders`, as one board.

    Two suites share a column only where a score has the same protocol fingerprint in both.

    Raises:
        UserError: If a folder holds no results, or none holds the model (naming the nearest).
    """
    records: list[Record] = []
    speeds: dict[str, Speed] = {}
    disclosed: list[Disclosed] = []
    seen: set[str] = set()
    for folder in folders:
        board = open_board(folder)
        seen |= {r.model for r in board.records}
        for record in board.records:
            if model in (record.model, record.family):
                label = f"{board.suite}: {record.label}"
                records.append(record.model_copy(update={"label": label}))
                disclosed += [
                    row.model_copy(update={"label": label})
                    for row in board.disclosed
                    if row.cell == record.cell
                ]
        speeds |= board.speeds
    if not records:
        near = nearest(model, seen)
        raise UserError(
            f"no result of model '{model}'" + (f"; did you mean '{near}'?" if near else ""),
            expected="one of: " + ", ".join(sorted(seen)),
        )
    return Board(model, f"{model} across suites", records, speeds, disclosed=tuple(disclosed))
