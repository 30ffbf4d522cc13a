"""Memory that does not suffice: the batch is halved, and the samples stay as they were."""

import json
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


GUIDED = '''\
"""Guided: every evaluation of the sampler is a doubled batch of the network."""
import torch
from cmbench.api import Denoiser, Model

__all__ = ["Guided"]


class Doubled(Denoiser):
    def __init__(self):
        super().__init__((1, 8, 8))
        self.net = torch.nn.Conv2d(1, 1, 3, padding=1)

    def networks(self):
        return [self.net]

    def forward(self, x, sigma, labels=None):
        once, twice = self.net(torch.cat([x, x]).float()).chunk(2)
        return 0.1 * (2 * once - twice).to(x.dtype)


class Guided(Model):
    def build(self):
        torch.manual_seed(0)
        return Doubled().eval()
'''


def guided(folder: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> dict:
    """Facts of a guided model's samples, under `nfe` or `steps`."""
    (folder / "models").mkdir()
    (folder / "models" / "guided.py").write_text(GUIDED)
    (folder / "g.yaml").write_text(
        "suite: g\ndataset: digits\nimages: {count: 4}\nfeatures: pixels\n"
        f"metrics: [frechet_distance]\nruns:\n  - {{model: guided, sampler: euler, {asked}}}\n"
    )
    monkeypatch.chdir(folder)
    plan = make_plan(*read_suite("g.yaml"))
    context = JobContext(Store(folder / "cache"), torch.device("cpu"))
    engine = LocalEngine(context, PlainProgress(Console(quiet=True), 0))
    shard = plan.cells[0].shards[0]
    engine.make(plan, shard)
    return json.loads((context.store.folder(shard) / "facts.json").read_text())


def test_an_nfe_that_the_model_does_not_spend_fails_with_both_numbers(tmp_path, monkeypatch):
    with pytest.raises(JobFailedError, match="nfe: 3 was asked for, 6 evaluations per image"):
        guided(tmp_path, monkeypatch, "nfe: 3")


def test_a_doubled_batch_counts_twice_and_its_operations_once_each(tmp_path, monkeypatch):
    facts = guided(tmp_path, monkeypatch, "steps: 3")
    assert facts["nfe"] == 6
    assert facts["flops_per_evaluation"] == 2 * 9 * 8 * 8


def test_evaluations_of_a_batch_that_did_not_fit_do_not_count(tmp_path, monkeypatch):
    own, failed = BoundGenerator.generate, []

    def generate(self, noise, labels=None):
        images = own(self, noise, labels)
        if len(noise) > 2 and not failed:
            failed.append(len(noise))
            raise torch.cuda.OutOfMemoryError("fake")
        return images

    monkeypatch.setattr(BoundGenerator, "generate", generate)
    assert guided(tmp_path, monkeypatch, "steps: 3")["nfe"] == 6
    assert failed == [4]
