"""Substitutes for torch's names in a pickle: storages, and tensors within their bounds."""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cmbench.core.safe_pickle import ARRAYS, OrderedEntries, Refused, SafeUnpickler, plain_set

__all__ = ["TENSORS", "Storage", "TensorUnpickler"]


@dataclass(frozen=True)
class Storage:
    """The one-dimensional data behind tensors."""

    values: Tensor


@dataclass(frozen=True)
class _StorageType:
    dtype: torch.dtype


def _bounded_view(
    storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """Returns a view of a storage, checked to stay inside it and to be no larger.

    Raises:
        Refused: If the tensor claims more numbers than the storage has.
    """
    numbers = (offset, *size, *stride)
    if len(size) > 16 or not all(type(n) is int and abs(n) < 1 << 63 for n in numbers):
        raise Refused("a tensor whose size is not a short list of integers")
    have = storage.values.numel()
    want = math.prod(size)
    reach = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) + 1
    sane = offset >= 0 and min(size, default=0) >= 0 and min(stride, default=0) >= 0
    if not sane or want > have or (want and reach > have):
        claimed = want * storage.values.element_size()
        raise Refused(f"a tensor of size {tuple(size)} ({claimed:,} bytes) over {have:,} numbers")
    return storage.values.as_strided(tuple(size), tuple(stride), offset)


def _tensor(
    storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    if not isinstance(storage, Storage):
        raise Refused(f"a tensor over a {type(storage).__name__}")
    return _bounded_view(storage, offset, size, stride)


def _parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


def _device(name: Any, *_: Any) -> str:
    if not isinstance(name, str):
        raise Refused("a device without a name")
    return name


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

TENSORS: Mapping[str, Any] = {
    **ARRAYS,
    "collections.OrderedDict": OrderedEntries,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": tuple,
    "builtins.set": plain_set,
    "__builtin__.set": plain_set,
    "torch.device": _device,
    **{f"torch.{name}Storage": _StorageType(kind) for name, kind in _STORAGES.items()},
    **{str(kind): kind for kind in _STORAGES.values()},
}
"""Global names that a file of tensors may use, with their substitutes."""


class TensorUnpickler(SafeUnpickler):
    """Unpickles tensors whose storages may be outside of the stream.

    Args:
        file: The stream.
        allowed: Substitutes by global name.
        find_storage: Returns the storage that the stream refers to by (key, dtype, count).
    """

    def __init__(
        self,
        file: io.BytesIO,
        allowed: Mapping[str, Any] = TENSORS,
        find_storage: Callable[[str, torch.dtype, int], Storage] | None = None,
    ) -> None:
        super().__init__(file, allowed)
        self._find_storage = find_storage

    def persistent_load(self, pid: Any) -> Storage:
        """Returns a storage that is outside of the stream."""
        known = isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"
        if not known or self._find_storage is None or not isinstance(pid[1], _StorageType):
            raise Refused("a reference to something outside of the stream")
        if not isinstance(pid[2], str) or type(pid[4]) is not int:
            raise Refused("a storage without a name and a length")
        if len(pid) > 5 and pid[5] is not None:
            raise Refused("a storage that is a view of another (a format older than torch 0.4)")
        return self._find_storage(pid[2], pid[1].dtype, pid[4])
