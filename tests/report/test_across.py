"""One model across suites: its rows of every suite, protocols in columns of their own."""

from pathlib import Path

import pytest

from cmbench.core.errors import UserError
from cmbench.record.schema import Record, ScoreRecord
from cmbench.report.across import model_across


def _suite(root: Path, name: str, model: str, value: float, fingerprint: str) -> Path:
    score = ScoreRecord(
        name="kid", title="KID", value=value, error=0.1, interval=(value - 0.2, value + 0.2),
        count=100, higher_is_better=False, fingerprint=fingerprint, protocol={}, key="0" * 64,
    )  # fmt: skip
    record = Record(
        suite=name, suite_version=1, cell=f"c-{name}", status="done", label="EDM", model=model,
        family=model.split("/")[0], nfe=1.0, seed=0, images=100, scores=[score],
    )  # fmt: skip
    folder = root / name
    (folder / "records").mkdir(parents=True)
    (folder / "records" / f"{record.cell}.json").write_text(record.model_dump_json())
    return folder


def test_rows_of_all_suites_share_a_column_only_under_one_protocol(tmp_path: Path) -> None:
    folders = [
        _suite(tmp_path, "one", "edm/a", 1.0, "a" * 64),
        _suite(tmp_path, "two", "edm/a", 2.0, "a" * 64),
        _suite(tmp_path, "three", "edm/a", 3.0, "b" * 64),
        _suite(tmp_path, "four", "gan/a", 4.0, "a" * 64),
    ]
    board = model_across(folders, "edm/a")
    assert [r.label for r in board.done] == ["one: EDM", "three: EDM", "two: EDM"]
    assert [c.fingerprint[0] for c in board.columns] == ["a", "b"]
    assert len(model_across(folders, "gan").done) == 1


def test_an_unknown_model_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    folder = _suite(tmp_path, "one", "edm/cifar10", 1.0, "a" * 64)
    with pytest.raises(UserError, match="did you mean 'edm/cifar10'"):
        model_across([folder], "edm/cifar")
    with pytest.raises(UserError, match="holds no results"):
        model_across([tmp_path / "nothing"], "edm/cifar10")
