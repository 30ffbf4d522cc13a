"""Hostile and broken weights files: each is refused, names what it met, and nothing is run."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from torch import nn

from cmbench.core.errors import UserError
from cmbench.released.edm_pickle import read_edm
from cmbench.released.flax_msgpack import read_flax
from cmbench.released.torch_state import read_torch

READERS = [read_torch, read_edm]


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Named:
    """Pickles as a call of a function by its dotted name, without importing it."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments

    def bytes(self):
        head = f"c{self.module}\n{self.name}\n".encode()
        return b"\x80\x02" + head + pickle.dumps(self.arguments, 2)[2:-1] + b"R."


def torch_zip(path, pickled, storages=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", b"3\n")
        for key, raw in storages:
            archive.writestr(f"archive/data/{key}", raw)
    return path


def stream(obj):
    """The older format of torch.save around `obj`."""
    file = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, file, 2)
    file.write(obj if isinstance(obj, bytes) else pickle.dumps(obj, 2))
    pickle.dump([], file, 2)
    return file.getvalue()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {mark}",), "system"),
        (eval, ("open({mark!r}, 'w')",), "eval"),
        (exec, ("open({mark!r}, 'w')",), "exec"),
        (__import__, ("os",), "__import__"),
        (bytearray, (10**11,), "bytearray"),
        (torch.load, ("{mark}",), "torch"),
    ],
)
def test_calls_are_refused_by_name_and_not_made(tmp_path, reader, function, arguments, named):
    mark = tmp_path / "executed"
    told = tuple(a.format(mark=str(mark)) if isinstance(a, str) else a for a in arguments)
    attack = {"ema": Calls(function, *told)}
    if reader is read_torch:
        file = torch_zip(tmp_path / "bad.pt", pickle.dumps(attack, 2))
    else:
        file = tmp_path / "bad.pkl"
        file.write_bytes(pickle.dumps(attack, 4))
    with pytest.raises(UserError, match="refused") as caught:
        reader(file)
    assert named in str(caught.value)
    assert str(file) in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("inner", ["posix.system", "builtins.eval"])
def test_nested_bytes_of_an_edm_pickle_are_read_as_data_too(tmp_path, inner):
    mark = tmp_path / "executed"
    module, name = inner.split(".")
    command = f"touch {mark}" if name == "system" else f"open({str(mark)!r}, 'w')"
    nested = stream(Named(module, name, command).bytes())
    file = tmp_path / "bad.pkl"
    file.write_bytes(pickle.dumps({"ema": Calls(torch.storage._load_from_bytes, nested)}, 4))
    with pytest.raises(UserError, match="refused") as caught:
        read_edm(file)
    assert inner in str(caught.value)
    assert not mark.exists()


