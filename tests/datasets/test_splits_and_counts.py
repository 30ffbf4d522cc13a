"""What is asked for (split, count, shape, classes) is held against what is read."""

import gzip
import json
from pathlib import Path

import numpy as np
import odd_containers as odd
import pytest
from PIL import Image

from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import create


def cifar(split: str, subset: bool = True):
    return create("dataset", {"name": "cifar10", "split": split, "subset": subset})


def tiny(value: int) -> bytes:
    return odd.coded(odd.level(value, size=(32, 32)))


def hub(root: Path) -> Path:
    """A hub's folder: 20 dark training images, 10 bright test images."""
    pytest.importorskip("pyarrow")
    for split, count, value in (("train", 20, 50), ("test", 10, 200)):
        cells = [{"bytes": tiny(value + i), "path": None} for i in range(count)]
        odd.rows(root / "plain_text" / f"{split}-00000-of-00001.parquet", cells, [1] * count)
    return root


@pytest.mark.parametrize(("split", "count", "first"), [("train", 20, 50), ("test", 10, 200)])
def test_parquet_files_are_read_by_their_split(tmp_path, split, count, first):
    opened = cifar(split).open(hub(tmp_path))
    assert len(opened) == count
    assert opened.pixels([0])[0, 0, 0, 0] == first
    folder = hub(tmp_path / "again") / "plain_text"
    only = next(folder.glob(f"{'test' if split == 'train' else 'train'}*"))
    only.unlink()
    assert len(cifar(split).open(folder.parent)) == count
    next(folder.glob("*")).rename(only)
    with pytest.raises(UserError, match=rf"not {split}"):
        cifar(split).open(folder.parent)


@pytest.mark.parametrize("split", ["train", "test"])
def test_image_folders_are_read_by_their_split(tmp_path, split):
    for name, value in (("train", 10), ("test", 200)):
        for label in ("dog", "cat"):
            odd.put(tmp_path / "set" / name / label / "0.png", tiny(value))
    opened = cifar(split).open(tmp_path)
    assert opened.pixels([0, 1])[:, 0, 0, 0].tolist() == [{"train": 10, "test": 200}[split]] * 2
    assert opened.labels().tolist() == [3, 5]  # By CIFAR-10's own names, not by place.


def test_a_part_of_a_split_is_read_only_when_it_is_asked_for(tmp_path):
    path = odd.zipped(tmp_path, {f"00000/img{i:08d}.png": tiny(i) for i in range(12)})
    with pytest.raises(
        UserError, match=r"holds 12 images(.|\n)*expected: 10,000(.|\n)*subset: true"
    ):
        cifar("test", subset=False).open(path)
    assert len(cifar("test").open(path)) == 12


def test_the_other_split_s_file_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMBENCH_DATA", str(tmp_path))
    path = odd.zipped(tmp_path, {"a.png": tiny(3)}).rename(tmp_path / "cifar10-32x32.zip")
    with pytest.raises(Pending):  # EDM's own name is that of the training set.
        cifar("test").open()
    assert len(cifar("train").open()) == 1
    many = np.zeros((50_000, 32, 32, 3), np.uint8)
    np.save(tmp_path / "x.npy", many)
    for subset in (True, False):
        with pytest.raises(UserError, match="50,000 images, the number of split train"):
            cifar("test", subset).open(tmp_path / "x.npy")
    assert len(cifar("train", subset=False).open(tmp_path / "x.npy")) == 50_000
    assert path.exists()


def test_a_subset_has_the_key_of_its_data():
    assert cifar("test").spec() == {"name": "cifar10", "split": "test"}


@pytest.mark.parametrize(("label", "right"), [(9, True), (10, False), (-1, False)])
def test_labels_lie_in_the_data_set_s_range(tmp_path, label, right):
    rows = json.dumps({"labels": [["a.png", 0], ["b.png", label]]}).encode()
    path = odd.zipped(tmp_path, {"a.png": tiny(1), "b.png": tiny(2), "dataset.json": rows})
    if right:
        assert cifar("test").open(path).labels().tolist() == [0, 9]
        return
    with pytest.raises(UserError, match=r"run from"):
        cifar("test").open(path)


def test_labels_from_one_say_so(tmp_path):
    path = odd.npz(tmp_path, arr_0=np.zeros((10, 32, 32, 3), np.uint8), arr_1=np.arange(1, 11))
    with pytest.raises(UserError, match=r"from 1 to 10(.|\n)*subtract 1"):
        cifar("test").open(path)


def test_fashion_mnist_holds_its_own_shape_and_count(tmp_path):
    grey = [odd.coded(Image.new("L", (28, 28), value)) for value in range(3)]
    path = odd.zipped(tmp_path, {f"{i}.png": data for i, data in enumerate(grey)})
    with pytest.raises(UserError, match="holds 3 images"):
        create("dataset", "fashion_mnist").open(path)
    made = create("dataset", {"name": "fashion_mnist", "subset": True}).open(path)
    assert made.shape == (1, 32, 32)
    small = odd.npz(tmp_path / "small", arr_0=np.zeros((4, 8, 8, 1), np.uint8))
    with pytest.raises(UserError, match=r"\(1, 28, 28\)"):
        create("dataset", {"name": "fashion_mnist", "subset": True}).open(small)


def test_idx_files_of_one_split_are_not_read_as_the_other(tmp_path):
    head = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2, 28, 28))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(2 * 784)))
    with pytest.raises(UserError, match="has no t10k-images"):
        create("dataset", {"name": "fashion_mnist", "split": "test", "subset": True}).open(
            tmp_path
        )


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_converted_only_where_asked(tmp_path, channels):
    odd.put(tmp_path / "a.png", odd.coded(odd.level(10, "L")))
    odd.put(tmp_path / "b.png", 20)
    odd.put(tmp_path / "c.png", 30)
    with pytest.raises(UserError, match=r"1 of 3 are not colour .*a\.png \(grey\)"):
        create("dataset", "images").open(tmp_path)
    opened = create("dataset", {"name": "images", "channels": channels}).open(tmp_path)
    assert opened.shape == (channels, 8, 8)
    assert opened.pixels(range(3))[:, 0, 0, 0].tolist() == [10, 20, 30]
