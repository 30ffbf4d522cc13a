"""The notebook functions give what the suite's own path gives, and tell mistakes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cmbench
from cmbench.core.errors import UserError
from cmbench.core.images import to_pixels
from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.metrics.base import Features
from cmbench.metrics.statistics.file import reference_from_features, save_compact_reference
from cmbench.samplers.base import BoundGenerator


def test_importing_cmbench_brings_no_torch() -> None:
    code = "import sys, cmbench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_samples_are_the_engine_s_and_do_not_depend_on_the_batch() -> None:
    model = cmbench.load_model("oracle/consistency", device="cpu")
    made = model.sample(10, nfe=2, seed=3, batch=4)
    assert made.nfe == 2
    sampler = create("sampler", made.sampler)
    generator = BoundGenerator(model.module, sampler)
    direct = to_pixels(generator.generate(Noise(3, range(10), generator.shape)), "round")
    np.testing.assert_array_equal(made.pixels, direct.numpy())
    assert "<img" in made._repr_html_()


def test_saved_samples_are_as_adm_reads_them(tmp_path: Path) -> None:
    made = cmbench.load_model("oracle/digits", device="cpu").sample(5, nfe=3)
    made.save(tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as held:
        assert held["arr_0"].shape == (5, 8, 8, 1)
        np.testing.assert_array_equal(held["arr_0"][..., 0], made.pixels[:, 0])


def test_a_strip_has_a_row_for_each_sampling_and_a_column_for_each_image() -> None:
    model = cmbench.load_model("oracle/digits", device="cpu")
    rows = [model.sample(5, nfe=nfe, sampler="euler") for nfe in (1, 4, 9)]
    picture = np.asarray(cmbench.strip(rows, columns=4, zoom=2))
    pitch = 2 * (8 + 1)  # eight pixels and a gap, each drawn twice as wide and high
    assert picture.shape[0] == 3 * pitch - 2
    drawn = picture[:, picture.shape[1] - (4 * pitch - 2) :]
    for i, samples in enumerate(rows):
        for j in range(4):
            tile = drawn[i * pitch : i * pitch + 16 : 2, j * pitch : j * pitch + 16 : 2, 0]
            np.testing.assert_array_equal(tile, samples.pixels[j, 0])


def test_a_strip_of_unlike_images_or_of_none_is_refused() -> None:
    small = cmbench.Samples(np.zeros((2, 1, 8, 8), np.uint8), 1, "a", {"name": "euler"}, 0)
    large = cmbench.Samples(np.zeros((2, 3, 32, 32), np.uint8), 1, "b", {"name": "euler"}, 0)
    for rows in ([], [small, large]):
        with pytest.raises(UserError, match="one size"):
            cmbench.strip(rows)


def test_evaluate_gives_the_metrics_own_numbers() -> None:
    images = create("dataset", "digits").open()
    half = images.pixels(range(0, 400))
    table = cmbench.evaluate(
        half, reference="digits", features="pixels", metrics=["frechet_distance"], device="cpu"
    )
    rows = half.reshape(400, -1) / 255.0
    everything = images.pixels(range(len(images))).reshape(len(images), -1) / 255.0
    a, b = np.cov(rows.T), np.cov(everything.T)
    root = np.linalg.eigvals(a @ b).astype(complex) ** 0.5
    expected = ((rows.mean(0) - everything.mean(0)) ** 2).sum() + np.trace(a + b)
    expected -= 2 * root.real.sum()
    assert table.loc["FD-pixels", "value"] == pytest.approx(expected, rel=1e-4)
    assert table.loc["FD-pixels", "low"] < table.loc["FD-pixels", "value"]


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no weights yet"):
        cmbench.load_model("edm/digits")
    with pytest.raises(UserError, match="uint8"):
        cmbench.evaluate(torch.zeros(4, 1, 8, 8).numpy(), reference="digits")
    with pytest.raises(UserError, match="holds no results"):
        cmbench.results(tmp_path)


def test_results_are_one_row_a_score() -> None:
    folder = Path(__file__).parents[2] / "results" / "digits_nfe"
    table = cmbench.results(folder)
    assert {"label", "nfe", "metric", "value", "low", "high"} <= set(table.columns)
    assert len(table) == sum(1 for _ in (folder / "records").glob("*.json")) * len(
        table.metric.unique()
    )


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((4, 8, 8, 3), np.uint8), r"transpose\(0, 3, 1, 2\)"),
        (np.zeros((4, 4, 8, 8), np.uint8), "1 or 3 channels"),
        (np.zeros((0, 1, 8, 8), np.uint8), "no images"),
        (np.zeros((4, 1, 0, 8), np.uint8), "no images"),
        ([[1, 2]], "images are a list"),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), "images are a Tensor"),
        (np.zeros((4, 3, 8, 8), np.uint8), "3 channels, a reference of 1"),
        (np.zeros((4, 1, 9, 8), np.uint8), "images of 9x8"),
    ],
)
def test_evaluate_refuses_what_the_command_refuses(images: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        cmbench.evaluate(images, reference="digits", features="pixels", device="cpu")


def test_evaluate_compares_what_a_reference_was_made_of(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    made = {"extractor": {"name": "pixels", "size": 99}, "weights": "0" * 64}
    moments = cmbench_moments(images)
    save_compact_reference(moments, tmp_path / "ref.npz", made_of=made, keep=50)
    with pytest.raises(UserError, match="was made with another extractor"):
        cmbench.evaluate(images, reference=tmp_path / "ref.npz", features="pixels", device="cpu")
    with pytest.raises(UserError, match="reads layer 'logits'"):
        cmbench.evaluate(
            images, reference="digits", features="pixels", metrics=["inception_score"]
        )


def cmbench_moments(images: np.ndarray) -> Any:
    rows = create("features", "pixels").build(torch.device("cpu"))(torch.from_numpy(images))
    return reference_from_features(Features({k: v.numpy() for k, v in rows.items()}), "x")


def test_evaluate_takes_the_references_that_score_takes(tmp_path: Path) -> None:
    """A folder, another evaluator's file and a named data set: one number."""
    images = create("dataset", {"name": "digits", "split": "test"}).open().pixels(range(300))
    reference = create("dataset", "digits").open()
    pixels = reference.pixels(range(len(reference)))
    for i, image in enumerate(pixels):
        Image.fromarray(image[0]).save(tmp_path / f"{i:05}.png")
    rows = pixels.reshape(len(pixels), -1) / 255
    file = tmp_path / "fid.npz"
    np.savez(file, mu=rows.mean(0), sigma=np.cov(rows, rowvar=False))
    file = file.rename(tmp_path.parent / f"{tmp_path.name}.npz")
    values = [
        cmbench.evaluate(
            images, reference=given, features="pixels", metrics=["frechet_distance"], device="cpu"
        ).loc["FD-pixels", "value"]
        for given in ("digits", {"name": "digits"}, tmp_path, str(tmp_path), file)
    ]
    assert values == pytest.approx([values[0]] * 5, rel=1e-5)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 4, "seed": -1}, {"count": 4, "batch": 0},
                                   {"count": 4, "seed": 2**64}, {"count": 2.5}])  # fmt: skip
def test_sample_refuses_numbers_out_of_range(wrong: dict[str, Any]) -> None:
    model = cmbench.load_model("oracle/consistency", device="cpu")
    with pytest.raises(UserError, match="expected: a whole number"):
        model.sample(**wrong)
