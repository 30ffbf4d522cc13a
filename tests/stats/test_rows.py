"""Seeds and trainings of one cell are one row; what its interval holds covers what it claims."""

import re

import numpy as np
import pytest

from cmbench.record.schema import Record, ScoreRecord, Training
from cmbench.stats.intervals import Estimate, combine_seeds, combine_trainings
from cmbench.stats.rows import rows_of


def record(value=1.0, *, seed=0, training=None, label="A", axes=None, nfe=1.0, error=0.1, **more):
    interval = more.pop("interval", (value - 1.96 * error, value + 1.96 * error))
    score = ScoreRecord(
        name=more.pop("name", "frechet_distance"), title="FD", value=value, error=error,
        interval=interval, count=100, higher_is_better=False, fingerprint="a" * 64, protocol={},
    )  # fmt: skip
    trained = None
    if training is not None:
        trained = Training(
            recipe=f"m/{training}", recipe_digest=f"d{training}", seed=training, images=1, steps=1,
            evaluations_per_image=3.0, recipe_digest_without_seed=more.pop("recipe", "r"),
        )  # fmt: skip
    cell = re.sub(r"[^A-Za-z0-9]", "_", f"{label}-{nfe}-{seed}-{training}-{axes}")
    return Record(
        suite="s", suite_version=1, cell=cell, status="done", label=label, model="m/c", family="m",
        axes=axes or {}, nfe=nfe, seed=seed, images=100, scores=[score], training=trained, **more,
    )  # fmt: skip


def test_seeds_of_one_cell_are_one_row_with_their_mean():
    (row,) = rows_of([record(1.0, seed=0), record(1.2, seed=1), record(1.1, seed=2)])
    assert (row.nfe, row.seeds, row.trainings) == (1.0, [0, 1, 2], 1)
    assert row.scores[0].value == pytest.approx(1.1)
    # Their spread, 0.1, is what errors of 0.1 explain: the normal interval of the mean.
    assert row.scores[0].error == pytest.approx(0.1 / 3**0.5)
    assert row.scores[0].interval[1] == pytest.approx(1.1 + 1.96 * 0.1 / 3**0.5)


def test_a_spread_beyond_the_errors_is_in_the_interval_by_students_t():
    found = combine_seeds([1.0, 2.0, 3.0], [1e-6] * 3)
    assert found.interval[1] == pytest.approx(2 + 4.302652729911275 / 3**0.5)
    assert found.degrees == pytest.approx(2.0)


def test_trainings_of_one_recipe_are_one_row_by_students_t():
    rows = rows_of([record(v, training=t) for t, v in enumerate((5.0, 6.0, 7.0))])
    assert [(row.trainings, row.label) for row in rows] == [(3, "A")]
    assert rows[0].scores[0].interval[0] == pytest.approx(6 - 4.302652729911275 / 3**0.5)


def test_trainings_by_the_axis_seed_are_one_row_and_other_axes_are_not():
    cells = [
        record(v, axes={"distance": d, "seed": s}, training=s, recipe=d)
        for d, v in (("l1", 5.0), ("l2", 6.0))
        for s in (0, 1, 2)
    ]
    rows = rows_of(cells)
    assert [(r.axes, r.trainings, r.name) for r in rows] == [
        ({"distance": "l1"}, 3, "A (distance=l1)"),
        ({"distance": "l2"}, 3, "A (distance=l2)"),
    ]


def test_what_differs_or_can_not_be_told_apart_stays_apart():
    assert len(rows_of([record(), record(label="B"), record(nfe=2.0)])) == 3
    assert len(rows_of([record(training=0), record(training=1, recipe="other")])) == 2
    assert len(rows_of([record(), record(sampler={"name": "heun"})])) == 2
    assert len(rows_of([record(), record()])) == 2


def test_an_adaptive_sampler_s_seeds_are_one_row_though_they_spend_other_numbers():
    (row,) = rows_of([record(nfe=25.3, seed=0), record(nfe=25.5, seed=1)])
    assert row.nfe == pytest.approx(25.4)


def test_a_score_that_one_seed_lacks_is_not_in_the_row():
    rows = rows_of([record(seed=0), record(seed=1).model_copy(update={"scores": []})])
    assert rows[0].scores == []


def test_a_skewed_interval_stays_skewed_and_never_leaves_the_range():
    (row,) = rows_of(
        [record(0.0, seed=s, error=0.0005, interval=(0.0, 0.002), name="recall") for s in (0, 1)]
    )
    low, high = row.scores[0].interval
    assert low == 0.0
    assert high == pytest.approx(0.002 / 2**0.5)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_interval_of_seeds_covers(n):
    draw = np.random.default_rng(n)
    held = 0
    for row in draw.normal(3.0, 0.1, (3000, n)):
        low, high = combine_seeds(list(row), [0.1] * n).interval
        held += low <= 3.0 <= high
    assert 0.94 < held / 3000 < 0.975


@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_interval_of_trainings_covers_their_own_spread(n, spread):
    draw = np.random.default_rng(n)
    held = 0
    for row in draw.normal(3.0, np.hypot(0.1, spread), (3000, n)):
        found = combine_trainings([Estimate(v, 0.1, (v - 0.196, v + 0.196)) for v in row])
        held += found.interval[0] <= 3.0 <= found.interval[1]
    assert held / 3000 > 0.94
