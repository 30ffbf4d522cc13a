"""Images made elsewhere: the same numbers as peers' arithmetic, and every fault named."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cmbench.cli.main import app
from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.engine.context import JobContext
from cmbench.external.containers import ImageStream
from cmbench.external.score import metric_specs, score_images
from cmbench.metrics.frechet.distance import moment_distance
from cmbench.metrics.frechet.moments import moments_of_rows
from cmbench.store.store import Store

CPU = torch.device("cpu")


@pytest.fixture
def pixels() -> np.ndarray:
    """40 colour images of 12 x 10."""
    return np.random.default_rng(0).integers(0, 256, (40, 3, 12, 10), dtype=np.uint8)


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    return JobContext(Store(tmp_path / "cache"), CPU)


def _folder(root: Path, pixels: np.ndarray) -> Path:
    root.mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(root / f"{i:05d}.png")
    return root


def _containers(root: Path, pixels: np.ndarray) -> list[Path]:
    folder = _folder(root / "folder", pixels)
    with zipfile.ZipFile(root / "z.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
        archive.writestr("dataset.json", '{"labels": null}')
    np.savez(root / "a.npz", arr_0=pixels.transpose(0, 2, 3, 1))
    np.savez_compressed(root / "c.npz", samples=pixels.transpose(0, 2, 3, 1))
    np.save(root / "n.npy", pixels)
    return [folder, root / "z.zip", root / "a.npz", root / "c.npz", root / "n.npy"]


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_every_container_streams_the_same_pixels(tmp_path, pixels, batch):
    digests = set()
    for path in _containers(tmp_path, pixels):
        stream = ImageStream(path)
        blocks = list(stream.batches(batch))
        assert max(map(len, blocks)) == min(batch, 40)
        np.testing.assert_array_equal(np.concatenate(blocks), pixels)
        assert (stream.total, stream.size, stream.channels) == (40, (12, 10), 3)
        digests.add(stream.digest)
    assert len(digests) == 1


@pytest.mark.parametrize("fault", ["size", "mode", "corrupt", "transparent", "16-bit"])
def test_a_bad_image_is_named_counted_refused_and_skipped(tmp_path, pixels, context, fault):
    folder = _folder(tmp_path / "f", pixels)
    bad = folder / "00007.png"
    if fault == "size":
        Image.new("RGB", (10, 13)).save(bad)
    elif fault == "mode":
        Image.new("L", (10, 12)).save(bad)
    elif fault == "transparent":
        Image.new("RGBA", (10, 12)).save(bad)
    elif fault == "16-bit":
        Image.new("I;16", (10, 12)).save(bad)
    else:
        bad.write_bytes(bad.read_bytes()[:60])
    (folder / "notes.txt").write_text("no image")
    arguments = {"features": ["pixels"], "metrics": metric_specs(["vendi"])}
    kind = fault if fault in ("size", "corrupt") else "mode"
    with pytest.raises(UserError, match=rf"1 of 40 images .*\(1 {kind}\)") as told:
        score_images(folder, _reference(tmp_path, pixels), context, **arguments)
    assert "00007.png" in str(told.value)
    found = score_images(folder, _reference(tmp_path, pixels), context, skip_bad=True, **arguments)
    assert [(b.name, b.fault) for b in found.bad] == [("00007.png", kind)]
    assert (found.images, found.ignored, found.scores[0].count) == (39, 1, 39)
    alone = create("metric", "vendi").scores(_features(np.delete(pixels, 7, 0)), None)["vendi"]
    assert found.scores[0].value == pytest.approx(alone.value, rel=1e-12)


def _features(pixels: np.ndarray):  # type: ignore[no-untyped-def]
    from cmbench.metrics.base import Features

    extractor = create("features", "pixels").build(CPU)
    layers = extractor(torch.from_numpy(pixels))
    return Features({k: v.numpy() for k, v in layers.items()})


def _reference(root: Path, pixels: np.ndarray) -> Path:
    """A file as pytorch-fid writes it, of other images."""
    other = np.random.default_rng(9).integers(0, 256, (500, pixels[0].size)) / 255
    path = root / "stats.npz"
    np.savez(path, mu=other.mean(0), sigma=np.cov(other, rowvar=False))
    return path


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_the_numbers_are_those_of_peers_on_the_same_features(tmp_path, context):
    """Fewer dimensions than images, so that pytorch-fid's root is at its best."""
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    draw = np.random.default_rng(1)
    own = draw.integers(0, 200, (300, 1, 4, 4), dtype=np.uint8)
    other = draw.integers(0, 256, (400, 1, 4, 4), dtype=np.uint8)
    folder = _folder(tmp_path / "f", own)
    np.savez(tmp_path / "adm.npz", arr_0=other.transpose(0, 2, 3, 1))
    found = score_images(
        folder, tmp_path / "adm.npz", context, features=["pixels"],
        metrics=metric_specs(["frechet_distance", "kid:subsets=3,subset_size=100", "precision_recall"]),
        batch=37,
    )  # fmt: skip
    x, y = (torch.from_numpy(p.reshape(len(p), -1) / 255).float() for p in (own, other))
    values = {s.name: s.value for s in found.scores}
    moments = [
        (f.double().numpy().mean(0), np.cov(f.double().numpy(), rowvar=False)) for f in (x, y)
    ]
    peer = calculate_frechet_distance(*moments[0], *moments[1])
    assert values["frechet_distance"] == pytest.approx(peer, rel=1e-8)
    fidelity = fid_statistics_to_metric(*map(fid_features_to_statistics, (x, y)), False)
    assert values["frechet_distance"] == pytest.approx(
        fidelity["frechet_inception_distance"], rel=1e-5
    )
    kid = kid_features_to_metric(x, y, kid_subsets=3, kid_subset_size=100, verbose=False)
    assert values["kid"] == pytest.approx(kid["kernel_inception_distance_mean"], abs=2e-6)
    prc = prc_features_to_metric(x, y, verbose=False)
    assert values["precision"] == pytest.approx(prc["precision"], abs=1e-6)
    assert values["recall"] == pytest.approx(prc["recall"], abs=1e-6)


