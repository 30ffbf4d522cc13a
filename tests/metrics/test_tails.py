"""Intervals where a few images hold most of the variance, and of KID by few small subsets."""

import numpy as np
import pytest

from cmbench.core.loader import create
from cmbench.metrics.base import Features, Reference
from cmbench.metrics.frechet.error import frechet
from cmbench.metrics.intervals.skewed import (
    effective_count,
    skewed_interval,
    skewness,
    tailed_interval,
)


def _covered(scores) -> float:
    """Share of the intervals that hold the mean of the values."""
    truth = np.mean([s.value for s in scores])
    return float(np.mean([s.interval[0] <= truth <= s.interval[1] for s in scores]))


def test_the_effective_count_of_equal_terms_is_their_number():
    terms = np.resize([1.0, -1.0], 60)
    assert effective_count(terms) == pytest.approx(60)
    assert effective_count(terms * 1e200) == pytest.approx(60)
    one = np.eye(1, 60)[0]
    assert effective_count(one - one.mean()) == pytest.approx(1, abs=0.1)
    assert effective_count(np.zeros(7)) == 7


def test_only_a_heavy_tail_moves_an_interval():
    rng = np.random.default_rng(0)
    terms = rng.normal(size=500)
    terms -= terms.mean()
    plain = skewed_interval(3.0, 0.1, skewness(terms, 0.2), 500)
    assert tailed_interval(3.0, 0.1, terms, 0.2) == (plain, {})
    terms[7] = 200.0
    terms -= terms.mean()
    (low, high), details = tailed_interval(3.0, 0.1, terms, 0.2)
    before = skewed_interval(3.0, 0.1, skewness(terms, 0.2), 500)
    assert low == before[0]
    assert 2.8 < (high - 3) / (before[1] - 3) <= 3
    assert details["effective_images"] == pytest.approx(1, abs=0.1)
    (low, high), _ = tailed_interval(3.0, 0.1, -terms, -0.2)
    assert 3 - low > 2.8 * (3 - skewed_interval(3.0, 0.1, skewness(-terms, -0.2), 500)[0])


def _student(seed, n, freedom, d=16):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) / np.sqrt(rng.chisquare(freedom, size=(n, 1)) / freedom)
    return rows.astype(np.float32)


def test_intervals_of_heavy_tailed_features_hold_the_truth():
    """Without the widening of the interval they do in 7 of 10 sets."""
    reference = Reference("r", Features({"pool": _student((9, 9), 2000, 3)}))
    metric, scores, plain = create("metric", "frechet_distance"), [], []
    for trial in range(120):
        generated = Features({"pool": _student((3, trial), 200, 3)})
        score = metric.scores(generated, reference)["frechet_distance"]
        found = frechet(generated, reference, "pool")
        skew = skewness(found.influence, found.second)
        plain.append(skewed_interval(score.value, score.error, skew, 200))
        scores.append(score)
    truth = np.mean([s.value for s in scores])
    assert _covered(scores) > 0.88
    assert np.mean([low <= truth <= high for low, high in plain]) < 0.8
    assert all(
        s.details["effective_images"] < 25 for s in scores if s.details.get("effective_images")
    )


def _kid(subsets: int, size: int, count: int, shift: float, trials: int):
    draw = np.random.default_rng(4)
    reference = Reference("r", Features({"pool": draw.normal(size=(count, 8)).astype("f4")}))
    metric = create("metric", {"name": "kid", "subsets": subsets, "subset_size": size})
    return [
        metric.scores(
            Features({"pool": draw.normal(shift, 1, (count, 8)).astype("f4")}), reference
        )["kid"]
        for _ in range(trials)
    ]


@pytest.mark.parametrize(("subsets", "size", "shift"), [(4, 25, 0.0), (15, 50, 0.2)])
def test_intervals_of_kid_by_subsets_hold_the_truth(subsets, size, shift):
    """Few small subsets by the error of all pairs: 3 of 10 sets."""
    scores = _kid(subsets, size, 200, shift, 100)
    assert _covered(scores) > 0.9
    spread = np.std([s.value for s in scores], ddof=1)
    assert np.sqrt(np.mean([s.error**2 for s in scores])) == pytest.approx(spread, rel=0.2)


def test_one_subset_of_everything_is_all_pairs():
    subset, pairs = _kid(1, 60, 60, 0.8, 3), _kid(0, 60, 60, 0.8, 3)
    for a, b in zip(subset, pairs, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-9)
        assert a.error == pytest.approx(b.error, rel=1e-9)
        assert a.interval == pytest.approx(b.interval, rel=0.05, abs=0.01)


def test_kid_s_terms_have_the_stated_variance():
    rng = np.random.default_rng(2)
    x, y = (rng.normal(i / 4, 1, (200, 6)).astype(np.float32) for i in (1, 0))
    metric = create("metric", {"name": "kid", "subsets": 6, "subset_size": 50})
    generated, reference = Features({"pool": x}), Reference("r", Features({"pool": y}))
    terms = metric.influence(generated, reference)["kid"]
    error = metric.scores(generated, reference)["kid"].error
    assert terms.std(ddof=1) / np.sqrt(200) == pytest.approx(error, rel=1e-12)
    assert (metric.version(), create("metric", "kid").version()) == (3, 2)
