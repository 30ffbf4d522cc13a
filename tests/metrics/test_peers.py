"""Every metric against an independent implementation on the same features, and closed forms."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from cmbench.core.loader import create
from cmbench.metrics.base import Features, MetricError, Moments, Reference
from cmbench.metrics.frechet.distance import moment_distance
from cmbench.metrics.frechet.moments import MomentSum, moments_of_rows
from cmbench.metrics.inception.score import split_indices
from cmbench.metrics.statistics.file import load_reference, reference_from_features, save_reference
from cmbench.metrics.statistics.formats import open_statistics, save_statistics


def _rows(seed: int, n: int, d: int, shift: float = 0.0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(d, d))
    return (draw.normal(size=(n, d)) @ mix / d**0.5 + shift).astype(np.float32)


def _pair(n: int = 300, m: int = 400, d: int = 16) -> tuple[Features, Reference]:
    logits = _rows(7, n, 10) * 2
    own = {"pool": _rows(1, n, d, 0.1), "spatial": _rows(3, n, d, 0.1), "logits": logits}
    other = {"pool": _rows(2, m, d), "spatial": _rows(4, m, d)}
    return Features(own), Reference("r", Features(other))


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@pytest.mark.parametrize("peer", ["pytorch_fid", "clean_fid", "torch_fidelity"])
def test_frechet_distance_agrees_with_peers_on_equal_moments(peer):
    generated, reference = _pair()
    value = create("metric", "frechet_distance").scores(generated, reference)["frechet_distance"]
    a, b = (
        moments_of_rows(rows["pool"]) for rows in (generated.layers, reference.features.layers)
    )
    four = (a.mean, a.covariance, b.mean, b.covariance)
    if peer == "torch_fidelity":
        from torch_fidelity.metric_fid import fid_statistics_to_metric

        sets = [{"mu": m, "sigma": s} for m, s in (four[:2], four[2:])]
        other = fid_statistics_to_metric(*sets, False)["frechet_inception_distance"]
    elif peer == "clean_fid":
        from cleanfid.fid import frechet_distance

        other = frechet_distance(*four)
    else:
        from pytorch_fid.fid_score import calculate_frechet_distance

        other = calculate_frechet_distance(*four)
    assert value.value == pytest.approx(other, rel=1e-9)


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 1.0, 2.0])
    m1, m2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    value = moment_distance(Moments(m1, np.diag(a), 9), Moments(m2, np.diag(b), 9))
    assert value == pytest.approx(5 + ((a**0.5 - b**0.5) ** 2).sum(), abs=1e-12)


def test_small_sets_agree_between_gram_and_width():
    generated, reference = _pair(n=9, m=60, d=16)
    value = create("metric", "frechet_distance").scores(generated, reference)["frechet_distance"]
    moments = [moments_of_rows(r["pool"]) for r in (generated.layers, reference.features.layers)]
    assert value.value == pytest.approx(moment_distance(*moments), rel=1e-6)


def test_influence_terms_are_the_derivative_of_the_distance():
    generated, reference = _pair(n=400)
    metric = create("metric", "frechet_distance")
    terms = metric.influence(generated, reference)["frechet_distance"]
    whole = metric.scores(generated, reference)["frechet_distance"].value
    rows, n = generated.layers["pool"], 400
    left = [
        metric.scores(Features({"pool": np.delete(rows, i, 0)}), reference)["frechet_distance"]
        for i in range(30)
    ]
    jackknife = np.array([(n - 1) * (whole - score.value) for score in left])
    assert np.corrcoef(jackknife, terms[:30])[0, 1] > 0.995


def test_shards_merge_and_leave_to_the_same_moments():
    rows = _rows(5, 101, 6).astype(np.float64)
    parts = [MomentSum.of(rows[i::3]) for i in range(3)]
    total = parts[0].merge(parts[1]).merge(parts[2])
    np.testing.assert_allclose(total.moments().covariance, np.cov(rows.T), rtol=1e-10, atol=1e-12)
    rest = total.without(parts[2]).moments()
    direct = np.concatenate([rows[0::3], rows[1::3]])
    np.testing.assert_allclose(rest.covariance, np.cov(direct.T), rtol=1e-9, atol=1e-12)


def test_inception_score_is_torch_fidelitys_and_one_hot_gives_the_classes():
    generated, _ = _pair()
    score = create("metric", "inception_score").scores(generated, None)["inception_score"]
    peer = isc_features_to_metric(torch.from_numpy(generated.layers["logits"]))
    assert score.value == pytest.approx(peer["inception_score_mean"], rel=3e-8)
    assert score.details["split_deviation"] == pytest.approx(peer["inception_score_std"], rel=1e-6)
    sharp = Features({"logits": np.tile(np.eye(10, dtype=np.float32) * 500, (20, 1))})
    one = create("metric", {"name": "inception_score", "splits": 1}).scores(sharp, None)
    assert one["inception_score"].value == pytest.approx(10, rel=1e-12)


@pytest.mark.parametrize(("count", "scale"), [(70, 3.0), (300, 1.0)])
def test_inception_scores_terms_are_those_of_rows_left_out(count, scale):
    """The error is theirs less the excess, which is at most a factor of 2^(1/2)."""
    rows = np.random.default_rng(3).normal(0, scale, (count, 12)).astype(np.float32)
    metric = create("metric", {"name": "inception_score", "splits": 1})
    generated = Features({"logits": rows})
    score = metric.scores(generated, None)["inception_score"]
    some = split_indices(count, 1, metric.seed)[0][:40]
    without = np.array([
        metric.scores(Features({"logits": np.delete(rows, i, axis=0)}), None)[
            "inception_score"
        ].value
        for i in some
    ])  # fmt: skip
    terms = metric.influence(generated, None)["inception_score"][some]
    assert np.corrcoef(terms, -without)[0, 1] > 1 - 1e-6
    jackknife = np.sqrt((count - 1) * np.var(without))
    assert 0.6 < score.error / jackknife < 1.4


def test_kid_subsets_are_torch_fidelitys_draws():
    generated, reference = _pair()
    spec = {"name": "kid", "subsets": 4, "subset_size": 100}
    score = create("metric", spec).scores(generated, reference)["kid"]
    peer = kid_features_to_metric(
        torch.from_numpy(generated.layers["pool"]),
        torch.from_numpy(reference.features.layers["pool"]),
        kid_subsets=4,
        kid_subset_size=100,
        verbose=False,
    )
    # torch-fidelity adds in float32.
    assert score.value == pytest.approx(peer["kernel_inception_distance_mean"], abs=2e-6)


def test_kid_over_all_pairs_is_the_plain_u_statistic():
    generated, reference = _pair(n=40, m=50)
    x, y = generated.layers["pool"].astype(float), reference.features.layers["pool"].astype(float)

    def kernel(a, b):
        return (a @ b.T / 16 + 1) ** 3

    def off(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    plain = off(kernel(x, x)) + off(kernel(y, y)) - 2 * kernel(x, y).mean()
    score = create("metric", "kid").scores(generated, reference)["kid"]
    assert score.value == pytest.approx(plain, rel=1e-10)


def test_precision_recall_density_coverage_agree_with_peers():
    from prdc import compute_prdc

    generated, reference = _pair()
    own, other = generated.layers["pool"], reference.features.layers["pool"]
    score = create("metric", "precision_recall").scores(generated, reference)
    peer = prc_features_to_metric(torch.from_numpy(own), torch.from_numpy(other), verbose=False)
    assert score["precision"].value == pytest.approx(peer["precision"], abs=1e-6)
    assert score["recall"].value == pytest.approx(peer["recall"], abs=1e-6)
    spread = create("metric", "density_coverage").scores(generated, reference)
    theirs = compute_prdc(other, own, nearest_k=5)
    assert spread["density"].value == pytest.approx(theirs["density"], rel=1e-12)
    assert spread["coverage"].value == pytest.approx(theirs["coverage"], rel=1e-12)


def test_adm_arithmetic_is_that_of_float16_tables():
    """The evaluator's rule in plain numpy: every intermediate in float16, a rim is inside."""
    x, y = _rows(1, 90, 64, 0.3) * 4 + 6, _rows(2, 110, 64) * 4 + 6

    def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = a.astype(np.float16), b.astype(np.float16)
        norms = [(r.astype(np.float32) ** 2).sum(1).astype(np.float16) for r in (a, b)]
        product = (a.astype(np.float32) @ b.astype(np.float32).T).astype(np.float16)
        found = (norms[0][:, None] - np.float16(2) * product) + norms[1][None, :]
        return np.maximum(found, np.float16(0))

    def radii(a: np.ndarray) -> np.ndarray:
        return np.sort(squared(a, a), axis=1)[:, 3]

    across = squared(x, y)
    metric = create("metric", {"name": "precision_recall", "arithmetic": "adm"})
    found = metric.scores(Features({"pool": x}), Reference("r", Features({"pool": y})))
    assert found["precision"].value == (across <= radii(y)[None, :]).any(1).mean()
    assert found["recall"].value == (across <= radii(x)[:, None]).any(0).mean()
    exact = create("metric", "precision_recall").scores(
        Features({"pool": x}), Reference("r", Features({"pool": y}))
    )
    assert exact["precision"].value != found["precision"].value


