"""Classes of images made elsewhere: names by name, numbers by value, on both sides."""

import io
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cmbench.cli.main import main
from cmbench.core.errors import UserError
from cmbench.engine.context import JobContext
from cmbench.external.score import metric_specs, score_images
from cmbench.metrics.frechet.distance import moment_distance
from cmbench.metrics.frechet.moments import moments_of_rows
from cmbench.store.store import Store

FRECHET = {"features": ["pixels"], "metrics": metric_specs(["frechet_distance"])}


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    return JobContext(Store(tmp_path / "cache"), torch.device("cpu"))


def tree(root: Path, levels: dict[str, int], seed: int, count: int = 12) -> dict[str, np.ndarray]:
    """Folders of noise around a grey level each; returns the rows of each in [0, 1]."""
    draw, rows = np.random.default_rng(seed), {}
    for name, value in levels.items():
        (root / name).mkdir(parents=True)
        images = (value + draw.integers(0, 9, (count, 2, 2))).astype(np.uint8)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{i:03}.png")
        rows[name] = images.reshape(count, -1) / 255
    return rows


def scored(found, name: str) -> float:  # type: ignore[no-untyped-def]
    label = next(k for k, shown in found.class_names.items() if shown == name)
    return next(r.value for r in found.classes[label] if r.name == "frechet_distance")


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ([str(i) for i in range(12)], [str(i) for i in range(12)]),
        (["cat", "dog"], ["airplane", "cat", "dog"]),
        (["cat", "dog"], ["b/cat", "b/dog", "b/emu"]),
        ([f"class {i}" for i in range(8, 12)], [f"{i:03}" for i in range(12)]),
    ],
)
def test_a_class_is_compared_with_its_namesake(tmp_path, context, given, known):
    """Equal classes are near, whatever their places; the values are those of plain moments."""
    place = {name.split("/")[-1]: i for i, name in enumerate(known)}
    place |= {f"class {i}": i for i in range(12)}
    theirs = tree(tmp_path / "ref", {n: 15 * i for i, n in enumerate(known)}, seed=1)
    theirs = {n.split("/")[-1]: rows for n, rows in theirs.items()}
    own = tree(tmp_path / "gen", {n: 15 * place[n] for n in given}, seed=2)
    found = score_images(
        tmp_path / "gen", str(tmp_path / "ref"), context, per_class=True, **FRECHET
    )
    for name in given:
        number = name.removeprefix("class ")
        against = theirs.get(name, theirs.get(number.zfill(3)))
        expected = moment_distance(moments_of_rows(own[name]), moments_of_rows(against))
        shown = number if number.isdigit() else name
        assert scored(found, shown) == pytest.approx(expected, rel=2e-2, abs=1e-4)
        assert expected < 0.01
    missing = len(known) - len(given)
    assert sum("no images of class" in text for text in found.skipped) == (missing > 0)


def test_classes_that_can_t_be_matched_are_named(tmp_path, context):
    tree(tmp_path / "ref", {"cat": 10, "dog": 60}, seed=1)
    tree(tmp_path / "gen", {"cat": 10, "dgo": 60}, seed=2)
    with pytest.raises(UserError, match="no class is named 'dgo'.*Did you mean 'dog'"):
        score_images(tmp_path / "gen", str(tmp_path / "ref"), context, per_class=True, **FRECHET)
    tree(tmp_path / "numbers", {"0": 10, "1": 60}, seed=1)
    with pytest.raises(UserError, match=r"classes are named \(cat, \.\.\.\).*numbers"):
        score_images(
            tmp_path / "ref", str(tmp_path / "numbers"), context, per_class=True, **FRECHET
        )


def test_a_class_of_one_image_costs_only_its_own_row(tmp_path, context):
    tree(tmp_path / "ref", {"a": 10, "b": 60, "c": 90}, seed=1)
    tree(tmp_path / "gen", {"a": 10, "b": 60}, seed=2)
    tree(tmp_path / "gen2", {"c": 90}, seed=3, count=1)
    (tmp_path / "gen2" / "c").rename(tmp_path / "gen" / "c")
    found = score_images(
        tmp_path / "gen", str(tmp_path / "ref"), context, per_class=True, **FRECHET
    )
    assert sorted(found.class_names.values()) == ["a", "b"]
    assert [text for text in found.skipped if text.startswith("class c: ")]