def test_the_command_prints_a_table_and_json(tmp_path):
    images = create("dataset", "digits").open()
    np.save(tmp_path / "x.npy", np.concatenate([images.pixels(range(0, 200))] * 2))
    arguments = ["score", "--images", str(tmp_path / "x.npy"), "--reference", "digits",
                 "--features", "digits_classifier,pixels", "--metrics", "frechet_distance",
                 "--metrics", "inception_score:splits=2@digits_classifier", "--quiet",
                 "--device", "cpu"]  # fmt: skip
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    for text in (
        "FD-digits",
        "FD-pixels",
        "95% interval",
        "200 images are exact duplicates of an earlier one",
    ):
        assert text in shown.output
    held = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert (held["images"], held["duplicates"], held["shape"]) == (400, 200, [1, 8, 8])
    assert [s["name"] for s in held["scores"]] == [
        "frechet_distance", "inception_score", "frechet_distance"
    ]  # fmt: skip
    # The suite's own way: all in one piece, and the reference's specification is the suite's.
    from cmbench import evaluate

    table = evaluate(images.pixels([*range(200)] * 2), reference="digits", device="cpu",
                     features="digits_classifier", metrics=["frechet_distance"])  # fmt: skip
    assert held["scores"][0]["value"] == pytest.approx(table.loc["FD-digits", "value"], rel=1e-6)
    assert held["scores"][0]["protocol"]["reference"]["data"] == images.fingerprint()


def test_what_can_t_be_scored_is_told(tmp_path, context, pixels):
    np.save(tmp_path / "f.npy", pixels / 255)
    with pytest.raises(UserError, match="float64"):
        score_images(tmp_path / "f.npy", "digits", context, features=["pixels"])
    np.savez(tmp_path / "a.npz", arr_0=pixels)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        list(ImageStream(tmp_path / "a.npz").batches(8))
    np.save(tmp_path / "o.npy", pixels)
    with pytest.raises(UserError, match="1 of|images are"):
        score_images(tmp_path / "o.npy", "digits", context, features=["pixels"])
    with pytest.raises(UserError, match="does not exist"):
        score_images(tmp_path / "none", "digits", context, features=["pixels"])
    with pytest.raises(UserError, match="reads layer 'logits'"):
        score_images(tmp_path / "o.npy", "digits", context, features=["pixels"],
                     metrics=metric_specs(["inception_score"]))  # fmt: skip


@pytest.mark.parametrize("form", ["npz", "folders", "numbers"])
def test_a_class_is_scored_against_its_own_reference(tmp_path, context, form):
    train, test = (
        create("dataset", {"name": "digits", "split": split}).open() for split in ("train", "test")
    )
    pixels, labels = test.pixels(range(len(test))), test.labels()
    path = tmp_path / ("x.npz" if form == "npz" else "x")
    if form == "npz":
        np.savez(path, arr_0=pixels.transpose(0, 2, 3, 1), arr_1=labels)
    else:
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            folder = path / (f"{label}" if form == "numbers" else f"class {label}")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(folder / f"{i:04}.png")
    found = score_images(path, "digits", context, features=["digits_classifier"], per_class=True)
    assert sorted(found.classes) == list(range(10))
    net = create("features", "digits_classifier").build(torch.device("cpu"))

    def pool(images, which):
        chosen = images.pixels(np.flatnonzero(images.labels() == which))
        return net(torch.from_numpy(chosen))["pool"].numpy()

    for label in (0, 7):
        records = {r.name: r for r in found.classes[label]}
        one, two = (moments_of_rows(pool(images, label)) for images in (test, train))
        expected = moment_distance(one, two)
        # The reference keeps its features in float16.
        assert records["frechet_distance"].value == pytest.approx(expected, rel=1e-3)
        assert records["precision"].count == int((labels == label).sum())
    prints = {r.fingerprint for rows in found.classes.values() for r in rows}
    assert not prints & {r.fingerprint for r in found.scores}


def test_classes_without_labels_are_told(tmp_path, context):
    images = create("dataset", "digits").open().pixels(range(20)).transpose(0, 2, 3, 1)
    np.savez(tmp_path / "a.npz", arr_0=images)
    with pytest.raises(UserError, match="holds no labels"):
        score_images(tmp_path / "a.npz", "digits", context, features=["pixels"], per_class=True)
    np.savez(tmp_path / "b.npz", arr_0=images, arr_1=np.arange(20) % 11)
    with pytest.raises(UserError, match="no class 10"):
        score_images(tmp_path / "b.npz", "digits", context, features=["pixels"], per_class=True,
                     metrics=metric_specs(["frechet_distance"]))  # fmt: skip
    folder = _folder(tmp_path / "flat", images.transpose(0, 3, 1, 2))
    with pytest.raises(UserError, match="class's folder"):
        score_images(folder, "digits", context, features=["pixels"], per_class=True)
