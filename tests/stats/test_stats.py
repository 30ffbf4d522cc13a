"""Seeds, paired differences, Holm and ranks against known values."""

import numpy as np
import pytest

from cmbench.stats.intervals import combine_seeds
from cmbench.stats.paired import holm, paired_difference
from cmbench.stats.ranks import separate


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
    ranks = separate([(0, 1), (0.5, 2), (3, 4)], higher_is_better=False)
    assert ranks == [(1, 2), (1, 2), (3, 3)]
