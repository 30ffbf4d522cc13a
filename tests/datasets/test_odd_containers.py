"""One reader: each odd container is read rightly or refused with its reason, by every door."""

import random
import re
from pathlib import Path

import numpy as np
import odd_containers as odd
import pytest
from PIL import Image

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.external.containers import ImageStream

NAMED = {case.name: case for case in odd.CASES}


def built(case: odd.Case, root: Path) -> Path:
    if "parquet" in case.name:
        pytest.importorskip("pyarrow")
    return case.build(root / "given")


@pytest.mark.parametrize("name", NAMED)
def test_a_data_set_reads_it_rightly_or_refuses_it(tmp_path, name):
    case = NAMED[name]
    path = built(case, tmp_path)
    if case.images is None:
        with pytest.raises(UserError, match=case.reason):
            create("dataset", "images").open(path)
        return
    opened = create("dataset", "images").open(path)
    assert opened.pixels(range(len(opened)))[:, 0, 0, 0].tolist() == case.images
    if case.labels is not None:
        labels = opened.labels()
        assert case.labels == () if labels is None else tuple(labels.tolist()) == case.labels
    if case.names is not None:
        assert opened.names == case.names
    if case.ignored is not None:
        assert opened.ignored == case.ignored


@pytest.mark.parametrize("name", NAMED)
def test_score_reads_it_by_the_same_rules(tmp_path, name):
    case = NAMED[name]
    path = built(case, tmp_path)
    stream = ImageStream(path)
    if case.images is None and not case.decided:
        told = ""
        try:
            list(stream.batches(3))
        except UserError as error:
            told = str(error)
        told += "".join(f"{b.name}: {b.detail}\n" for b in stream.bad)
        assert re.search(case.reason, told)
        return
    pixels = np.concatenate(list(stream.batches(3)))
    assert not stream.bad
    if case.decided:
        with pytest.raises(UserError, match=case.reason):
            stream.labels()
        return
    assert pixels[:, 0, 0, 0].tolist() == case.images
    if case.ignored is not None:
        assert stream.ignored == case.ignored
    labels = stream.labels()
    if case.labels:
        assert labels is not None
        assert (tuple(labels.values.tolist()), labels.names) == (
            case.labels,
            case.names or labels.names,
        )


@pytest.mark.parametrize("seed", range(3))
def test_any_tree_is_read_alike_as_folder_and_as_zip(tmp_path, seed):
    """Random trees of class folders, with names that sort oddly: one order, one fingerprint."""
    draw = random.Random(seed)
    names = draw.sample(["a", "a b", "a-b", "A", "10", "9", "ä", "b.c", "_x", "b"], 5)
    members = {f"{draw.choice(names)}/{draw.choice(names)}-{i}.png": i * 7 for i in range(20)}
    folder = tmp_path / "folder"
    for name, value in members.items():
        odd.put(folder / name, value)
    shuffled = dict(draw.sample(list(members.items()), len(members)))
    one, two = (
        create("dataset", "images").open(path)
        for path in (folder, odd.zipped(tmp_path / "zip", shuffled))
    )
    assert one.fingerprint() == two.fingerprint()
    assert one.names == two.names


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_container_is_refused_in_words(tmp_path, seed):
    """Bytes changed, cut or added anywhere: read, or refused with a reason, and never a crash."""
    draw = random.Random(seed)
    kinds = ["zip_of_stored_members", "channels_last", "channels_first", "label_array",
             "fortran_order", "mac_zip"]  # fmt: skip
    path = NAMED[draw.choice(kinds)].build(tmp_path)
    data = bytearray(path.read_bytes())
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(data))
        data[at : at + draw.randint(0, 2)] = draw.randbytes(draw.randint(0, 2))
    path.write_bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])
    try:
        opened = create("dataset", "images").open(path)
        assert len(opened) == len(opened.pixels(range(len(opened))))
    except UserError as error:
        told = str(error)
    else:
        told = path.name
    assert path.name in told


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_damaged_image_files_are_named(tmp_path, form):
    """100 damaged files of each format: each is read or named, and none ends the walk."""
    draw = random.Random(form)
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    whole = odd.coded(Image.fromarray(noise), form)
    for i in range(100):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (tmp_path / f"{i:03}.png").write_bytes(data[: draw.choice([len(data), len(data) // 2])])
    stream = ImageStream(tmp_path, (8, 8), 3)
    read = sum(map(len, stream.batches(16)))
    assert read + len(stream.bad) == stream.total == 100


def test_names_that_are_not_text_are_shown_as_escapes(tmp_path):
    odd.plain(tmp_path)
    (tmp_path / "line\nbreak.png").write_bytes(b"no image")
    (Path(str(tmp_path)) / b"m\xf10\x1b[31m.png".decode(errors="surrogateescape")).write_bytes(b"")
    stream = ImageStream(tmp_path)
    list(stream.batches(8))
    assert {bad.name for bad in stream.bad} == {"line\\nbreak.png", "m\\udcf10\\x1b[31m.png"}
    for bad in stream.bad:
        assert bad.name.encode()
