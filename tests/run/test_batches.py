"""Memory that does not suffice: the batch is halved, and the samples stay as they were."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from cmbench.engine.context import JobContext
from cmbench.engine.job import JobFailedError
from cmbench.engine.local_engine import LocalEngine
from cmbench.engine.progress import PlainProgress
from cmbench.samplers.base import BoundGenerator
from cmbench.store.store import Store
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import read_suite

SUITE = """\
suite: batches
dataset: digits
images: {count: 21, shard: 13}
features: pixels
batch: 12
metrics: [frechet_distance]
runs:
  - {model: oracle/consistency, sampler: multistep_nested, nfe: [1, 2]}
"""


def pixels(folder: Path) -> list[np.ndarray]:
    """All samples of the suite, in the plan's order."""
    (folder / "batches.yaml").write_text(SUITE)
    plan = make_plan(*read_suite(str(folder / "batches.yaml")))
    context = JobContext(Store(folder / "cache"), torch.device("cpu"))
    engine = LocalEngine(context, PlainProgress(Console(quiet=True), 0))
    shards = [a for cell in plan.cells for a in cell.shards]
    for shard in shards:
        engine.make(plan, shard)
    return [np.load(context.store.folder(a) / "pixels.npy") for a in shards]


def short_of_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Batches above `most` fail as a GPU's do; returns the sizes that were tried."""
    own, tried = BoundGenerator.generate, []

    def generate(self, noise, labels=None):
        tried.append(len(noise))
        if len(noise) > most:
            raise torch.cuda.OutOfMemoryError("fake")
        return own(self, noise, labels)

    monkeypatch.setattr(BoundGenerator, "generate", generate)
    return tried


def test_the_batch_is_halved_until_it_fits_and_samples_stay(tmp_path, monkeypatch):
    roomy, tight = tmp_path / "a", tmp_path / "b"
    roomy.mkdir()
    tight.mkdir()
    whole = pixels(roomy)
    tried = short_of_memory(monkeypatch, 4)
    for a, b in zip(whole, pixels(tight), strict=True):
        assert np.array_equal(a, b)
    assert {12, 6, 3} <= set(tried)


def test_one_image_that_does_not_fit_fails_with_a_reason(tmp_path, monkeypatch):
    short_of_memory(monkeypatch, 0)
    with pytest.raises(JobFailedError, match="OutOfMemoryError"):
        pixels(tmp_path)
