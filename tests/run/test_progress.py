"""Rates that progress tells."""

import io

import pytest
from rich.console import Console

from cmbench.engine import progress
from cmbench.engine.progress import PlainProgress


def test_what_was_done_before_counts_in_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    told, clock = io.StringIO(), [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    board = PlainProgress(Console(file=told, width=200), 1, every=10)
    board.start_job("train")
    board.tick(80_000, 100_000)  # a training that goes on
    clock[0] += 50
    board.tick(85_000, 100_000)
    assert "85,000 of 100,000, 100.0/s, 150 s left" in told.getvalue()


def test_nothing_is_told_of_a_rate_before_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told, clock = io.StringIO(), [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    board = PlainProgress(Console(file=told, width=200), 1, every=10)
    board.start_job("train")
    clock[0] += 60
    board.tick(0, 100)
    board.tick(0, 100)
    assert told.getvalue() == ""
