"""Seeds, paired differences, Holm and ranks against known values."""

import numpy as np
import pytest

from cmbench.stats.intervals import combine_seeds
from cmbench.stats.paired import holm, paired_difference
from cmbench.stats.ranks import pairwise_z, rank_ranges


def test_three_seeds_use_students_t():
    found = combine_seeds([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.interval[1] == pytest.approx(2 + 4.302652729911275 / 3**0.5)


def test_shared_noise_cancels():
    noise = np.random.default_rng(0).normal(size=1000)
    own = np.random.default_rng(1).normal(size=1000) * 0.01
    found = paired_difference(1.0, noise + own, 0.9, noise)
    assert found.error == pytest.approx(own.std(ddof=1) / 1000**0.5)
    assert found.p < 1e-6


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_overlapping_entries_share_ranks():
    ranks = rank_ranges([0.5, 0.7, 3.5], [0.2, 0.2, 0.2], higher_is_better=False)
    assert ranks == [(1, 2), (1, 2), (3, 3)]


@pytest.mark.parametrize("up", [True, False])
def test_ranks_are_those_of_every_pair_compared(up):
    rng = np.random.default_rng(3)
    values = rng.normal(size=80).round(1).tolist()
    errors = [None if rng.random() < 0.2 else float(e) for e in rng.exponential(0.3, 80)]

    def better(i, j):
        gain = (values[i] - values[j]) * (1 if up else -1)
        if errors[i] is None or errors[j] is None:
            return gain > 0
        return gain > pairwise_z(80) * (errors[i] ** 2 + errors[j] ** 2) ** 0.5

    wanted = [
        (1 + sum(better(j, i) for j in range(80)), 80 - sum(better(i, j) for j in range(80)))
        for i in range(80)
    ]
    assert rank_ranges(values, errors, higher_is_better=up) == wanted


def test_nothing_has_no_ranks():
    assert rank_ranges([], [], higher_is_better=True) == []


def test_ten_equal_entries_are_rarely_ranked_apart():
    draw = np.random.default_rng(0)
    boards = [rank_ranges(list(row), [1.0] * 10, higher_is_better=True)
              for row in draw.normal(size=(1000, 10))]  # fmt: skip
    apart = sum(any(found != (1, 10) for found in board) for board in boards)
    assert apart / 1000 < 0.05 + 2 * 0.007


def test_few_degrees_of_freedom_set_less_apart():
    values, errors = [0.0, 1.0, 2.0], [0.1] * 3
    assert rank_ranges(values, errors, higher_is_better=False) == [(1, 1), (2, 2), (3, 3)]
    few = rank_ranges(values, errors, higher_is_better=False, degrees=[1.0] * 3)
    assert few == [(1, 3)] * 3
