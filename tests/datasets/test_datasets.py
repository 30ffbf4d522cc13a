"""Data sets: equal pixels have equal fingerprints in every container; faults name the file."""

import gzip
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import create
from cmbench.datasets._pictures import read_pictures


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)


def png(image):
    out = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(out, format="PNG")
    return out.getvalue()


def as_zip(path, pixels, labels=None):
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(pixels):
            archive.writestr(f"00000/img{i:08d}.png", png(image))
        if labels is not None:
            rows = [[f"00000/img{i:08d}.png", int(v)] for i, v in enumerate(labels)]
            archive.writestr("dataset.json", json.dumps({"labels": rows}))
    return path


def as_folder(path, pixels):
    path.mkdir()
    for i, image in enumerate(pixels):
        (path / f"{i:05d}.png").write_bytes(png(image))
    return path


def as_parquet(path, pixels):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": png(image), "path": None} for image in pixels]
    pq.write_table(pa.table({"img": rows}), path)
    return path


def test_equal_pixels_have_equal_fingerprints(tmp_path, pixels):
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "a.npz", arr_0=pixels.transpose(0, 2, 3, 1))
    places = [as_zip(tmp_path / "a.zip", pixels), as_folder(tmp_path / "a", pixels),
              tmp_path / "a.npy", tmp_path / "a.npz",
              as_parquet(tmp_path / "a.parquet", pixels)]  # fmt: skip
    sets = [create("dataset", "images").open(place) for place in places]
    assert len({s.fingerprint() for s in sets}) == 1
    assert all(np.array_equal(s.pixels([3, 1]), pixels[[3, 1]]) for s in sets)


def test_cifar_batches_are_read_as_data(tmp_path, pixels):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {b"data": pixels.reshape(10, -1), b"labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(batch))
    opened = create("dataset", {"name": "cifar10", "subset": True}).open(tmp_path)
    assert len(opened) == 50
    assert np.array_equal(opened.pixels([13])[0], pixels[3])
    zipped = as_zip(tmp_path / "t.zip", pixels, labels=range(10))
    test = create("dataset", {"name": "cifar10", "split": "test", "subset": True})
    assert test.open(zipped).fingerprint() == test.open(tmp_path).fingerprint()


def test_a_pickle_with_code_is_refused_and_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    class Harm:
        def __reduce__(self):
            return (eval, ("1/0",))

    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError, match=r"builtins\.eval"):
        create("dataset", "cifar10").open(tmp_path)


def test_faults_name_the_file(tmp_path, pixels):
    broken = as_zip(tmp_path / "broken.zip", pixels)
    with zipfile.ZipFile(broken, "a") as archive:
        archive.writestr("00000/zzz.png", png(pixels[0])[:60])
    with pytest.raises(UserError, match=r"zzz\.png is not an intact image"):
        create("dataset", "images").open(broken)
    mixed = as_folder(tmp_path / "mixed", pixels)
    (mixed / "z.png").write_bytes(png(pixels[0][:, :16, :16]))
    with pytest.raises(UserError, match=r"1 of 11 are not 32x32 .*z\.png \(16x16\)"):
        create("dataset", "images").open(mixed)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        create("dataset", "images").open(tmp_path / "empty")
    whole = as_zip(tmp_path / "whole.zip", pixels).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole zip"):
        create("dataset", "images").open(tmp_path / "cut.zip")
    np.savez(tmp_path / "f.npz", arr_0=pixels.astype(np.float32))
    with pytest.raises(UserError, match="no uint8 images"):
        create("dataset", "images").open(tmp_path / "f.npz")
    with pytest.raises(UserError, match="expected: CIFAR-10"):
        create("dataset", "cifar10").open(as_zip(tmp_path / "s.zip", pixels[:, :, :8, :8]))


def test_arrays_are_not_changed_in_silence(tmp_path, pixels):
    np.save(tmp_path / "a.npy", pixels)
    with pytest.raises(UserError, match="not resized"):
        create("dataset", {"name": "images", "size": 8}).open(tmp_path / "a.npy")
    with pytest.raises(UserError, match="3 channels"):
        create("dataset", {"name": "images", "channels": 1}).open(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", arr_0=pixels, arr_1=np.arange(4))
    with pytest.raises(UserError, match="4 labels for 10 images"):
        create("dataset", "images").open(tmp_path / "b.npz")


def test_resizing_is_explicit(tmp_path, pixels):
    folder = as_folder(tmp_path / "a", pixels)
    (folder / "wide.png").write_bytes(png(np.zeros((3, 20, 40), np.uint8)))
    made = create("dataset", {"name": "images", "size": 16}).open(folder)
    assert made.shape == (3, 16, 16)
    assert len(made) == 11


def test_missing_data_says_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Pending, match=r"torchvision\.datasets\.CIFAR10.*--data cifar10=PATH"):
        create("dataset", "cifar10").open()
    with pytest.raises(Pending, match="FashionMNIST"):
        create("dataset", "fashion_mnist").open()


def test_fashion_mnist_idx(tmp_path):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(1).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in images.shape)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
    labels = bytes([0, 0, 8, 1]) + (5).to_bytes(4, "big") + bytes(range(5))
    (raw / "train-labels-idx1-ubyte").write_bytes(labels)
    made = create("dataset", {"name": "fashion_mnist", "subset": True}).open(tmp_path)
    assert made.shape == (1, 32, 32)
    assert np.array_equal(made.pixels(range(5))[:, 0, 2:-2, 2:-2], images)
    assert made.labels().tolist() == [0, 1, 2, 3, 4]


def test_digits_splits_are_disjoint_and_complete():
    parts = {s: create("dataset", {"name": "digits", "split": s}).open()
             for s in ("train", "test", "all")}  # fmt: skip
    assert (len(parts["train"]), len(parts["test"]), len(parts["all"])) == (1438, 359, 1797)
    test = parts["test"].pixels(range(359))
    assert np.array_equal(test, parts["all"].pixels(range(4, 1797, 5)))
    assert parts["all"].pixels(range(1797)).max() == 255


def test_a_real_cifar10_zip(cifar10_zip):
    opened = create("dataset", {"name": "cifar10", "split": "test"}).open(cifar10_zip)
    assert len(opened) == 10_000
    assert sorted(np.bincount(opened.labels())) == [1000] * 10


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_refused_and_opaque_ones_read(tmp_path, mode):
    folder = tmp_path / "pictures"
    folder.mkdir()
    opaque = Image.new("RGB", (4, 4), (10, 20, 30)).convert("RGBA")
    opaque.save(folder / "a.png")
    assert read_pictures(folder).pixels[0, :, 0, 0].tolist() == [10, 20, 30]
    if mode == "P":
        Image.new("P", (4, 4)).save(folder / "b.png", transparency=0)
    else:
        hidden = opaque.copy()
        hidden.putpixel((1, 1), (0, 0, 0, 7))
        hidden.convert(mode).save(folder / "b.png")
    with pytest.raises(UserError, match=r"b\.png has transparent pixels"):
        read_pictures(folder)
