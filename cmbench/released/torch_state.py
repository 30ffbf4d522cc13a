"""Reads `torch.save` files (.pt, .pth) as data: tensors, numbers, text, containers; no code.

Both formats: the zip archive, and the older stream that EDM's pickles nest. Every size that a
file claims is checked against the bytes that are there before anything is made of it.
"""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.core.files import parsing, read_regular, regular_file
from cmbench.core.safe_pickle import Refused, SafeUnpickler
from cmbench.released.torch_pickle import Storage, TensorUnpickler

__all__ = ["read_state_dict", "read_torch", "read_torch_bytes"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_torch(path: Path | str) -> Any:
    """What a `torch.save` file holds, on the CPU.

    Raises:
        UserError: If the file is missing, truncated, holds anything but data (naming what it asks
            for), or claims more than it holds.
    """
    path = regular_file(Path(path), "weights file")
    with parsing(path, "a torch checkpoint"):
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        if not zipped:
            return _read_stream(io.BytesIO(read_regular(path, "weights file")))
        with zipfile.ZipFile(path) as archive:
            return _from_archive(archive, path.stat().st_size)


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The tensors by name of a `torch.save` file that holds one state_dict.

    The prefix `module.`, which DataParallel gives to all names, is taken off.

    Raises:
        UserError: As `read_torch`; or if the file holds an optimiser's state, several things of
            which one may be a state_dict, or anything else.
    """
    found, where = read_torch(path), str(path)
    expected = "a state_dict: tensors by name"
    if not isinstance(found, Mapping):
        raise UserError(f"the file holds a {type(found).__name__}", where=where, expected=expected)
    if {"state", "param_groups"} <= set(found):
        raise UserError("this is an optimiser's state", where=where, expected=expected)
    others = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if others or not all(isinstance(name, str) for name in found):
        held = ", ".join(str(name) for name in list(found)[:6])
        inner = next((name for name in others if isinstance(found[name], Mapping)), None)
        fix = f"torch.save(torch.load(FILE)[{str(inner)[:40]!r}], 'weights.pt')" if inner else ""
        raise UserError(f"the file holds {held[:200]}", where=where, expected=expected, fix=fix)
    wrapped = bool(found) and all(name.startswith("module.") for name in found)
    return {name.removeprefix("module.") if wrapped else name: v for name, v in found.items()}


def read_torch_bytes(data: bytes) -> Any:
    """What the bytes of a `torch.save` file hold; for files nested in others.

    Raises:
        UserError: As `read_torch`.
    """
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _from_archive(archive, len(data))
    return _read_stream(io.BytesIO(data))


def _from_archive(archive: zipfile.ZipFile, length: int) -> Any:
    entries = archive.infolist()
    packed = [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED]
    claimed = sum(entry.file_size for entry in entries)
    if packed or claimed > length:
        named = packed[0] if packed else max(entries, key=lambda e: e.file_size).filename
        raise Refused(f"'{named}' unpacks to more than the file holds ({claimed:,} bytes)")
    found = [e.filename for e in entries if e.filename.count("/") == 1]
    main = next((name for name in found if name.endswith("/data.pkl")), None)
    if main is None:
        raise Refused("a zip archive without data.pkl, which torch.save never writes")
    bring = _from_entries(archive, main.removesuffix("data.pkl"))
    return TensorUnpickler(io.BytesIO(archive.read(main)), bring=bring).load()


def _from_entries(
    archive: zipfile.ZipFile, folder: str
) -> Callable[[str, torch.dtype, int], Storage]:
    kept: dict[str, Storage] = {}

    def bring(key: str, kind: torch.dtype, count: int) -> Storage:
        if key not in kept:
            entry = archive.getinfo(f"{folder}data/{key}")
            if count < 0 or entry.file_size != count * kind.itemsize:
                raise Refused(
                    f"a tensor storage '{key}' of {count * kind.itemsize:,} bytes, "
                    f"of which the file holds {entry.file_size:,}"
                )
            kept[key] = _storage(archive.read(entry), kind)
        return kept[key]

    return bring


def _storage(raw: bytes, kind: torch.dtype) -> Storage:
    if not raw:
        return Storage(torch.empty(0, dtype=kind))
    return Storage(torch.frombuffer(bytearray(raw), dtype=kind))


def _read_stream(file: io.BytesIO) -> Any:
    """The older format: five pickles, then each storage as its length and its bytes."""
    end = len(file.getbuffer())
    if SafeUnpickler(file).load() != _MAGIC or SafeUnpickler(file).load() != _PROTOCOL:
        raise UserError("not a torch checkpoint: it doesn't start as one does")
    SafeUnpickler(file).load()
    kept: dict[str, Storage] = {}
    used = 0

    def bring(key: str, kind: torch.dtype, count: int) -> Storage:
        nonlocal used
        if key not in kept:
            used += max(0, count) * kind.itemsize
            if count < 0 or used > end:
                raise Refused(
                    f"a tensor storage '{key}' of {count * kind.itemsize:,} bytes "
                    f"in a file of {end:,}"
                )
            kept[key] = Storage(torch.empty(count, dtype=kind))
        return kept[key]

    found = TensorUnpickler(file, bring=bring).load()
    for key in SafeUnpickler(file).load():
        if not isinstance(key, str) or key not in kept:
            raise UserError("the file is damaged: it lists a storage that nothing uses")
        _receive(file, kept[key])
    return found


def _receive(file: io.BytesIO, storage: Storage) -> None:
    values = storage.values
    (count,) = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
    raw = file.read(values.numel() * values.element_size())
    if count != values.numel() or len(raw) != values.numel() * values.element_size():
        raise UserError("the file is truncated: a storage's bytes are missing")
    if raw:
        values.copy_(torch.frombuffer(bytearray(raw), dtype=values.dtype))