def test_adm_arithmetic_falls_back_to_single_precision_where_half_overflows():
    """The evaluator's rule: a block with a non-finite distance is made again without rounding."""
    x, y = _rows(1, 60, 16, 0.3) * 60 + 60, _rows(2, 70, 16) * 60 + 60

    def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = (r.astype(np.float16).astype(np.float64) for r in (a, b))
        return ((a[:, None] - b[None]) ** 2).sum(-1)

    with np.errstate(over="ignore"):
        assert np.isinf((x.astype(np.float16) ** 2).sum(1)).any()
    rims = [np.sort(squared(a, a), axis=1)[:, 3] for a in (x, y)]
    metric = create("metric", {"name": "precision_recall", "arithmetic": "adm"})
    found = metric.scores(Features({"pool": x}), Reference("r", Features({"pool": y})))
    across = squared(x, y)
    assert found["precision"].value == (across <= rims[1][None, :]).any(1).mean()
    assert found["recall"].value == (across <= rims[0][:, None]).any(0).mean()


def test_sfid_is_the_distance_of_maps_in_the_order_rows_columns_channels():
    """ADM's layer and definition: the first 7 of the channels, then Dowson and Landau's formula."""
    maps = [_rows(seed, 400, 3 * 3 * 9, shift).reshape(400, 9, 3, 3)
            for seed, shift in ((5, 0.1), (6, 0.0))]  # fmt: skip
    rows = [np.moveaxis(m, 1, 3)[..., :7].reshape(400, -1) for m in maps]
    generated, reference = Features({"spatial": rows[0]}), Features({"spatial": rows[1]})
    value = create("metric", "sfid").scores(generated, Reference("r", reference))["sfid"].value
    (m, s), (n, t) = ((r.astype(np.float64).mean(0), np.cov(r.T.astype(np.float64))) for r in rows)
    roots = np.sqrt(np.linalg.eigvals(s @ t).real.clip(min=0))
    expected = ((m - n) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * roots.sum()
    assert value == pytest.approx(expected, rel=1e-9)


def test_recall_s_error_does_not_depend_on_how_pairs_are_found():
    """Candidates from the balls' own pass, and from all distances, give one variance."""
    from cmbench.metrics.neighbours.recall_error import near_pairs, recall_variance
    from cmbench.metrics.neighbours.search import balls_of, nearest_others

    x, y = _rows(1, 300, 6, 0.5), _rows(2, 250, 6)
    near, radii = nearest_others(x, 3), nearest_others(y, 3).squared[:, 2]
    balls = balls_of(x, y, reference_radii=radii, near=near, k=3)
    every = near_pairs(x, y, near, balls.held)
    one, two = (recall_variance(pairs, near, balls.held, 3) for pairs in (balls.close, every))
    assert one == two > 0
    gaps = ((x[:, None].astype(float) - y[None]) ** 2).sum(-1)
    assert (balls.held_by == (gaps <= radii).sum(1)).all()
    assert (balls.held.counts == (gaps <= near.squared[:, 2:3]).sum(0)).all()


def test_duplicates_are_inside_for_recall_and_outside_for_coverage():
    same = np.full((12, 5), 31.7, np.float32)
    generated, reference = Features({"pool": same}), Reference("r", Features({"pool": same}))
    both = create("metric", "precision_recall").scores(generated, reference)
    assert (both["precision"].value, both["recall"].value) == (1.0, 1.0)
    strict = create("metric", "density_coverage").scores(generated, reference)
    assert (strict["density"].value, strict["coverage"].value) == (0.0, 0.0)
    distance = create("metric", "frechet_distance").scores(generated, reference)
    assert distance["frechet_distance"].value == pytest.approx(0, abs=1e-9)


def test_vendi_of_orthogonal_rows_is_their_number():
    rows = np.repeat(np.eye(6, dtype=np.float32), 4, axis=0)
    score = create("metric", "vendi").scores(Features({"pool": rows}), None)["vendi"]
    assert score.value == pytest.approx(6, rel=1e-10)


def test_copies_are_not_authentic():
    rows = _rows(2, 60, 8)
    reference = Reference("r", Features({"pool": rows}))
    score = create("metric", "auth_pct").scores(Features({"pool": rows[:20].copy()}), reference)
    assert score["auth_pct"].value == 0.0
    far = create("metric", "auth_pct").scores(Features({"pool": rows + 100}), reference)
    assert far["auth_pct"].value == 100.0


NAMES = ["frechet_distance", "kid", "precision_recall", "density_coverage", "auth_pct"]


@pytest.mark.parametrize("name", [*NAMES, "sfid", "fd_infinity"])
def test_another_width_is_an_error(name):
    generated, _ = _pair(d=16)
    _, reference = _pair(d=12)
    with pytest.raises(MetricError, match="wide"):
        create("metric", name).scores(generated, reference)


@pytest.mark.parametrize("name", [*NAMES, "sfid", "fd_infinity", "inception_score", "vendi"])
def test_a_sample_that_is_not_finite_is_named(name):
    generated, reference = _pair()
    for rows in generated.layers.values():
        rows[17, 3] = np.nan
    with pytest.raises(MetricError, match="sample 17 "):
        create("metric", name).scores(generated, reference)


@pytest.mark.parametrize(
    "name", [*(n for n in NAMES if n != "auth_pct"), "sfid", "vendi", "inception_score"]
)
def test_one_sample_is_too_few(name):
    generated, reference = _pair(n=1)
    with pytest.raises(MetricError, match="too few"):
        create("metric", name).scores(generated, reference)


def test_references_come_back_from_files(tmp_path):
    _, reference = _pair()
    made = reference_from_features(reference.features, "abc")
    save_reference(made, tmp_path / "r.npz")
    back = load_reference(tmp_path / "r.npz")
    assert back.digest == "abc"
    assert back.moments["pool"].count == 400
    np.testing.assert_array_equal(back.moments["pool"].covariance, made.moments["pool"].covariance)
    save_statistics(tmp_path / "s.npz", made, "adm")
    read = open_statistics(tmp_path / "s.npz").reference
    np.testing.assert_array_equal(read.moments["spatial"].mean, made.moments["spatial"].mean)
