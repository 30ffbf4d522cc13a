"""CMMD against its plain definition, and the interval's skewness against a finite difference."""

import numpy as np
import pytest

from cmbench.core.loader import create
from cmbench.metrics.base import Features, MetricError, Moments, Reference
from cmbench.metrics.frechet.distance import moment_distance
from cmbench.metrics.frechet.error import frechet
from cmbench.metrics.frechet.moments import moments_of_rows
from cmbench.metrics.intervals.skewed import skewed_interval, skewness


def _rows(seed: int, n: int, d: int = 12, shift: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (n, d)).astype(np.float32)


def _score(x: np.ndarray, y: np.ndarray):
    return create("metric", "cmmd").scores(
        Features({"pool": x}), Reference("r", Features({"pool": y}))
    )["cmmd"]


def test_cmmd_is_the_plain_sum_over_all_pairs():
    x, y = _rows(0, 60), _rows(1, 80, shift=0.5)
    a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))

    def mean(p, q):
        gaps = ((p[:, None].astype(float) - q[None]) ** 2).sum(-1)
        return np.exp(-gaps / 200).mean()

    found = _score(x, y)
    assert found.value == pytest.approx(
        1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b)), rel=1e-5
    )
    assert found.details["unbiased"] < found.value
    assert found.interval[0] < found.value < found.interval[1]
    assert _score(x, x).value == pytest.approx(0, abs=1e-9)


def test_cmmd_s_error_is_the_spread_over_redraws():
    reference = _rows(2, 400, shift=0.6)
    drawn = [_score(_rows(100 + i, 100), reference) for i in range(60)]
    spread = np.std([s.value for s in drawn], ddof=1)
    assert np.mean([s.error for s in drawn]) == pytest.approx(spread, rel=0.25)


def test_a_row_of_zeros_is_named():
    rows = _rows(0, 10)
    rows[3] = 0
    with pytest.raises(MetricError, match="sample 3"):
        _score(rows, _rows(1, 10))


@pytest.mark.parametrize("n", [300, 40])
def test_second_order_terms_are_the_second_derivative_along_the_first(n):
    x, y = _rows(0, n, 60), _rows(1, 500, 60, 0.4)
    found = frechet(Features({"pool": x}), Reference("r", Features({"pool": y})), "pool")
    terms, other = found.influence, moments_of_rows(y)

    def at(step: float) -> float:
        weights = (1 + step * terms) / n
        mean = weights @ x
        gaps = x - mean
        return moment_distance(Moments(mean, (gaps.T * weights) @ gaps * n / (n - 1), n), other)

    step = 0.01 / np.abs(terms).max()
    second = (at(step) + at(-step) - 2 * at(0)) / step**2
    assert found.second == pytest.approx(second, rel=0.06)


def test_the_interval_of_skew_draws_misses_evenly():
    """Exponential draws' mean, n = 40: the normal interval misses on one side."""
    draw, plain, ours = np.random.default_rng(3), [0, 0], [0, 0]
    for _ in range(4000):
        x = draw.exponential(size=40)
        error = x.std(ddof=1) / 40**0.5
        ends = x.mean() - 1.96 * error, x.mean() + 1.96 * error
        moved = skewed_interval(x.mean(), error, skewness(x - x.mean(), 0.0), 40)
        for counts, (low, high) in ((plain, ends), (ours, moved)):
            counts[0] += low > 1
            counts[1] += high < 1
    assert plain[1] > 5 * plain[0]
    assert ours[1] < 0.7 * plain[1]
    assert 0.92 < 1 - sum(ours) / 4000 < 0.98
    assert sum(ours) < sum(plain)


def test_no_skew_is_the_normal_interval():
    assert skewed_interval(1.0, 0.5, 0.0, 100) == pytest.approx((0.02, 1.98))
    assert skewness(np.zeros(5), 0.0) == 0.0