def test_a_nested_bytes_bomb_inside_nested_bytes_is_refused(tmp_path):
    deep = stream(Named("torch.storage", "_load_from_bytes", b"anything").bytes())
    file = tmp_path / "bad.pkl"
    file.write_bytes(pickle.dumps({"ema": Calls(torch.storage._load_from_bytes, deep)}, 4))
    with pytest.raises(UserError, match="_load_from_bytes"):
        read_edm(file)


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path):
    raw = b"\0" * (1 << 24)
    file = torch_zip(tmp_path / "bomb.pt", b"", [("0", raw)], zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 1 << 16
    with pytest.raises(UserError, match="unpacks to more than the file holds"):
        read_torch(file)


def test_a_claimed_100_gb_tensor_is_refused(tmp_path):
    kept = tmp_path / "kept.pt"
    torch.save({"w": torch.zeros(4)}, kept)
    with zipfile.ZipFile(kept) as archive:
        main = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        pickled = archive.read(main)
    huge = b"\x8a\x05" + (25_000_000_000).to_bytes(5, "little")
    # The storage's length is the number after its device in the persistent id: K\x04t -> LONG1.
    claimed = pickled.replace(b"K\x04tq", huge + b"tq", 1)
    assert claimed != pickled
    file = torch_zip(tmp_path / "huge.pt", claimed, [("0", b"\0" * 16)])
    with pytest.raises(UserError, match="100,000,000,000 bytes"):
        read_torch(file)


def test_a_view_larger_than_its_storage_is_refused(tmp_path):
    file = tmp_path / "expanded.pt"
    torch.save({"w": torch.zeros(1).expand(25_000_000_000)}, file)
    assert file.stat().st_size < 4096
    with pytest.raises(UserError, match="100,000,000,000 bytes"):
        read_torch(file)


def test_a_claimed_100_gb_tensor_in_the_older_format_is_refused(tmp_path):
    plain = io.BytesIO()
    torch.save(torch.zeros(4), plain, _use_new_zipfile_serialization=False)
    huge = b"\x8a\x05" + (25_000_000_000).to_bytes(5, "little")
    claimed = plain.getvalue().replace(b"K\x04N", huge + b"N", 1)
    assert claimed != plain.getvalue()
    file = tmp_path / "huge.pt"
    file.write_bytes(claimed)
    with pytest.raises(UserError, match="100,000,000,000 bytes"):
        read_torch(file)


def test_exponential_keys_and_texts_are_refused(tmp_path):
    doubled = b")" + b"2\x86" * 60  # a tuple of itself twice, sixty times over
    file = tmp_path / "hash.pkl"
    file.write_bytes(b"\x80\x04}" + doubled + b"K\x01s.")
    with pytest.raises(UserError, match="key is not text"):
        read_edm(file)


def test_exponential_keys_of_a_called_dictionary_are_refused(tmp_path):
    doubled = b")" + b"2\x86" * 60
    file = tmp_path / "hash.pkl"
    pair = b"(" + doubled + b"K\x01l"
    file.write_bytes(b"\x80\x04ccollections\nOrderedDict\n(" + pair + b"l\x85R.")
    with pytest.raises(UserError, match="key is not text"):
        read_edm(file)


def test_a_huge_memo_index_and_a_huge_byte_array_cost_no_memory(tmp_path):
    file = tmp_path / "memo.pkl"
    file.write_bytes(b"\x80\x04Nr\xff\xff\xff\xff.")
    with pytest.raises(UserError, match="no network"):
        read_edm(file)
    file.write_bytes(b"\x80\x05\x96" + struct.pack("<Q", 10**11) + b".")
    with pytest.raises(UserError, match="refused"):
        read_edm(file)


@pytest.mark.parametrize("kept", [0, 3, 40, 0.5, 0.98])
@pytest.mark.parametrize("new_format", [True, False])
def test_truncated_torch_files_are_errors_with_the_path(tmp_path, kept, new_format):
    file = tmp_path / "model.pt"
    state = {"w": torch.randn(64, 64)}
    torch.save(state, file, _use_new_zipfile_serialization=new_format)
    whole = file.read_bytes()
    file.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(UserError, match=r"model\.pt"):
        read_torch(file)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    for reader in (read_torch, read_edm, read_flax):
        with pytest.raises(UserError, match="does not exist"):
            reader(tmp_path / "none.pt")


def test_torch_files_of_both_formats_read_back_equal(tmp_path):
    shared = torch.randn(6, 4)
    state = OrderedDict(
        a=shared, b=shared.T[1:], h=torch.randn(3).half(), i=torch.arange(5), n=torch.empty(0, 2),
        s={"lr": 1e-3, "steps": [1, 2], "names": ("x", None), "flag": True},
    )  # fmt: skip
    for new_format in (True, False):
        file = tmp_path / f"{new_format}.pt"
        torch.save(state, file, _use_new_zipfile_serialization=new_format)
        found = read_torch(file)
        for key in "abhin":
            assert torch.equal(found[key], state[key])
            assert found[key].dtype == state[key].dtype
        assert found["s"] == state["s"]


class Preconditioned(nn.Module):
    """Stands for a module of an EDM file; pickled as torch_utils.persistence pickles it."""

    def __init__(self, source, class_name, kwargs):
        super().__init__()
        self.source, self.class_name, self._init_kwargs = source, class_name, kwargs
        self._init_args = ()

    def __reduce__(self):
        hidden = ("source", "class_name")
        state = {k: v for k, v in self.__dict__.items() if k not in hidden}
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.source,
            "class_name": self.class_name,
            "state": state,
        }
        return _reconstruct_persistent_obj, (meta,)


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a reader called the original, which runs the source text")


