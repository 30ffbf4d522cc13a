"""Files made to harm whoever reads them: refused with their path, at once, and in little memory."""

import contextlib
import gzip
import io
import os
import pickle
import socket
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cmbench.core import safe_pickle
from cmbench.core.array_files import npz_headers, read_npz
from cmbench.core.errors import UserError
from cmbench.core.files import new_file, parsing, read_regular, regular_file
from cmbench.core.safe_pickle import SafeUnpickler
from cmbench.core.tensor_files import read_safetensors
from cmbench.datasets.cifar10 import read_cifar_batches
from cmbench.datasets.fashion_mnist import read_idx
from cmbench.metrics.statistics.file import load_reference
from cmbench.metrics.statistics.formats import open_statistics
from cmbench.released.diffusers_folder import read_diffusers_weights
from cmbench.released.edm_pickle import read_edm
from cmbench.released.flax_msgpack import read_flax
from cmbench.released.torch_state import read_torch

sys.path.append(str(Path(__file__).parents[1] / "faults"))
from broken_files import outcomes

DOUBLED = b")" + b"2\x86" * 60
"""A tuple of itself twice, sixty times over."""


def unpickled(data):
    return SafeUnpickler(io.BytesIO(data)).load()


@contextlib.contextmanager
def little_memory():
    """At most 16 MB are allocated, by Python or NumPy."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 24


def batch(path):
    return read_cifar_batches(path.parent, [path.name])


PICKLES = {"a.pkl": open_statistics, "b.pkl": read_edm, "data_batch_1": batch}
READERS = {
    **PICKLES, "c.pt": read_torch, "checkpoint_1": read_flax, "d.safetensors": read_safetensors,
    "e.safetensors": read_diffusers_weights, "f.npz": open_statistics, "g.npz": load_reference,
    "h.idx": read_idx, "i.idx.gz": read_idx,
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x04}" + DOUBLED + b"K\x01s.", "key is not text"),
        (b"\x80\x04}" + DOUBLED + b"\x91K\x01s.", "refused"),
        (b"\x80\x04}" + b"X\x01\0\0\0a" + DOUBLED + b"s.", "a nest of more than"),
        (b"\x80\x04" + b"]" * 5000 + b"a" * 4999 + b".", "nested more than"),
        (b"\x80\x04}q\0X\x01\0\0\0ah\0s.", "inside themselves"),
        (b"\x80\x05\x96" + struct.pack("<Q", 10**11) + b".", "100,000,000,000 bytes"),
        (b"\x80\x04(" + b"K\x01" * 2 + b"\x81.", "not a"),
        (b"\x80\x04}\x8a\x09" + b"\xff" * 8 + b"\0K\x01s.", "huge number"),
        (b"\x80\x04Pnowhere\n.", "outside of the stream"),
    ],
)
def test_pickles_that_harm_their_reader(tmp_path, name, data, said):
    file = tmp_path / name
    file.write_bytes(data)
    ((outcome, text, _),) = outcomes(PICKLES[name], [file], 30)
    assert outcome in ("Refused", "UserError"), text
    assert str(file) in text
    assert said in text


def test_a_huge_memo_index_takes_no_memory():
    data = b"\x80\x04Nr\xff\xff\xff\x7f."
    with little_memory():
        assert unpickled(data) is None


def test_an_array_larger_than_the_file_is_refused():
    whole = pickle.dumps({"mu": np.zeros(3)}, 4)
    assert np.array_equal(unpickled(whole)["mu"], np.zeros(3))
    # The shape's only axis is the number 3, K\x03 before the tuple's end.
    claimed = whole.replace(b"K\x03\x85", b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85")
    with pytest.raises(UserError, match="8,000,000,000,000 bytes, of which the file holds 24"):
        unpickled(claimed)


def test_calls_that_copy_the_same_text_again_and_again_are_refused():
    text = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\0"
    call = b"c_codecs\nencode\nq\x01" + b"h\x01h\0\x85R" * 200
    with pytest.raises(UserError, match="copy the same values"):
        unpickled(b"\x80\x02(" + text + call + b"l.")


def test_too_many_operations_are_refused(monkeypatch):
    monkeypatch.setattr(safe_pickle._Operations, "left", 1000)
    assert unpickled(b"\x80\x04" + b"N0" * 400 + b"N.") is None
    with pytest.raises(UserError, match="operations"):
        unpickled(b"\x80\x04" + b"N0" * 600 + b"N.")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6).reshape(2, 3)[:, ::2],
        np.arange(4, dtype=">f4"),
        np.zeros((0, 3)),
        np.array(3.5),
        np.array(["ab", "c"]),
        np.array([True, False]),
        np.arange(3, dtype=np.float16),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_arrays_come_back_equal_in_every_protocol(array, protocol):
    held = {"a": array, "same": [array], "n": np.float32(2.5), "list": [1, "x", None, 1.5]}
    data = pickle.dumps(held, protocol)
    back = unpickled(data)
    for found in (back["a"], back["same"][0]):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == pickle.loads(data)["a"].dtype
    assert back["n"] == 2.5
    assert back["list"] == held["list"]


def test_two_byte_orders_in_one_file_are_kept_apart():
    held = [np.arange(3, dtype=">f8"), np.arange(3, dtype="<f8"), np.arange(4, dtype=">f8")]
    for protocol in (2, 4):
        for found, expected in zip(unpickled(pickle.dumps(held, protocol)), held, strict=True):
            np.testing.assert_array_equal(found, expected)


def _fifo(path):
    os.mkfifo(path)


def _device(path):
    path.symlink_to("/dev/zero")


def _folder(path):
    path.mkdir()


def _dangling(path):
    path.symlink_to(path.with_name("nowhere"))


def _loop(path):
    path.symlink_to(path)


def _socket(path):
    holder = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        holder.bind(path.name)
    finally:
        os.chdir(here)
        holder.close()


def _unreadable_by_anyone(path):
    path.symlink_to("/proc/self/mem")


NO_FILES = {
    _fifo: "a FIFO", _device: "a device", _folder: "a folder", _socket: "a socket",
    _dangling: "which does not exist", _loop: "symbolic links", _unreadable_by_anyone: "",
}  # fmt: skip


@pytest.mark.parametrize("make", NO_FILES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(UserError) as caught:
        READERS[name](tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert NO_FILES[make] in str(caught.value)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("head", "said"), [
    (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
])  # fmt: skip
def test_what_was_saved_in_place_of_the_file_is_named(tmp_path, name, head, said):
    (tmp_path / name).write_bytes(head)
    with pytest.raises(UserError, match=said):
        READERS[name](tmp_path / name)


def test_names_that_no_system_call_takes_are_user_errors():
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(UserError, match="can't be opened"):
            regular_file(Path(name))


def test_a_file_is_read_as_far_as_its_size_says(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_regular(tmp_path / "b") == b"abc"
    assert read_regular(Path("/proc/self/status")) == b""


def test_interrupts_pass_through_the_parser(tmp_path):
    with pytest.raises(KeyboardInterrupt), parsing(tmp_path / "a", "anything"):
        raise KeyboardInterrupt


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "a").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("a", "link"):
        with pytest.raises(UserError, match="--overwrite"):
            new_file(tmp_path / name, overwrite=False)
    assert new_file(tmp_path / "a", overwrite=True) == tmp_path / "a"
    assert new_file(tmp_path / "b", overwrite=False) == tmp_path / "b"
    with pytest.raises(UserError, match="is a folder"):
        new_file(tmp_path, overwrite=True)


def _npy_header(text, version=(1, 0)):
    width = "<H" if version == (1, 0) else "<I"
    return b"\x93NUMPY" + bytes(version) + struct.pack(width, len(text)) + text


def _npz_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return path


HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }\n"


@pytest.mark.parametrize("reader", [open_statistics, load_reference, read_npz, npz_headers])
@pytest.mark.parametrize(
    ("member", "said"),
    [
        (_npy_header(HUGE) + bytes(64), "8,000,000,000,000 bytes, of which the file holds"),
        (b"\x93NUMPY\2\0" + b"\xff" * 4 + bytes(64), "header of 4,294,967,295 bytes"),
        (b"\x93NUMPY\1\0\xff", "truncated"),
        (_npy_header(HUGE.replace(b"(1000000, 1000000)", b"(True, True)")), "shape"),
        (_npy_header(HUGE.replace(b"1000000,", b"-3,")), "shape"),
        (_npy_header(b"(" * 900), "truncated"),
        (b"", "truncated"),
    ],
)
def test_array_headers_that_lie_cost_nothing(tmp_path, reader, member, said):
    file = _npz_of(tmp_path / "s.npz", {"mu.npy": member, "digest.npy": member})
    with pytest.raises(UserError, match=said) as caught, little_memory():
        reader(file)
    assert str(file) in str(caught.value)


def test_an_array_that_unpacks_a_thousandfold_is_refused(tmp_path):
    header = _npy_header(HUGE.replace(b"(1000000, 1000000)", b"(10000000,)"))
    raw = header + bytes(8 * 10_000_000)
    file = _npz_of(tmp_path / "s.npz", {"mu.npy": raw}, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 100_000
    with pytest.raises(UserError, match="unpacks from"):
        read_npz(file)


def test_members_that_overlap_are_refused(tmp_path):
    file = _npz_of(tmp_path / "s.npz", {f"{c}.npy": _npy_header(HUGE) for c in "ab"})
    raw = bytearray(file.read_bytes())
    for at in range(len(raw) - 4):
        if raw[at : at + 4] == b"PK\1\2":
            raw[at + 20 : at + 24] = struct.pack("<I", len(raw))
    file.write_bytes(raw)
    with pytest.raises(UserError, match=r"overlap|s\.npz"):
        npz_headers(file)


def test_an_encrypted_archive_is_refused(tmp_path):
    file = _npz_of(tmp_path / "s.npz", {"mu.npy": _npy_header(HUGE)})
    raw = bytearray(file.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(raw)
    with pytest.raises(UserError, match="encrypted"):
        open_statistics(file)


@pytest.mark.parametrize("count", [np.nan, np.inf, -1, 2.5, [1, 2], "many", 1e300])
@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_a_count_that_is_no_count_is_refused(tmp_path, count, suffix):
    file, moments = tmp_path / f"s{suffix}", {"mu": np.zeros(2), "sigma": np.eye(2)}
    if suffix == ".npz":
        np.savez(file, count=np.array(count), **moments)
    else:
        file.write_bytes(pickle.dumps({"num_images": np.array(count), "fid": moments}))
    with pytest.raises(UserError, match="count of images") as caught:
        open_statistics(file)
    assert str(file) in str(caught.value)


def test_statistics_as_a_dictionary_in_npy_say_how_to_save_them(tmp_path):
    np.save(tmp_path / "s.npy", {"mu": np.zeros(2)}, allow_pickle=True)
    with pytest.raises(UserError, match=r"(?s)Python objects.*numpy\.savez"):
        open_statistics(tmp_path / "s.npy")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sigma/pool": np.zeros((2, 2))}, "don't fit"),
        ({"mu/pool": np.full(3, np.nan)}, "not finite"),
        ({"features/pool": np.zeros((4, 3), np.float16), "labels": np.zeros(3, int)}, "one row"),
        ({"features/pool": np.full((4, 3), np.inf)}, "not finite numbers"),
        ({"count/pool": np.array([1, 2])}, "count of images"),
        ({"mu/pool": np.full(3, 1e200)}, "overflow"),
    ],
)
def test_references_of_one_s_own_format_are_checked_too(tmp_path, changed, said):
    arrays = {"digest": np.array("d"), "mu/pool": np.zeros(3), "sigma/pool": np.eye(3),
              "count/pool": np.array(9)}  # fmt: skip
    np.savez(tmp_path / "s.npz", **(arrays | changed))
    for reader in (load_reference, open_statistics):
        with pytest.raises(UserError, match=said):
            reader(tmp_path / "s.npz")


def test_a_gzip_bomb_is_refused_before_it_unpacks(tmp_path):
    file = tmp_path / "images.idx.gz"
    head = b"\0\0\x08\x03" + struct.pack(">III", 100_000, 32, 32)
    with gzip.open(file, "wb") as packed:
        packed.write(head)
        for _ in range(100):
            packed.write(bytes(1 << 20))
    with pytest.raises(UserError, match="unpacks from"), little_memory():
        read_idx(file)


def test_nested_flax_extensions_are_refused(tmp_path):
    # Each extension of 4-byte length holds the next; the innermost is nothing.
    data = b""
    for _ in range(3000):
        data = b"\xc9" + struct.pack(">I", len(data)) + b"\x01" + data
    (tmp_path / "checkpoint_1").write_bytes(b"\x81\xa1a" + data)
    with pytest.raises(UserError, match="nested more than"):
        read_flax(tmp_path / "checkpoint_1")


def test_a_training_state_given_for_an_edm_network_is_named(tmp_path):
    import torch

    torch.save({"net": {}}, tmp_path / "training-state-001.pt")
    with pytest.raises(UserError, match="training state") as caught:
        read_edm(tmp_path / "training-state-001.pt")
    assert "delete" not in str(caught.value)
