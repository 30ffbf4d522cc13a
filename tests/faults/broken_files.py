"""Intact files of every kind that a loader reads, and seeded ways to break them."""

import gzip
import io
import json
import os
import pickle
import random
import resource
import select
import signal
import struct
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import msgpack
import numpy as np
import torch
from safetensors.torch import save

_TOO_LARGE = 2 << 30
"""Bytes of memory that a loader may take for these files, none of which has 100 KB."""


def _torch_state(zipped):
    file = io.BytesIO()
    state = OrderedDict(w=torch.randn(6, 4), n=torch.arange(5), s=torch.zeros(()))
    torch.save({"model": state, "step": 3, "lr": [0.1, 0.2]}, file,
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    return file.getvalue()


def _edm():
    """A pickle with the names of EDM's files: a module's class, state and tensors by storages."""
    tensor = io.BytesIO()
    torch.save(torch.zeros(8).untyped_storage(), tensor, _use_new_zipfile_serialization=False)

    class Persistent:
        def __reduce__(self):
            state = {
                "_parameters": {"w": torch.zeros(3)},
                "_modules": {},
                "_init_kwargs": {"a": 1},
            }
            return _stand_in, ({"type": "class", "class_name": "EDMPrecond", "state": state},)

    plain = pickle.dumps({"ema": Persistent()}, 4)
    name, module = b"_stand_in", _stand_in.__module__.encode()
    wanted = b"torch_utils.persistence", b"_reconstruct_persistent_obj"
    for old, new in ((module, wanted[0]), (name, wanted[1])):
        plain = plain.replace(bytes([0x8C, len(old)]) + old, bytes([0x8C, len(new)]) + new, 1)
    # The frame's length no longer fits; a stream without frames is as good.
    return plain[:2] + plain[11:]


def _stand_in(*_):
    raise AssertionError("never called")


def _flax():
    def array(a):
        return msgpack.ExtType(1, msgpack.packb((list(a.shape), a.dtype.name, a.tobytes())))

    tree = {"Dense_0": {"kernel": array(np.ones((3, 2), "f4")), "bias": array(np.zeros(2, "f4"))}}
    return msgpack.packb({"step": 7, "params_ema": tree, "odd": [1, None, "x" * 40, 1.5]})


def _npz(compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def _moments():
    return {"mu": np.arange(3.0), "sigma": np.eye(3)}


def _own_statistics():
    rows = np.ones((4, 3), np.float16)
    return {"mu/pool": np.arange(3.0), "count/pool": np.array(9), "features/pool": rows}


def _cifar(protocol):
    batch = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [1, 2, 3, 4], b"names": [b"a"] * 4}
    return pickle.dumps(batch, protocol)


def _idx():
    return b"\0\0\x08\x03" + struct.pack(">III", 3, 4, 4) + bytes(range(48))


def intact_files():
    """Name of a file to its bytes, for every kind."""
    torch.manual_seed(0)
    statistics = {"num_images": 9, "fid": _moments()}
    made_of = np.array(json.dumps({"data": "x"}))
    images = np.zeros((2, 4, 4, 3), np.uint8)
    return {
        "zipped.pt": _torch_state(True),
        "stream.pt": _torch_state(False),
        "network.pkl": _edm(),
        "checkpoint_1": _flax(),
        "weights.safetensors": save({"a": torch.zeros(3, 2), "b": torch.ones(4)}),
        "config.json": json.dumps({"sample_size": 8, "block": ["a", {"b": [1, 2]}]}).encode(),
        "moments.npz": _npz(count=np.array(9), **_moments()),
        "packed.npz": _npz(True, **_moments()),
        "adm.npz": _npz(arr_0=images, mu_s=np.arange(2.0), sigma_s=np.eye(2), **_moments()),
        "rows.npz": _npz(pool_3=np.ones((4, 3), np.float32)),
        "own.npz": _npz(digest=np.array("d"), **{"sigma/pool": np.eye(3)}, **_own_statistics()),
        "compact.npz": _npz(
            made_of=made_of, **{"triangle/pool": np.ones(6, np.float32)}, **_own_statistics()
        ),
        "moments.pkl": pickle.dumps(statistics, 4),
        "moments5.pkl": pickle.dumps(statistics, 5),
        "data_batch_1": _cifar(4),
        "data_batch_2": _cifar(2),
        "images.idx": _idx(),
        "images.idx.gz": gzip.compress(_idx(), mtime=0),
    }


def broken(name, files, draw):
    """The bytes of the file `name` after one to three changes, and what they were."""
    data, kinds = files[name], []
    for _ in range(draw.choice((1, 1, 2, 3))):
        kind = draw.choice(_CHANGES)
        if kind == "swap":
            data = files[draw.choice(sorted(files))]
        elif kind == "member" and data[:4] == b"PK\x03\x04":
            data = _member(data, draw)
        else:
            data = _changed(data, draw, kind)
        kinds.append(kind)
    return data, "+".join(kinds)


_CHANGES = (
    "cut",
    "flip",
    "flip",
    "fill",
    "number",
    "insert",
    "delete",
    "swap",
    "member",
    "member",
)


def _changed(data, draw, kind):
    at = draw.randrange(len(data) + 1)
    if kind == "cut":
        return data[:at]
    if kind == "delete":
        return data[:at] + data[at + draw.randrange(1, 40) :]
    if kind == "insert":
        return data[:at] + draw.randbytes(draw.randrange(1, 40)) + data[at:]
    if kind == "number":
        huge = draw.choice((b"\xff", b"\x7f", b"\0", b"\x80")) * draw.choice((1, 2, 4, 8))
        return data[:at] + huge + data[at + len(huge) :]
    if kind == "fill":
        return data[:at] + bytes([draw.randrange(256)]) * 12 + data[at + 12 :]
    flipped = bytearray(data)
    for _ in range(draw.choice((1, 2, 8)) if flipped else 0):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def _member(data, draw):
    """The archive with one member changed and its checksum made anew."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(e, archive.read(e)) for e in archive.infolist()]
    except Exception:
        return _changed(data, draw, "flip")
    chosen, out = draw.randrange(max(1, len(members))), io.BytesIO()
    kind = draw.choice(("cut", "flip", "fill", "number", "insert", "delete"))
    with zipfile.ZipFile(out, "w") as archive:
        for i, (entry, raw) in enumerate(members):
            held = _changed(raw, draw, kind) if i == chosen else raw
            archive.writestr(entry.filename, held, entry.compress_type)
    return out.getvalue()


def outcomes(read, paths, seconds=60.0):
    """What `read` makes of each path: `accepted`, the error's name and text, or `hung`.

    It runs in a process of its own with 2 GB more memory than this one has.

    Returns:
        For every path the outcome, the text of the error, and the seconds it took.
    """
    found = []
    while len(found) < len(paths):
        found += _in_a_child(read, paths[len(found) :], seconds)
    return found


def _in_a_child(read, paths, seconds):
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        try:
            _report(read, paths, theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    told = _lines(ours, seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if len(told) < len(paths):
        told.append(("hung", "no answer, or the process ended", seconds))
    return told


def _lines(pipe, seconds):
    rows, rest = [], b""
    while select.select([pipe], [], [], seconds)[0]:
        block = os.read(pipe, 1 << 16)
        if not block:
            break
        *whole, rest = (rest + block).split(b"\n")
        rows += [tuple(json.loads(line)) for line in whole]
    os.close(pipe)
    return rows


def _report(read, paths, pipe):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _TOO_LARGE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for path in paths:
        start = time.monotonic()
        try:
            read(path)
            name, text = "accepted", ""
        except Exception as error:
            name, text = type(error).__name__, str(error)[:2000]
        row = json.dumps([name, text, time.monotonic() - start])
        os.write(pipe, row.encode() + b"\n")


def draws(seed):
    """The random numbers of a run."""
    return random.Random(seed)
