"""Data of the plots in report.html: plain numbers and texts, in the records' order."""

import json
from pathlib import Path
from typing import Any

from cmbench.record.folder import Tell, on_stderr, read_training_logs
from cmbench.record.schema import TrainingLog
from cmbench.report.board import Board, Column, Entry
from cmbench.report.spread import spread_of
from cmbench.stats.rows import Row

__all__ = ["column_names", "page_data", "protocol_of", "read_training"]

_MOST_POINTS = 300


def page_data(board: Board, folder: Path) -> dict[str, Any]:
    """Labels, columns, cells with their scores and rank ranges, and training curves."""
    names = column_names(board)
    places = {label: i for i, label in enumerate(board.labels)}
    return {
        "title": board.title,
        "labels": board.labels,
        "drawn": [places[label] for label in board.leading()],
        "columns": [
            {
                "name": c.name,
                "title": names[c],
                "up": c.higher_is_better,
                "count": c.count,
                "protocol": protocol_of(board, c),
            }
            for c in board.columns
        ],
        "cells": [
            _cell(board, r, places[r.name], entries)
            for r, entries in zip(board.done, board.entries, strict=True)
        ],
        "training": [_curve(log) for log in read_training(folder)],
    }  # fmt: skip


def column_names(board: Board) -> dict[Column, str]:
    """The columns' titles, with the protocol's first digits where two have one title."""
    titles = [c.title for c in board.columns]
    return {
        c: f"{c.title} ({c.fingerprint[:8]})" if titles.count(c.title) > 1 else c.title
        for c in board.columns
    }


def protocol_of(board: Board, column: Column) -> str:
    """The column's full protocol as readable text, its fingerprint first."""
    score = next(s for s in board.scores[column] if s is not None)
    text = json.dumps(score.protocol, indent=2, sort_keys=True)
    return f"fingerprint {column.fingerprint}\n{text}"


def read_training(folder: Path, tell: Tell = on_stderr) -> list[TrainingLog]:
    """The loss curves of the models trained for the suite, those without points left out."""
    logs = read_training_logs(folder, tell).values()
    return sorted((log for log in logs if log.points), key=lambda log: log.label)


def _cell(board: Board, row: Row, place: int, entries: list[Entry]) -> dict[str, Any]:
    return {
        "label": place,
        "nfe": row.nfe,
        "spread": spread_of(row) if len(row.records) > 1 else "",
        "sampler": str(row.sampler.get("name", "")),
        "seconds": board.seconds(row),
        **_costs(row),
        "scores": [_score(entry) for entry in entries],
    }


def _costs(row: Row) -> dict[str, float | None]:
    """GFLOPs per image, and millions of forward passes that the training took."""
    flops, training = row.first.flops_per_image, row.first.training
    passes = training.images * training.evaluations_per_image / 1e6 if training else None
    return {"flops": flops / 1e9 if flops is not None else None, "training": passes}


def _score(entry: Entry) -> dict[str, Any] | None:
    if entry.score is None:
        return None
    low, high = entry.score.interval or (None, None)
    return {
        "value": entry.score.value,
        "low": low,
        "high": high,
        "text": entry.text,
        "rank": entry.rank,
        "chosen": entry.chosen,
    }


def _curve(log: TrainingLog) -> dict[str, Any]:
    # Each point stands for the mean of its stretch: a thinned curve keeps its height.
    width = -(-len(log.points) // _MOST_POINTS)
    stretches = [log.points[i : i + width] for i in range(0, len(log.points), width)]
    means = [[p[-1].images, sum(x.loss for x in p) / len(p)] for p in stretches]
    return {"label": log.label, "points": means}
