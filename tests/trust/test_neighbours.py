"""Samples beside their nearest training images: copies are found and shown."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cmbench.cli.main import app
from cmbench.core.loader import create
from cmbench.metrics.neighbours.search import ranked


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """Six training images of the digits, and six held-out ones under noise."""
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path / "cache"))
    train, test = (
        create("dataset", {"name": "digits", "split": split}).open() for split in ("train", "test")
    )
    copies, others = train.pixels([3, 50, 100, 200, 300, 400]), test.pixels(range(6))
    noise = np.random.default_rng(0).normal(scale=25, size=others.shape)
    noisy = (others + noise).clip(0, 255).astype(np.uint8)
    np.save(tmp_path / "x.npy", np.concatenate([noisy, copies]))
    return tmp_path


def _run(folder, *more):
    return CliRunner().invoke(
        app,
        ["neighbours", "--images", str(folder / "x.npy"), "--reference", "digits", "--features",
         "digits_classifier", "--out", str(folder / "sheet.png"), "-q", *more],
    )  # fmt: skip


def test_copies_come_first_with_the_image_they_copy(samples):
    done = _run(samples, "--json", "--show", "8")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["images"] == 12
    assert 6 <= found["suspicious"] < 12
    assert found["identical"] == 6
    first = found["shown"][:6]
    assert {n["sample"]: n["nearest"][0] for n in first} == {
        6: 3, 7: 50, 8: 100, 9: 200, 10: 300, 11: 400,
    }  # fmt: skip
    assert all(n["distances"][0] == 0 and n["levels"] == 0 for n in first)
    assert all(n["levels"] > 0 for n in found["shown"][6:])
    with Image.open(samples / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("L"))
    # The sheet's first row: the sample and, a gap further, the very same picture.
    assert (pixels[2:66, 2:66] == pixels[2:66, 82:146]).all()
    assert np.ptp(pixels[2:66, 2:66]) > 100
    before = (samples / "sheet.png").read_bytes()
    assert "--overwrite" in str(_run(samples).exception)
    assert (samples / "sheet.png").read_bytes() == before
    assert "12 samples" in _run(samples, "--overwrite").output


def test_moments_hold_no_images(samples):
    np.savez(samples / "m.npz", mu=np.zeros(64), sigma=np.eye(64))
    done = CliRunner().invoke(
        app, ["neighbours", "--images", str(samples / "x.npy"), "--reference",
              str(samples / "m.npz"), "-q"],
    )  # fmt: skip
    assert done.exit_code != 0
    assert "holds no training images" in str(done.exception)


def test_ranks_are_those_of_all_distances():
    draw = np.random.default_rng(1)
    x, y = (draw.normal(size=(n, 5)).astype(np.float32) for n in (30, 70))
    squared, index = ranked(x, y, 4)
    every = ((x[:, None].astype(float) - y[None]) ** 2).sum(-1)
    assert (index == every.argsort(1)[:, :4]).all()
    assert squared == pytest.approx(np.sort(every, 1)[:, :4])