@pytest.fixture
def persistence(monkeypatch):
    """A torch_utils.persistence to pickle by name from."""
    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")
    monkeypatch.setattr(_reconstruct_persistent_obj, "__module__", "torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setitem(sys.modules, "torch_utils", package)
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


def edm_file(path, mark):
    source = f"open({str(mark)!r}, 'w')\n"
    inner = Preconditioned(source, "SongUNet", {"img_resolution": 8, "label_dim": 0})
    conv = Preconditioned(source, "Conv2d", {})
    conv.weight, conv.bias = nn.Parameter(torch.randn(4, 3, 3, 3)), None
    inner.enc = nn.ModuleDict({"8x8_conv": conv})
    inner.register_buffer("freqs", torch.randn(3))
    inner.register_buffer("scratch", torch.randn(3), persistent=False)
    inner.skip_scale = np.float64(0.5)
    outer = Preconditioned(source, "EDMPrecond", {"img_resolution": 8, "model_type": "SongUNet"})
    outer.model = inner
    path.write_bytes(pickle.dumps({"ema": outer, "dataset_kwargs": {"path": "x"}}, 4))
    return outer


@pytest.mark.usefixtures("persistence")
def test_an_edm_pickle_is_read_without_running_the_source_in_it(tmp_path):
    mark = tmp_path / "executed"
    outer = edm_file(tmp_path / "edm.pkl", mark)
    found = read_edm(tmp_path / "edm.pkl")
    assert found.class_name == "EDMPrecond"
    assert found.arguments == {"img_resolution": 8, "model_type": "SongUNet"}
    assert found.network == "SongUNet"
    assert found.network_arguments == {"img_resolution": 8, "label_dim": 0}
    wanted = outer.state_dict()
    assert set(found.state) == set(wanted)
    assert all(torch.equal(found.state[k], wanted[k]) for k in wanted)
    assert not mark.exists()


@pytest.mark.usefixtures("persistence")
def test_a_truncated_edm_pickle_and_a_missing_network_are_errors(tmp_path):
    edm_file(tmp_path / "edm.pkl", tmp_path / "executed")
    with pytest.raises(UserError, match="ema, dataset_kwargs"):
        read_edm(tmp_path / "edm.pkl", key="net")
    whole = (tmp_path / "edm.pkl").read_bytes()
    (tmp_path / "edm.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="truncated"):
        read_edm(tmp_path / "edm.pkl")


def flax_array(value):
    parts = (value.shape, value.dtype.name, value.tobytes())
    return msgpack.ExtType(1, msgpack.packb(parts, use_bin_type=True))


def test_flax_checkpoints_read_as_the_msgpack_package_packs_them(tmp_path):
    rng = np.random.default_rng(0)
    tree = {"Dense_0": {"kernel": rng.normal(size=(3, 2)).astype("f4"), "bias": np.zeros(2, "f4")}}
    packed = {k: {n: flax_array(v) for n, v in t.items()} for k, t in tree.items()}
    whole = {
        "step": flax_array(np.array(7, "i4")), "params": packed, "params_ema": packed,
        "odd": [1, -1, -40, 300, 70000, 2**40, 1.5, None, True, "x" * 300, {}, [0] * 20],
    }  # fmt: skip
    file = tmp_path / "checkpoint_1"
    file.write_bytes(msgpack.packb(whole, use_bin_type=True))
    found = read_flax(file)
    assert found["odd"] == whole["odd"]
    assert int(found["step"]) == 7
    only = read_flax(file, ["params_ema"])
    assert list(only) == ["params_ema"]
    for name, value in tree["Dense_0"].items():
        assert np.array_equal(only["params_ema"]["Dense_0"][name], value)


def flax_bytes(value):
    return msgpack.packb({"params_ema": value}, use_bin_type=True)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (
            flax_bytes(msgpack.ExtType(1, msgpack.packb(([25 * 10**9], "float32", b"1234")))),
            "100,000",
        ),
        (flax_bytes(msgpack.ExtType(1, msgpack.packb(([1], "object", b"12345678")))), "object"),
        (flax_bytes(msgpack.ExtType(9, b"x")), "extension 9"),
        (b"\x81\xaaparams_ema\xdf\xff\xff\xff\xff", "truncated"),
        (b"\x81\xaaparams_ema" + b"\x91" * 200, "deep"),
        (b"\x81\xaaparams_ema\xc6\xff\xff\xff\xff", "truncated"),
        (b"", "truncated"),
        (b"\x80\x04.", "params_ema"),
        (b"\xc1", "0xc1"),
    ],
)
def test_hostile_flax_files_are_refused(tmp_path, data, named):
    file = tmp_path / "checkpoint_1"
    file.write_bytes(data)
    with pytest.raises(UserError, match=named):
        read_flax(file, ["params_ema"])


@pytest.mark.parametrize("kept", [1, 30, 0.5, 0.99])
def test_truncated_flax_files_are_errors(tmp_path, kept):
    whole = flax_bytes({"w": flax_array(np.ones((8, 8), "f4"))})
    file = Path(tmp_path / "checkpoint_1")
    file.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(UserError, match="truncated"):
        read_flax(file, ["params_ema"])
