"""Features of any size: exact scaling, brute force beside far outliers, and what is refused."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from cmbench.core.loader import create
from cmbench.metrics.base import Features, MetricError, Reference
from cmbench.metrics.frechet.moments import moments_of_rows
from cmbench.metrics.statistics.file import (
    load_reference,
    reference_from_features,
    save_compact_reference,
    save_reference,
)

INVARIANT = ["precision", "recall", "density", "coverage", "auth_pct", "cmmd", "vendi"]
METRICS = ["frechet_distance", "precision_recall", "density_coverage", "auth_pct", "cmmd",
           "vendi", {"name": "fd_infinity", "shards": 5}]  # fmt: skip


def _rows(seed: int, n: int, shift: float = 0.0, d: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (n, d)).astype(np.float32)


def _scores(x: np.ndarray, y: np.ndarray, metrics=METRICS) -> dict:
    found = {}
    for spec in metrics:
        generated, reference = Features({"pool": x}), Reference("r", Features({"pool": y}))
        found |= create("metric", spec).scores(generated, reference)
    return found


@pytest.mark.parametrize("count", [150, 2100])
def test_powers_of_two_change_no_digit(count):
    """From 1e-30 to 1e36: squares, and squares of products, leave float32's range on the way."""
    x, y = _rows(1, count, 0.2), _rows(2, 150)
    plain = _scores(x, y)
    for exponent in (-100, -40, 33, 120):
        scores = _scores(np.ldexp(x, exponent), np.ldexp(y, exponent))
        for name, score in scores.items():
            factor = 1.0 if name in INVARIANT else 4.0**-exponent
            got = [score.value, score.error, *score.interval]
            want = [plain[name].value, plain[name].error, *plain[name].interval]
            assert np.array(got) * factor == pytest.approx(want, rel=1e-12), (name, exponent)


def _brute(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The neighbour metrics from all differences in float64."""

    def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1)

    own, theirs, across = squared(x, x), squared(y, y), squared(x, y)
    radii = {k: np.sort(theirs, 1)[:, k] for k in (1, 3, 5)}
    return {
        "precision": (across <= radii[3]).any(1).mean(),
        "recall": (across <= np.sort(own, 1)[:, 3:4]).any(0).mean(),
        "density": (across < radii[5]).sum() / 5 / len(x),
        "coverage": (across < radii[5]).any(0).mean(),
        "auth_pct": 100 * (across.min(1) > radii[1][across.argmin(1)]).mean(),
    }


def _with(rows: np.ndarray, value: float) -> np.ndarray:
    changed = rows.copy()
    changed[0] = value
    return changed


PAIRS = {
    "generated tiny": lambda x, y: (x * np.float32(1e-22), y),
    "reference tiny": lambda x, y: (x, y * np.float32(1e-22)),
    "generated huge": lambda x, y: (x * np.float32(1e19), y),
    "far apart": lambda x, y: (x * np.float32(1e-22), y * np.float32(1e19)),
    "an outlier of 1e5": lambda x, y: (_with(x, 1e5), y),
    "an outlier of 1e7": lambda x, y: (_with(x, 1e7), y),
    "an outlier of 1e19": lambda x, y: (_with(x, 1e19), y),
    "a reference outlier of 1e8": lambda x, y: (x, _with(y, 1e8)),
    "all shifted": lambda x, y: (x + np.float32(1e4), y + np.float32(1e4)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_neighbours_are_those_of_brute_force(name):
    x, y = PAIRS[name](_rows(1, 150, 0.2), _rows(2, 180))
    scores = _scores(x, y, ["precision_recall", "density_coverage", "auth_pct"])
    for score, want in _brute(x, y).items():
        assert scores[score].value == pytest.approx(want, rel=1e-12), score


@pytest.mark.parametrize("name", [n for n in PAIRS if "outlier" not in n and "shifted" not in n])
def test_distances_of_sets_of_unlike_sizes(name):
    """Dowson and Landau's formula of the sets, each brought to size 1 by itself."""
    x, y = PAIRS[name](_rows(1, 150, 0.2), _rows(2, 180))
    score = _scores(x, y, ["frechet_distance"])["frechet_distance"]
    a, b = (rows.astype(np.float64) for rows in (x, y))
    sizes = np.abs(a).max(), np.abs(b).max()
    s, t = (np.cov((r / size).T) for r, size in zip((a, b), sizes, strict=True))
    root = sizes[0] * sizes[1] * np.trace(sqrtm(s @ t)).real
    traces = np.trace(s) * sizes[0] ** 2 + np.trace(t) * sizes[1] ** 2
    gap = a.mean(0) - b.mean(0)
    assert score.value == pytest.approx(gap @ gap + traces - 2 * root, rel=1e-9)
    assert 0 <= score.error < score.value
    assert score.interval[0] <= score.value <= score.interval[1]


def test_moments_of_many_large_rows():
    rows = _rows(3, 2500)
    found, plain = moments_of_rows(np.ldexp(rows, 100)), moments_of_rows(rows)
    assert np.array_equal(found.covariance, np.ldexp(plain.covariance, 200))


@pytest.mark.parametrize("size", [1e19, 1e38, 1e-7, 1e-22])
def test_kid_refuses_features_that_its_cube_cannot_tell(size):
    x, y = (_rows(i, 60) * np.float32(size / 4) for i in (1, 2))
    with pytest.raises(MetricError, match="KID's kernel"):
        _scores(x, y, ["kid"])


def test_kid_is_finite_up_to_its_largest_feature():
    x, y = (_rows(i, 60, i / 4) * np.float32(2e15) for i in (1, 2))
    score = _scores(x, y, ["kid"])["kid"]
    assert np.isfinite([score.value, score.error, *score.interval]).all()


@pytest.mark.parametrize("size", [1e6, 1e-6])
def test_float16_arithmetic_refuses_what_float16_cannot_hold(size):
    adm = {"name": "precision_recall", "arithmetic": "adm"}
    with pytest.raises(MetricError, match="float16"):
        _scores(_rows(1, 60) * np.float32(size), _rows(2, 60), [adm])


def test_logits_that_float32_cannot_subtract_are_refused():
    rows = np.where(_rows(1, 60) > 0, np.float32(3e38), np.float32(-3e38))
    with pytest.raises(MetricError, match="logits"):
        create("metric", "inception_score").scores(Features({"logits": rows}), None)


@pytest.mark.parametrize("rows", [
    np.tile(np.float32([3.0, 1.7, -2.1, 0.3]), (60, 1)),
    np.tile(np.float32([0.1] * 7), (64, 1)),
    np.random.default_rng(0).normal(size=(60, 1)).astype(np.float32) * np.float32([1, 0.3, -2]),
])  # fmt: skip
def test_scores_of_one_class_lie_within_their_intervals(rows):
    features = Features({"logits": rows, "pool": np.abs(rows)})
    for name in ("inception_score", "vendi"):
        score = create("metric", name).scores(features, None)[name]
        assert 1 <= score.interval[0] <= score.value <= score.interval[1]
    assert create("metric", "inception_score").value(features) >= 1


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e5])
def test_kept_references_hold_small_and_large_features(tmp_path, size):
    rows = _rows(4, 50) * np.float32(size)
    made = reference_from_features(Features({"pool": rows}), "abc")
    save_reference(made, tmp_path / "whole.npz")
    save_compact_reference(made, tmp_path / "compact.npz", made_of={}, keep=50)
    for name in ("whole.npz", "compact.npz"):
        back = load_reference(tmp_path / name).features
        assert back is not None
        np.testing.assert_allclose(back.layers["pool"], rows, atol=1e-3 * size)
