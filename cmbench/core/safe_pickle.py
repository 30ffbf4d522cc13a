"""An unpickler that rebuilds data and runs nothing: what a file may name is a short list.

Written on Python's own unpickler, not the C one, whose memo and byte arrays take the sizes that a
stream claims before a byte of them is there.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cmbench.core.errors import UserError

__all__ = [
    "DATA",
    "FAULTS",
    "OrderedEntries",
    "Refused",
    "SafeUnpickler",
    "Storage",
    "bounded_view",
    "check_keys",
]

FAULTS = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    OverflowError,
)
"""What a broken stream makes an unpickler raise."""


class Refused(UserError):
    """The file asks for something that is not data; nothing of it was run."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"refused: {what}",
            expected="tensors, numbers, text and containers of them; nothing was run",
        )


@dataclass(frozen=True)
class Storage:
    """The numbers behind tensors, one-dimensional."""

    values: Tensor


@dataclass(frozen=True)
class _StorageType:
    dtype: torch.dtype


def bounded_view(
    storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """The tensor laid over a storage, if it stays inside and is not larger than it.

    Raises:
        Refused: If the tensor claims more numbers than the storage has.
    """
    if not all(type(n) is int for n in (offset, *size, *stride)) or len(size) > 16:
        raise Refused("a tensor whose size is not a few whole numbers")
    have = storage.values.numel()
    want = math.prod(size)
    reach = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1
    sane = offset >= 0 and min(size, default=0) >= 0 and min(stride, default=0) >= 0
    if not sane or want > have or (want and reach > have):
        claimed = want * storage.values.element_size()
        raise Refused(f"a tensor of size {tuple(size)} ({claimed:,} bytes) over {have:,} numbers")
    return storage.values.as_strided(tuple(size), tuple(stride), offset)


class OrderedEntries(OrderedDict[Any, Any]):
    """An OrderedDict that takes keys of text and numbers alone."""

    def __init__(self, entries: Any = ()) -> None:
        pairs = [tuple(pair) for pair in entries]
        check_keys([pair[0] for pair in pairs])
        super().__init__(pairs)


def check_keys(keys: list[Any]) -> None:
    """Raises if a key is not text or a number.

    A nested tuple as a key could take for ever to hash: 60 doublings fit in 200 bytes.

    Raises:
        Refused: If one is not.
    """
    if not all(isinstance(key, str | int | float | bytes | None) for key in keys):
        raise Refused("a dictionary's entry whose key is not text or a number")


def _tensor(
    storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    if not isinstance(storage, Storage):
        raise Refused(f"a tensor over a {type(storage).__name__}")
    return bounded_view(storage, offset, size, stride)


def _parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


def _numpy_type(name: str, *_: Any) -> Any:
    if not re.fullmatch(r"[<>|=]?(?:[biufc](?:1|2|4|8|16)|\?)", name):
        raise Refused(f"the NumPy type {name!r}")
    return np.dtype(name)


def _numpy_scalar(kind: Any, raw: bytes) -> Any:
    if not isinstance(kind, np.dtype) or len(raw) != kind.itemsize:
        raise Refused("a NumPy number whose bytes don't fit its type")
    return np.frombuffer(raw, kind)[0].item()


def _set(items: Any = ()) -> set[Any]:
    if not all(isinstance(item, str | int | float) for item in items):
        raise Refused("a set of anything but text and numbers")
    return set(items)


def _device(name: Any, *_: Any) -> str:
    if not isinstance(name, str):
        raise Refused("a device without a name")
    return name


def _encoded(text: str, codec: str = "latin1") -> bytes:
    if codec not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise Refused(f"text encoded as {codec!r}")
    return text.encode(codec)


_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}

DATA: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedEntries,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": tuple,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "_codecs.encode": _encoded,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "torch.device": _device,
    **{f"torch.{name}Storage": _StorageType(kind) for name, kind in _STORAGES.items()},
    **{str(kind): kind for kind in _STORAGES.values()},
}
"""Global names that a file of tensors may use, and what stands for them here."""


class SafeUnpickler(pickle._Unpickler):
    """Unpickles with `allowed` names alone.

    Args:
        file: The stream.
        allowed: Global name to what stands for it: a function, a class, or a value.
        bring: Given (key, dtype, count), the storage that a stream refers to from outside.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(
        self,
        file: io.BytesIO,
        allowed: Mapping[str, Any] = DATA,
        bring: Callable[[str, torch.dtype, int], Storage] | None = None,
    ) -> None:
        super().__init__(file, encoding="latin1")
        self._allowed, self._bring = allowed, bring

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global name.

        Raises:
            Refused: If it is not on the list.
        """
        full = f"{module}.{name}"
        if full not in self._allowed:
            raise Refused(f"the file asks for '{full}'")
        return self._allowed[full]

    def persistent_load(self, pid: Any) -> Storage:
        """A storage kept outside of the stream."""
        known = isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"
        if not known or self._bring is None or not isinstance(pid[1], _StorageType):
            raise Refused("a reference to something outside of the stream")
        if not isinstance(pid[2], str) or type(pid[4]) is not int:
            raise Refused("a storage without a name and a length")
        if len(pid) > 5 and pid[5] is not None:
            raise Refused("a storage that is a view of another (a format older than torch 0.4)")
        return self._bring(pid[2], pid[1].dtype, pid[4])

    def load_build(self) -> None:
        """State for an object: only for those that have a way to take it here."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.dtype):
            order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
            if order == ">":
                self.stack[-1] = target.newbyteorder(">")
        elif hasattr(type(target), "take_state"):
            target.take_state(state)
        elif not isinstance(target, OrderedDict):
            raise Refused(f"state for a {type(target).__name__}")

    def load_setitem(self) -> None:
        """One entry of a dictionary."""
        value, key = self.stack.pop(), self.stack.pop()
        self._enter(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        """Entries of a dictionary."""
        entries = self._marked()
        self._enter(self.stack[-1], entries)

    def load_dict(self) -> None:
        """A dictionary in the oldest protocol."""
        entries = self._marked()
        self.stack.append({})
        self._enter(self.stack[-1], entries)

    def load_additems(self) -> None:
        """Members of a set."""
        members = self._marked()
        self.stack[-1].update(_set(members))

    def _marked(self) -> list[Any]:
        found: list[Any] = self.pop_mark()  # type: ignore[attr-defined]
        return found

    def _enter(self, target: Any, entries: list[Any]) -> None:
        check_keys(entries[::2])
        if not isinstance(target, dict):
            raise Refused(f"entries for a {type(target).__name__}")
        target.update(zip(entries[::2], entries[1::2], strict=True))

    def _refuse(self) -> None:
        raise Refused("an operation that no checkpoint needs (extension codes or byte arrays)")

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    for _code in (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8):
        dispatch[_code[0]] = _refuse
    for _code in (pickle.INST, pickle.OBJ, pickle.FROZENSET):
        dispatch[_code[0]] = _refuse
    del _code
