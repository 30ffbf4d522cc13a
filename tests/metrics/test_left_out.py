"""Rows left out and joined, exactly; and the variance that is made of them."""

import numpy as np
import pytest

from cmbench.core.loader import create
from cmbench.metrics.base import Features, MetricError, Reference
from cmbench.metrics.frechet.distance import frechet_value, moment_distance
from cmbench.metrics.frechet.error import frechet
from cmbench.metrics.frechet.leave_one_out import Sample
from cmbench.metrics.frechet.moments import MomentSum, moments_of_rows
from cmbench.metrics.frechet.reference import target_of
from cmbench.metrics.intervals.leave_one_out import shared_variance
from cmbench.metrics.vendi import _Fit

D = 24


def _rows(seed: int, n: int, low: float = 0.2) -> np.ndarray:
    scale = np.linspace(1, low, D)
    return (np.random.default_rng(seed).normal(size=(n, D)) * scale + 0.1).astype(np.float32)


def _distance(rows: np.ndarray, other: np.ndarray) -> float:
    return frechet_value(
        Features({"pool": rows}), Reference("r", Features({"pool": other})), "pool"
    )


@pytest.mark.parametrize(
    ("n", "m"), [(15, 200), (25, 200), (40, 200), (120, 200), (15, 12), (60, 12)]
)
def test_terms_are_the_distances_with_each_row_left_out(n, m):
    """Fewer rows than dimensions on either side, a few more, and many more."""
    x, y = _rows(1, n), _rows(2, m, 0.3)
    found = frechet(Features({"pool": x}), Reference("r", Features({"pool": y})), "pool")
    left = np.array([_distance(np.delete(x, i, 0), y) for i in range(n)])
    jackknife = -(n - 1) * (left - left.mean())
    # The terms are brought to the stated variance.
    scale = jackknife.std() / found.influence.std()
    np.testing.assert_allclose(found.influence * scale, jackknife, atol=1e-3 * jackknife.std())
    assert found.distance == pytest.approx(_distance(x, y), rel=1e-7)
    assert found.influence.var(ddof=1) / n == pytest.approx(found.variance, rel=1e-6)


@pytest.mark.parametrize("n", [12, 40])
def test_a_row_that_joins_changes_the_distance_by_what_is_told(n):
    x, y = _rows(1, n + 5), _rows(2, 200, 0.3)
    sample = Sample(x, target_of(Reference("r", Features({"pool": y})), "pool", width=D), few=True)
    told = sample.fit(np.arange(n)).joined(np.arange(n, n + 5))
    before = _distance(x[:n], y)
    after = [_distance(np.vstack([x[:n], x[i : i + 1]]), y) for i in range(n, n + 5)]
    np.testing.assert_allclose(told, (n + 1) * (np.array(after) - before), rtol=1e-3)


@pytest.mark.parametrize("n", [14, 60])
def test_vendi_s_terms_are_the_scores_with_each_row_left_out_or_joined(n):
    rows = np.abs(_rows(3, n + 4)).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1)[:, None]

    def plain(index: np.ndarray) -> float:
        values = np.linalg.eigvalsh(rows[index] @ rows[index].T / len(index))
        values = values[values > 1e-13]
        return float(np.exp(-(values * np.log(values)).sum()))

    own = np.arange(n)
    fit = _Fit.of(rows, own)
    assert fit.value() == pytest.approx(plain(own), rel=1e-10)
    left = [(n - 1) * (plain(own) - plain(np.delete(own, i))) for i in own]
    np.testing.assert_allclose(fit.left(), left, atol=1e-4)
    joined = [(n + 1) * (plain(np.append(own, i)) - plain(own)) for i in range(n, n + 4)]
    np.testing.assert_allclose(fit.joined(np.arange(n, n + 4)), joined, atol=1e-4)


class _Square:
    """T = |mean of x|^2 of some rows (n, 50)."""

    def __init__(self, x: np.ndarray, index: np.ndarray) -> None:
        self.x, self.index, self.sum, self.n = x, index, x[index].sum(0), len(index)

    def left(self) -> np.ndarray:
        after = (self.sum - self.x[self.index]) / (self.n - 1)
        return (self.n - 1) * (((self.sum / self.n) ** 2).sum() - (after**2).sum(1))

    def joined(self, index: np.ndarray) -> np.ndarray:
        after = (self.sum + self.x[index]) / (self.n + 1)
        return (self.n + 1) * ((after**2).sum(1) - ((self.sum / self.n) ** 2).sum())


@pytest.mark.parametrize("mean", [0.0, 0.1, 1.0])
def test_the_variance_of_a_squared_mean_is_the_exact_one(mean):
    """50 (4 mean^2 / n + 2 / n^2) for normal rows: leaving out alone gives 4 / n^2 for 2 / n^2."""
    n, draw, found = 64, np.random.default_rng(5), []
    for _ in range(400):
        x = draw.normal(mean, 1, (n, 50))
        terms = _Square(x, np.arange(n)).left()
        found.append(shared_variance(terms, lambda index, x=x: _Square(x, index), width=50))
    assert np.mean(found) == pytest.approx(50 * (4 * mean**2 / n + 2 / n**2), rel=0.15)


@pytest.mark.parametrize(("n", "name"), [(12, "frechet_distance"), (24, "frechet_distance"),
                                         (48, "frechet_distance"), (12, "vendi"), (30, "vendi")])  # fmt: skip
def test_errors_hold_with_as_many_samples_as_dimensions(n, name):
    """200 draws give a deviation to 5%; leaving rows out alone is 1.3 to 1.5 times too wide for
    the distance.
    """
    reference, metric = Reference("r", Features({"pool": _rows(0, 400)})), create("metric", name)
    found = []
    for seed in range(1, 201):
        score = metric.scores(Features({"pool": _rows(seed, n)}), reference)[name]
        found.append((score.value, score.error))
    values, errors = np.array(found).T
    assert 0.85 < np.sqrt((errors**2).mean()) / values.std(ddof=1) < 1.22


def test_moments_in_single_precision_are_those_in_double():
    mix = np.random.default_rng(7).normal(size=(40, 40)) / 6 + np.eye(40)
    rows = (np.random.default_rng(8).normal(size=(6000, 40)) @ mix + 30).astype(np.float32)
    found, exact = moments_of_rows(rows), rows.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-9)
    scale = np.cov(exact.T).diagonal().max()
    np.testing.assert_allclose(found.covariance, np.cov(exact.T), atol=1e-6 * scale)
    other = moments_of_rows(_wide(9))
    assert moment_distance(found, other) == pytest.approx(
        moment_distance(MomentSum.of(rows).moments(), other), rel=1e-7
    )


def test_a_singular_covariance_is_made_in_double_precision():
    """Of single precision's, the distance would be off by 1e-4."""
    rows = _wide(10)
    rows[:, 20:] = rows[:, :20] @ np.random.default_rng(1).normal(size=(20, 20)).astype("f4") / 4
    rows[:, 3] = 2.0
    found, exact = moments_of_rows(rows), MomentSum.of(rows).moments()
    np.testing.assert_allclose(found.covariance, exact.covariance, rtol=1e-9, atol=1e-12)


def _wide(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(6000, 40)).astype(np.float32)


def test_the_limit_is_refused_below_as_many_samples_as_dimensions():
    metric = create("metric", {"name": "fd_infinity", "shards": 4})
    reference = Reference("r", Features({"pool": _rows(0, 100)}))
    with pytest.raises(MetricError, match=r"20 samples are fewer than the 24 dimensions"):
        metric.scores(Features({"pool": _rows(1, 20)}), reference)
