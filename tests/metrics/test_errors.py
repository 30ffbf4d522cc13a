"""Stated standard errors against the spread over fresh draws, and exact cases of distances."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from cmbench.core.loader import create
from cmbench.metrics.base import Features, MetricError, Reference
from cmbench.metrics.frechet.distance import moment_distance
from cmbench.metrics.frechet.moments import moments_of_rows
from cmbench.metrics.frechet.reference import factor_of
from cmbench.metrics.neighbours.occupancy import HoldersSum
from cmbench.metrics.neighbours.recall_error import _radii
from cmbench.metrics.neighbours.search import nearest_others

N, M, D = 150, 400, 8


def _rows(seed: int, n: int, d: int = D, spread: float = 1.0) -> np.ndarray:
    scale = np.linspace(1, 0.3, d) * spread
    return (np.random.default_rng(seed).normal(size=(n, d)) * scale).astype(np.float32)


@pytest.fixture(scope="module")
def redraws() -> dict[str, np.ndarray]:
    """Value and stated error of 60 draws of the generated rows, the reference held fixed."""
    found: dict[str, list[tuple[float, float]]] = {}
    reference = Reference("r", Features({"pool": _rows(0, M)}))
    specs = ["frechet_distance", "kid", "precision_recall", "density_coverage",
             {"name": "fd_infinity", "shards": 10}]  # fmt: skip
    for seed in range(1, 61):
        generated = Features({"pool": _rows(seed, N, spread=1.1)})
        for spec in specs:
            for name, s in create("metric", spec).scores(generated, reference).items():
                found.setdefault(name, []).append((s.value, s.error))
    return {name: np.array(rows) for name, rows in found.items()}


@pytest.mark.parametrize(
    "name",
    ["frechet_distance", "fd_infinity", "kid", "precision", "recall", "density", "coverage"],
)
def test_stated_errors_are_the_spread_over_redraws(redraws, name):
    """60 draws give a deviation to 9%: three of them, and a tenth for the estimator itself."""
    values, errors = redraws[name].T
    ratio = np.sqrt((errors**2).mean()) / values.std(ddof=1)
    assert 0.68 < ratio < 1.45


def test_the_bias_told_is_the_excess_over_the_limit(redraws):
    reference = Reference("r", Features({"pool": _rows(0, M)}))
    scale = np.linspace(1, 0.3, D) * 1.1
    from cmbench.metrics.base import Moments

    own = moments_of_rows(reference.features.layers["pool"])
    limit = moment_distance(Moments(np.zeros(D), np.diag(scale**2), 0), own)
    generated = Features({"pool": _rows(1, N, spread=1.1)})
    told = create("metric", "frechet_distance").scores(generated, reference)["frechet_distance"]
    measured = redraws["frechet_distance"][:, 0].mean() - limit
    assert told.details["bias"] == pytest.approx(measured, rel=0.25)


def test_occupancy_of_poisson_boxes_has_the_exact_variance():
    """Boxes that no row shares: their variance is known, whatever the mean count."""
    draw = np.random.default_rng(0)
    for mean in (0.5, 1.0, 2.0, 3.0):
        boxes = 4000
        counts = draw.poisson(mean, boxes)
        total = HoldersSum(int(counts.sum()) + 1, boxes)
        inside = np.zeros((int(counts.sum()) + 1, boxes), bool)
        inside[np.arange(int(counts.sum())), np.repeat(np.arange(boxes), counts)] = True
        total.add(inside, 0, 0)
        empty = np.exp(-mean)
        # A fixed number of rows takes the first-order part of the Poisson number off.
        exact = (empty * (1 - empty) - mean * empty**2) / boxes
        # Three terms are within 5% before that part is taken off.
        assert total.holders().variance() == pytest.approx(exact, rel=0.25)


def test_radii_without_a_group_are_those_of_the_rest():
    rows = _rows(3, 40)
    group = np.arange(40) % 4
    radii = _radii(nearest_others(rows, 3), group, 4, 3)
    for g in range(4):
        rest = np.flatnonzero(group != g)
        gaps = ((rows[rest, None].astype(float) - rows[None, rest]) ** 2).sum(-1)
        np.testing.assert_allclose(radii[rest, g], np.sort(gaps, 1)[:, 3], rtol=1e-6)


def _plain(x: np.ndarray, y: np.ndarray) -> float:
    a, b = (np.cov(r.astype(float), rowvar=False) for r in (x, y))
    gap = x.astype(float).mean(0) - y.astype(float).mean(0)
    return float(gap @ gap + np.trace(a + b - 2 * np.real(sqrtm(a @ b))))


def _distance(x: np.ndarray, y: np.ndarray) -> float:
    reference = Reference("r", Features({"pool": y}))
    scores = create("metric", "frechet_distance").scores(Features({"pool": x}), reference)
    return scores["frechet_distance"].value


@pytest.mark.parametrize(("n", "m"), [(10, 400), (400, 10), (10, 12), (31, 33)])
def test_fewer_samples_than_dimensions_against_the_nuclear_norm(n, m):
    """tr (S1 S2)^(1/2) is the nuclear norm of A B^T: exact where both covariances are singular."""
    x, y = _rows(1, n, 32), _rows(2, m, 32) + 0.3
    a, b = (r.astype(float) - r.astype(float).mean(0) for r in (x, y))
    nuclear = np.linalg.svd(a @ b.T, compute_uv=False).sum() / np.sqrt((n - 1) * (m - 1))
    gap = x.astype(float).mean(0) - y.astype(float).mean(0)
    exact = gap @ gap + (a**2).sum() / (n - 1) + (b**2).sum() / (m - 1) - 2 * nuclear
    assert _distance(x, y) == pytest.approx(exact, rel=1e-6)


def test_singular_covariances_constant_features_and_duplicates():
    x, y = _rows(1, 200), _rows(2, 300)
    x[:, 3], y[:, 3] = 2.0, 2.0  # constant in both
    x[:, 5] = 2 * x[:, 4]  # dependent in one
    kept = [i for i in range(D) if i != 3]
    assert _distance(x, y) == pytest.approx(_plain(x[:, kept], y[:, kept]), rel=1e-5)
    y[:, 3] = 5.0
    assert _distance(x, y) == pytest.approx(_plain(x[:, kept], y[:, kept]) + 9, rel=1e-5)
    same = np.repeat(x[:1], 50, axis=0)
    alone = _distance(same, y)
    gap = x[0].astype(float) - y.astype(float).mean(0)
    assert alone == pytest.approx(gap @ gap + np.trace(np.cov(y.astype(float).T)), rel=1e-9)
    doubled = np.repeat(x, 2, axis=0)
    assert _distance(doubled, doubled) == pytest.approx(0, abs=1e-6)


def test_a_factor_s_square_is_the_covariance_singular_or_not():
    whole = np.cov(_rows(1, 50).astype(float).T)
    thin = np.cov(_rows(1, 5).astype(float).T)
    for covariance in (whole, thin, np.zeros((3, 3))):
        factor = factor_of(covariance)
        np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-12)


def test_one_sample_and_one_that_is_not_finite_are_told():
    y = _rows(2, 300)
    with pytest.raises(MetricError, match="1 generated samples are too few"):
        _distance(_rows(1, 1), y)
    x = _rows(1, 30)
    x[11, 2] = np.inf
    with pytest.raises(MetricError, match="sample 11 "):
        _distance(x, y)
