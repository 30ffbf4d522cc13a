"""Leaderboards for spreadsheets."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence

from cmbench.record.schema import Record
from cmbench.report.board import Board
from cmbench.report.escape import spreadsheet
from cmbench.report.pivot import Pivot
from cmbench.report.published import beside, spreadsheet_columns
from cmbench.stats.rows import Row

__all__ = ["as_csv", "csv_rows", "pivot_csv"]

_CSV = (
    "suite", "label", "model", "nfe", "seed", "score", "title", "value", "error", "low", "high",
    "images", "fingerprint", "seconds_per_image", "cell", "status", "published", "difference",
    "difference_in_errors", "published_source", "reason", "command", "seeds", "trainings",
    "degrees_of_freedom",
    "group", "sampler", "parameters", "flops_per_image", "training_images", "training_passes",
    "not_comparable",
)  # fmt: skip


def as_csv(board: Board) -> str:
    """One line per row and score, with everything a spreadsheet may want."""
    axes = sorted({key for record in board.records for key in record.axes})
    rows = csv_rows(board)
    return _written([*_CSV, *(f"axis {key}" for key in axes)], rows)


def csv_rows(board: Board) -> list[dict[str, object]]:
    """The lines of `as_csv` by heading: finished rows and scores, then what waits."""
    rows = [line for row in board.done for line in _csv_row(board, row)]
    return rows + [_csv_waiting(record) for record in board.waiting]


def pivot_csv(pivot: Pivot) -> str:
    """The table of the field: a method's values by number of evaluations, and their intervals."""
    heads = ["group", "method", *pivot.heads, *pivot.cost_heads]
    names = [f"{head} published" for head in pivot.heads]
    rows: list[dict[str, object]] = []
    for line in pivot.lines:
        told = [line.group, line.name, *(cell.text for cell in line.cells), *line.costs]
        printed = dict(zip(names, (cell.published for cell in line.cells), strict=True))
        rows.append({**dict(zip(heads, told, strict=True)), **printed})
    return _written([*heads, *names], rows)


def _written(heads: Sequence[str], rows: Iterable[dict[str, object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([spreadsheet(head) for head in heads])
    writer.writerows([spreadsheet(row.get(head, "")) for head in heads] for row in rows)
    return out.getvalue()


def _csv_row(board: Board, row: Row) -> Iterator[dict[str, object]]:
    told = {
        "suite": row.first.suite, "label": row.label, "model": row.model, "nfe": row.nfe,
        "seed": _several(row.seeds), "cell": _several([r.cell for r in row.records]),
        "trainings": row.trainings, "seeds": len(row.seeds), "group": board.layout.group(row),
        "sampler": row.sampler.get("name", ""), "parameters": row.first.parameters,
        "flops_per_image": row.first.flops_per_image, **_training(row),
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


def _training(row: Row) -> dict[str, object]:
    training = row.first.training
    if training is None:
        return {}
    passes = training.images * training.evaluations_per_image
    return {"training_images": training.images, "training_passes": passes}


def _several(values: Sequence[object]) -> object:
    return values[0] if len(values) == 1 else "; ".join(map(str, values))
