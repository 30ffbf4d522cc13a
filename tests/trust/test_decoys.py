"""Decoys under a suite's protocol: what each is, and that a metric they fool is flagged."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.core.yaml_source import read_yaml, validate
from cmbench.record.schema import Record, ScoreRecord
from cmbench.report.board import Board
from cmbench.report.leaderboard import as_markdown
from cmbench.report.ranks import decoy_lines, rank_text
from cmbench.samplers.base import BoundGenerator
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import DECOYS, Suite

SUITE = """\
suite: fooled
dataset: digits
images: {count: 40}
features: digits_classifier
metrics: [frechet_distance]
decoys: DECOYS
runs:
  - {model: oracle/consistency, sampler: multistep, nfe: [1]}
"""


def _plan(folder: Path, decoys: str, **changes: str):  # type: ignore[no-untyped-def]
    text = SUITE.replace("DECOYS", decoys)
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "s.yaml").write_text(text)
    source = read_yaml(folder / "s.yaml")
    return make_plan(validate(source, Suite), source)


def test_a_suite_asks_for_all_or_some(tmp_path):
    labels = [c.label for c in _plan(tmp_path, "true").cells[1:]]
    assert labels == [f"decoy: {name.replace('_', ' ')}" for name in DECOYS]
    assert len(_plan(tmp_path, "[real, jpeg]").cells) == 3
    assert len(_plan(tmp_path, "false").cells) == 1
    honest, fraud = _plan(tmp_path, "[noise]").cells
    assert honest.scores[0].protocol == fraud.scores[0].protocol


def test_a_data_set_without_a_held_out_split_waits(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    place = f"dataset: {{name: images, path: {tmp_path}/x.npy, channels: 1}}"
    plan = _plan(tmp_path, "[real, train]", **{"dataset: digits": place})
    assert "no held-out split" in str(plan.cells[1].pending)
    assert plan.cells[2].pending is None


def _made(form: str, count: int = 200) -> np.ndarray:
    split = "test" if form == "real" else "train"
    spec = {"name": "decoy", "form": form, "dataset": {"name": "digits", "split": split}}
    generator = BoundGenerator(create("model", spec).build(), create("sampler", "oneshot"))
    images = generator.generate(Noise(0, range(count), generator.shape))
    again = generator.generate(Noise(0, [7], generator.shape))
    torch.testing.assert_close(again[0], images[7])
    return ((images + 1) * 127.5).round().byte().numpy()


def _images(split: str) -> np.ndarray:
    held = create("dataset", {"name": "digits", "split": split}).open()
    return held.pixels(range(len(held)))


def _rows(pixels: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in pixels}


def test_each_decoy_is_what_it_says():
    train, test = _rows(_images("train")), _rows(_images("test"))
    assert _rows(_made("real")) <= test
    assert _rows(_made("train")) <= train
    copies = _rows(_made("memoriser", 1000))
    assert copies <= train
    assert len(copies) <= 143
    labels = create("dataset", "digits").open().labels()
    kept = _rows(_images("train")[labels <= 4])
    assert _rows(_made("mode_dropper")) <= kept
    for form in ("blurred", "jpeg", "noise"):
        assert not _rows(_made(form)) & train
    rough = [np.abs(np.diff(_made(f).astype(int), axis=-1)).mean() for f in ("blurred", "train")]
    assert rough[0] < 0.7 * rough[1]
    assert _made("noise").mean() == pytest.approx(127.5, abs=3)


def test_the_gaussian_decoy_has_the_mean_and_covariance_of_the_pixels():
    spec = {"name": "decoy", "form": "gaussian", "dataset": "digits"}
    latents = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    made = create("model", spec).build()(latents).flatten(1).double()  # before it is clipped
    real = torch.from_numpy(_images("train").reshape(-1, 64) / 127.5 - 1)
    wide = real.std(0).max()
    assert (made.mean(0) - real.mean(0)).abs().max() < 0.03 * wide
    error = torch.cov(made.T) - torch.cov(real.T)
    assert error.abs().max() < 0.05 * wide**2


def _record(label: str, family: str, value: float, error: float = 0.1) -> Record:
    score = ScoreRecord(name="fd", title="FD", value=value, error=error, count=10,
                        interval=(value - 1.96 * error, value + 1.96 * error),
                        higher_is_better=False, fingerprint="f", protocol={})  # fmt: skip
    return Record(suite="s", suite_version=1, cell=label, status="done", label=label,
                  model=f"{family}/{label}", family=family, nfe=1, seed=0, images=10,
                  scores=[score])  # fmt: skip


def test_a_metric_that_a_decoy_fools_is_flagged_and_ties_are_ties():
    records = [_record("a", "edm", 1.0), _record("b", "edm", 1.1), _record("c", "edm", 5.0),
               _record("train", "decoy", 0.2), _record("blurred", "decoy", 3.0),
               _record("noise", "decoy", 50.0), _record("real", "decoy", 0.5)]  # fmt: skip
    board = Board("s", "s", records, {})
    assert board.column_ranks(board.columns[0]) == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    told = decoy_lines(board)
    assert "FD ranks the decoy 'train' above 3 of 3 models" in told
    assert "FD ranks the decoy 'blurred' above 1 of 3 models" in told
    assert "noise" not in told
    assert "real images score 0.5" in told
    assert "| a | 1 | 1–2 |" in rank_text(board)
    assert told in as_markdown(board)
