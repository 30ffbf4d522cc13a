"""Races: the boundary holds at all times, ranks are counted right, known orders come out right."""

import sys
from pathlib import Path

import numpy as np
import pytest

from cmbench.stats.race import Race, half_width

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


def test_the_boundary_by_hand():
    # a = 0.05 and r^2 = (5.991 + log 6.991) / 100 = 0.07936 at 100 samples: n r^2 = 7.936.
    wanted = (2 * 8.9360 / (100 * 7.9360) * np.log(8.9360**0.5 / 0.05)) ** 0.5
    assert half_width(1.0, 100, 100, 0.05) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
def test_a_walk_without_drift_seldom_leaves_the_boundary_at_any_time():
    chance = np.random.default_rng(0)
    reach = np.array([half_width(1.0, n, 500, 0.1) for n in range(50, 5000)])
    means = chance.normal(size=(2000, 5000)).cumsum(1)[:, 49:-1] / np.arange(50, 5000)
    left = (np.abs(means) > reach).any(1).mean()
    assert 0.0 < left <= 0.1


def _judged(race, means, count=1000, up=1.0):
    noise = np.random.default_rng(1).normal(size=count) * 0.01
    spread = {k: np.roll(noise, i) - noise.mean() for i, k in enumerate(race.open)}
    return race.judge({k: up * means[k] for k in race.open}, {k: spread[k] for k in race.open})


@pytest.mark.parametrize("up", [True, False])
def test_ranks_count_what_stopped_before(up):
    sign = 1.0 if up else -1.0
    race = Race("abcde", 10_000, higher_is_better=up)
    means = {"a": 5.0, "b": 4.0, "c": 4.0, "d": 3.0, "e": 3.0}
    assert {(s.entry, s.rank) for s in _judged(race, means, up=sign)} == {("a", 1)}
    assert race.open == ["b", "c", "d", "e"]
    means["c"] = 3.9
    assert {(s.entry, s.rank) for s in _judged(race, means, up=sign)} == {("b", 2), ("c", 3)}
    means["d"] = 2.9
    assert {(s.entry, s.rank) for s in _judged(race, means, up=sign)} == {("e", 4), ("d", 5)}
    assert race.open == []


def test_equal_entries_never_settle():
    race = Race("ab", 1000, higher_is_better=False)
    assert _judged(race, {"a": 1.0, "b": 1.0}) == []


@pytest.mark.slow
def test_at_most_one_race_in_twenty_is_wrong_and_evaluations_are_saved():
    from race import MEANS, run

    found = run(500, 10_000)
    assert found.wrong <= 25
    assert found.drawn < 0.8
    hard = run(500, 10_000, (10.0,) * len(MEANS))
    assert hard.wrong == 0  # equal means: every rank is allowed, and none should be settled
    assert hard.settled < 0.05