@pytest.mark.parametrize("odd", ["size", "mode"])
def test_the_size_of_most_images_decides(tmp_path, context, odd):
    """Three odd images come first; they are the ones left out."""
    draw = np.random.default_rng(0)
    for i in range(30):
        shape = (6, 6, 3) if odd == "size" else (8, 8)
        image = draw.integers(0, 256, shape if i < 3 else (8, 8, 3), dtype=np.uint8)
        (tmp_path / "gen").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "gen" / f"{i:03}.png")
    rows = draw.random((500, 192))
    np.savez(tmp_path / "ref.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
    with pytest.raises(UserError, match=rf"3 of 30 images .*\(3 {odd}\)"):
        score_images(tmp_path / "gen", tmp_path / "ref.npz", context, **FRECHET)
    found = score_images(tmp_path / "gen", tmp_path / "ref.npz", context, skip_bad=True, **FRECHET)
    assert (found.images, found.shape) == (27, (3, 8, 8))
    assert [bad.name for bad in found.bad] == ["000.png", "001.png", "002.png"]


def test_a_file_of_images_holds_its_size_against_the_images(tmp_path, context):
    np.savez(tmp_path / "ref.npz", arr_0=np.zeros((8, 16, 16, 3), np.uint8),
             mu=np.zeros(192), sigma=np.eye(192))  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", arr_0=images)
    with pytest.raises(UserError, match="8x8, not 16x16"):
        score_images(tmp_path / "x.npz", tmp_path / "ref.npz", context, **FRECHET)
    found = score_images(tmp_path / "x.npz", tmp_path / "ref.npz", context, size=(8, 8), **FRECHET)
    assert found.images == 20


def test_the_reference_is_read_by_the_same_checks(tmp_path, context):
    for name in ("whole", "deep"):
        tree(tmp_path / name, {"a": 10}, seed=1)
    Image.new("I;16", (2, 2)).save(tmp_path / "deep" / "a" / "zz.png")
    for images, reference in (("whole", "deep"), ("deep", "whole")):
        with pytest.raises(UserError, match=r"zz\.png.*I;16, not 8-bit"):
            score_images(tmp_path / images, str(tmp_path / reference), context, **FRECHET)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
@pytest.mark.parametrize("skip", [True, False])
def test_no_name_and_no_encoding_ends_the_command(tmp_path, monkeypatch, encoding, skip):
    """Output to a strict stream: names of bytes, line ends, arrows and dashes are escaped."""
    draw = np.random.default_rng(0)
    (tmp_path / "gen").mkdir()
    for i in range(30):
        image = Image.fromarray(draw.integers(0, 256, (2, 2), dtype=np.uint8))
        image.save(tmp_path / "gen" / f"{i}.png")
    for name in (b"m\xf10.png", b"line\nbreak.png", "\u4e2d.png".encode()):
        (tmp_path / "gen" / os.fsdecode(name)).write_bytes(b"no image")
    rows = draw.random((500, 4))
    np.savez(tmp_path / "ref.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
    command = ["cmbench", "score", "--images", str(tmp_path / "gen"), "--reference",
               str(tmp_path / "ref.npz"), "--features", "pixels", "--metrics",
               "frechet_distance", "--device", "cpu", "--quiet"]  # fmt: skip
    shown = {n: io.TextIOWrapper(io.BytesIO(), encoding, "strict") for n in ("stdout", "stderr")}
    for stream_name, stream in shown.items():
        monkeypatch.setattr(sys, stream_name, stream)
    monkeypatch.setattr(sys, "argv", command + ["--skip-bad"] * skip)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (0 if skip else 2)
    stream = shown["stdout" if skip else "stderr"]
    stream.flush()
    printed = stream.buffer.getvalue()
    assert b"line\\nbreak.png" in printed
    assert rb"m\udcf10.png" in printed
