"""`compare` combines the differences of a cell's seeds and trainings into one."""

import numpy as np
import pytest
import torch

from cmbench.audit.compare import compare_runs
from cmbench.engine.context import JobContext
from cmbench.record.schema import Record, ScoreRecord, Training
from cmbench.store.shared import open_store


@pytest.fixture
def compared(tmp_path, monkeypatch):
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path / "cache"))

    def compare(a, b):
        for name, cells in (("a", a), ("b", b)):
            (tmp_path / name / "records").mkdir(parents=True)
            for cell in cells:
                path = tmp_path / name / "records" / f"{cell.cell}.json"
                path.write_text(cell.model_dump_json())
        context = JobContext(open_store(), torch.device("cpu"))
        (row,) = compare_runs(tmp_path / "a", tmp_path / "b", context).rows
        return row

    return compare


def cells(values, *, trained=False, first=0):
    made = []
    for i, value in enumerate(values, first):
        score = ScoreRecord(
            name="frechet_distance", title="FD", value=value, error=0.1, count=100,
            interval=(value - 0.196, value + 0.196), higher_is_better=False,
            fingerprint="a" * 64, protocol={},
        )  # fmt: skip
        training = Training(recipe=f"m/{i}", recipe_digest=f"{i}", seed=i, images=1, steps=1,
                            evaluations_per_image=3.0, recipe_digest_without_seed="r")  # fmt: skip
        made.append(
            Record(suite="s", suite_version=1, cell=f"c{i}", status="done", label="A", model="m/c",
                   family="m", nfe=1, seed=0 if trained else i, images=100, scores=[score],
                   training=training if trained else None)
        )  # fmt: skip
    return made


def test_seeds_are_one_row_with_the_error_of_their_mean(compared):
    row = compared(cells([5.0, 5.1, 4.9]), cells([4.0, 4.1, 3.9]))
    assert (row.a, row.b, row.repeats) == (pytest.approx(5.0), pytest.approx(4.0), "3 seeds")
    assert row.difference == pytest.approx(1.0)
    assert row.error == pytest.approx(0.1 * 2**0.5 / 3**0.5)


def test_trainings_are_judged_by_their_spread(compared):
    row = compared(cells([5.0, 6.0, 7.0], trained=True), cells([4.0, 4.0, 4.0], trained=True))
    assert row.repeats == "3 trainings"
    # Differences of 1, 2 and 3: Student's t with two degrees of freedom.
    assert row.interval[1] == pytest.approx(2 + 4.302652729911275 / 3**0.5)
    assert row.p == pytest.approx(0.0742, abs=1e-4)


def test_other_seeds_are_compared_as_independent(compared):
    row = compared(cells([5.0, 5.0]), cells([4.0, 4.0, 4.0], first=7))
    assert (row.difference, row.paired, row.why_unpaired) == (1.0, False, "the seeds differ")
    assert row.error == pytest.approx(np.hypot(0.1 / 2**0.5, 0.1 / 3**0.5))
