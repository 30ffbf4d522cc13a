"""Reads `torch.save` files (.pt, .pth) as data: tensors, numbers, text, containers; no code.

It reads both formats: the zip archive, and the older stream that is nested in EDM's pickles.
Every size that a file claims is checked against its bytes before anything is allocated.
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
    """Reads the contents of a `torch.save` file to the CPU.

    Raises:
        UserError: If the file is missing or truncated, names anything but data, or claims more
            bytes than it holds.
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
    """Reads the tensors by name of a `torch.save` file that holds one state_dict.

    DataParallel's prefix `module.` is removed if all names have it.

    Raises:
        UserError: As for `read_torch`; also if the file holds an optimiser's state, several
            entries of which one may be a state_dict, or anything else.
    """
    content, where = read_torch(path), str(path)
    expected = "a state_dict: tensors by name"
    if not isinstance(content, Mapping):
        raise UserError(
            f"the file holds a {type(content).__name__}", where=where, expected=expected
        )
    if {"state", "param_groups"} <= set(content):
        raise UserError("this is an optimiser's state", where=where, expected=expected)
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others or not all(isinstance(name, str) for name in content):
        keys = ", ".join(str(name) for name in list(content)[:6])
        inner = next((name for name in others if isinstance(content[name], Mapping)), None)
        fix = f"torch.save(torch.load(FILE)[{str(inner)[:40]!r}], 'weights.pt')" if inner else ""
        raise UserError(f"the file holds {keys[:200]}", where=where, expected=expected, fix=fix)
    wrapped = bool(content) and all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if wrapped else name: v for name, v in content.items()}


def read_torch_bytes(data: bytes) -> Any:
    """Reads the bytes of a `torch.save` file, for files nested in others.

    Raises:
        UserError: As for `read_torch`.
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
    names = [e.filename for e in entries if e.filename.count("/") == 1]
    main = next((name for name in names if name.endswith("/data.pkl")), None)
    if main is None:
        raise Refused("a zip archive without data.pkl, which torch.save never writes")
    find_storage = _from_entries(archive, main.removesuffix("data.pkl"))
    return TensorUnpickler(io.BytesIO(archive.read(main)), find_storage=find_storage).load()


def _from_entries(
    archive: zipfile.ZipFile, folder: str
) -> Callable[[str, torch.dtype, int], Storage]:
    storages: dict[str, Storage] = {}

    def find_storage(key: str, kind: torch.dtype, count: int) -> Storage:
        if key not in storages:
            entry = archive.getinfo(f"{folder}data/{key}")
            if count < 0 or entry.file_size != count * kind.itemsize:
                raise Refused(
                    f"a tensor storage '{key}' of {count * kind.itemsize:,} bytes, "
                    f"of which the file holds {entry.file_size:,}"
                )
            storages[key] = _storage(archive.read(entry), kind)
        return storages[key]

    return find_storage


def _storage(raw: bytes, kind: torch.dtype) -> Storage:
    if not raw:
        return Storage(torch.empty(0, dtype=kind))
    return Storage(torch.frombuffer(bytearray(raw), dtype=kind))


def _read_stream(file: io.BytesIO) -> Any:
    """Reads the older format: five pickles, then each storage as its length and its bytes."""
    end = len(file.getbuffer())
    if SafeUnpickler(file).load() != _MAGIC or SafeUnpickler(file).load() != _PROTOCOL:
        raise UserError("not a torch checkpoint: its first bytes are others")
    SafeUnpickler(file).load()
    storages: dict[str, Storage] = {}
    used = 0

    def find_storage(key: str, kind: torch.dtype, count: int) -> Storage:
        nonlocal used
        if key not in storages:
            used += max(0, count) * kind.itemsize
            if count < 0 or used > end:
                raise Refused(
                    f"a tensor storage '{key}' of {count * kind.itemsize:,} bytes "
                    f"in a file of {end:,}"
                )
            storages[key] = Storage(torch.empty(count, dtype=kind))
        return storages[key]

    content = TensorUnpickler(file, find_storage=find_storage).load()
    for key in SafeUnpickler(file).load():
        if not isinstance(key, str) or key not in storages:
            raise UserError("the file is damaged: it lists a storage that nothing uses")
        _receive(file, storages[key])
    return content


def _receive(file: io.BytesIO, storage: Storage) -> None:
    values = storage.values
    (count,) = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
    raw = file.read(values.numel() * values.element_size())
    if count != values.numel() or len(raw) != values.numel() * values.element_size():
        raise UserError("the file is truncated: a storage's bytes are missing")
    if raw:
        values.copy_(torch.frombuffer(bytearray(raw), dtype=values.dtype))
