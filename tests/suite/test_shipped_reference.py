"""Statistics shipped beside a suite: scores without the data set, and refusals."""

from pathlib import Path

import numpy as np
import pytest

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.core.yaml_source import read_yaml, validate
from cmbench.metrics.base import Features
from cmbench.metrics.statistics.file import (
    load_reference,
    read_made_of,
    reference_from_features,
    save_compact_reference,
)
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import Suite

SUITE = """\
suite: tiny
dataset: {{name: cifar10, split: train}}
images: {{count: 40}}
features: pixels
metrics: [frechet_distance, {{name: precision_recall, k: 3}}]
reference: {{files: {{pixels: {file}}}}}
runs:
  - model: edm/cifar10_small
    sampler: heun
    nfe: [3]
"""


def _shipped(path: Path, **changes: object) -> Features:
    extractor = create("features", "pixels")
    rows = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    features = Features({"pool": rows})
    made_of = {
        "dataset": {"name": "cifar10", "split": "train"},
        "data": "d" * 64,
        "extractor": extractor.spec(),
        "weights": extractor.weights_digest(),
        "count": 60,
    } | changes
    save_compact_reference(reference_from_features(features, ""), path, made_of=made_of, keep=20)
    return features


def _plan(folder: Path):  # type: ignore[no-untyped-def]
    path = folder / "tiny.yaml"
    path.write_text(SUITE.format(file="stats.npz"))
    source = read_yaml(path)
    return make_plan(validate(source, Suite), source)


def test_compact_file_keeps_all_moments_and_some_features(tmp_path: Path) -> None:
    features = _shipped(tmp_path / "stats.npz")
    read = load_reference(tmp_path / "stats.npz")
    rows = features.layers["pool"].astype(np.float64)
    assert read.moments["pool"].count == 60
    np.testing.assert_allclose(read.moments["pool"].covariance, np.cov(rows.T), rtol=1e-6)
    np.testing.assert_array_equal(
        read.moments["pool"].covariance, read.moments["pool"].covariance.T
    )
    assert read.features is not None
    kept = read.features.layers["pool"]
    assert kept.shape == (20, 12)
    np.testing.assert_allclose(kept[[0, -1]], rows[[0, -1]], rtol=1e-3)
    assert read_made_of(tmp_path / "stats.npz")["kept"] == 20


def test_a_suite_scores_without_its_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CMBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    _shipped(tmp_path / "stats.npz")
    plan = _plan(tmp_path)
    assert [s.pending for c in plan.cells for s in c.scores] == [None, None]
    assert plan.fingerprints == {"cifar10": "d" * 64}


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"extractor": {"name": "pixels", "size": 5}}, "extractor"), ({"weights": "0"}, "weights")],
)
def test_statistics_of_another_protocol_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    _shipped(tmp_path / "stats.npz", **changes)
    with pytest.raises(UserError, match=f"made with another {said}") as caught:
        _plan(tmp_path)
    assert "tiny.yaml:6" in str(caught.value)


def test_a_missing_statistics_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stats\.npz does not exist"):
        _plan(tmp_path)
