"""Reads Flax checkpoints (`flax.serialization.to_bytes`): msgpack with arrays as extensions.

Only the requested trees are decoded; the others (raw weights, optimiser) are skipped, which saves
three quarters of a training checkpoint. The format is https://msgpack.org, with arrays as
extension 1 (shape, dtype, bytes), complex numbers as 2, NumPy scalars as 3.
"""

import math
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from cmbench.core.errors import UserError
from cmbench.core.files import parsing, read_regular

__all__ = ["read_flax"]

_DEPTH = 64
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_LENGTHS = {
    0xC4: (">B", "bin"), 0xC5: (">H", "bin"), 0xC6: (">I", "bin"),
    0xC7: (">B", "ext"), 0xC8: (">H", "ext"), 0xC9: (">I", "ext"),
    0xD9: (">B", "str"), 0xDA: (">H", "str"), 0xDB: (">I", "str"),
    0xDC: (">H", "array"), 0xDD: (">I", "array"), 0xDE: (">H", "map"), 0xDF: (">I", "map"),
}  # fmt: skip
_TYPES = {
    "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool",
}  # fmt: skip


def read_flax(path: Path | str, trees: Collection[str] | None = None) -> dict[str, Any]:
    """Reads a checkpoint's `trees` (all by default) as nested dictionaries of arrays.

    Raises:
        UserError: If the file is missing, truncated or no Flax checkpoint, lacks a requested
            tree, or holds anything but arrays, numbers, text and containers.
    """
    path = Path(path)
    data = read_regular(path, "weights file")
    with parsing(path, "a Flax checkpoint"):
        decoded = _Reader(data).document(trees)
    missing = [name for name in trees or () if name not in decoded]
    if missing:
        raise UserError(
            f"no tree '{missing[0]}' in the checkpoint",
            where=str(path),
            expected="a training state of consistency_models_cifar10, with params_ema",
        )
    return decoded


class _Reader:
    """A cursor over msgpack bytes; claimed sizes are checked before anything is allocated."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data, self.at = memoryview(data), 0

    def document(self, trees: Collection[str] | None) -> dict[str, Any]:
        """Reads the top-level map, of which only `trees` are decoded."""
        kind, count = self._head()
        if kind != "map":
            raise UserError(f"not a Flax checkpoint: it holds a {kind}, not a map")
        decoded = {}
        for _ in range(count):
            name = _text(self.value(0))
            if trees is None or name in trees:
                decoded[name] = self.value(0)
            else:
                self.skip(0)
        return decoded

    def value(self, depth: int) -> Any:
        """Reads the next value."""
        kind, content = self._head()
        if kind == "map":
            pairs = (
                (self.value(depth + 1), self.value(depth + 1)) for _ in self._each(content, depth)
            )
            return {_text(name): value for name, value in pairs}
        if kind == "array":
            return [self.value(depth + 1) for _ in self._each(content, depth)]
        if kind == "str":
            return _decoded(self._take(content))
        if kind == "bin":
            return self._take(content)
        if kind == "ext":
            code = self._take(1)[0]
            if depth > _DEPTH:
                raise UserError(f"the checkpoint is nested more than {_DEPTH} deep")
            return _extension(code, self._take(content), depth + 1)
        return content

    def skip(self, depth: int) -> None:
        """Skips the next value."""
        kind, content = self._head()
        if kind in ("map", "array"):
            for _ in self._each(content * (2 if kind == "map" else 1), depth):
                self.skip(depth + 1)
        elif kind in ("str", "bin", "ext"):
            self._take(content + (1 if kind == "ext" else 0))

    def _each(self, count: int, depth: int) -> range:
        if depth > _DEPTH:
            raise UserError(f"the checkpoint is nested more than {_DEPTH} deep")
        if count > len(self.data) - self.at:
            raise UserError(f"the file is truncated: {count:,} entries in fewer bytes")
        return range(count)

    def _head(self) -> tuple[str, Any]:
        """Reads the kind of the next value, and its length or the value itself."""
        code = self._take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return "number", code if code < 0x80 else code - 0x100
        if code < 0xC0:
            kinds = ("map", "array", "str", "str")
            return kinds[(code >> 4) & 3], code & (0x0F if code < 0xA0 else 0x1F)
        if code in (0xC0, 0xC2, 0xC3):
            return "constant", {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if code in _NUMBERS:
            return "number", self._number(_NUMBERS[code])
        if code in _LENGTHS:
            form, kind = _LENGTHS[code]
            return kind, self._number(form)
        if 0xD4 <= code <= 0xD8:
            return "ext", 1 << (code - 0xD4)
        raise UserError(f"not msgpack: byte 0x{code:02x} at {self.at - 1:,}")

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            left = len(self.data) - self.at
            raise UserError(f"the file is truncated: {count:,} bytes claimed, {left:,} left")
        self.at += count
        return self.data[self.at - count : self.at]


def _decoded(raw: memoryview) -> str:
    try:
        return str(raw, "utf-8", "strict")
    except UnicodeDecodeError as error:
        raise UserError(f"the file is damaged: text that is not UTF-8 ({error.reason})") from None


def _text(name: Any) -> str:
    if not isinstance(name, str | int):
        raise UserError(f"a map's key is a {type(name).__name__}", expected="text")
    return str(name)


def _extension(code: int, payload: memoryview, depth: int) -> Any:
    readers: dict[int, Callable[[Any], Any]] = {1: _array, 2: _complex, 3: _array}
    if code not in readers:
        raise UserError(f"refused: msgpack extension {code}", expected="arrays and numbers")
    return readers[code](_Reader(payload).value(depth))


def _array(parts: Any) -> np.ndarray[Any, np.dtype[Any]]:
    shape, kind, raw = parts if isinstance(parts, list) and len(parts) == 3 else ([], "", b"")
    kind = bytes(kind).decode("latin1") if isinstance(kind, memoryview) else kind
    sizes = isinstance(shape, list) and len(shape) <= 32 and all(type(n) is int for n in shape)
    known = isinstance(kind, str) and kind in _TYPES and isinstance(raw, memoryview)
    if not known or not sizes or min(shape, default=0) < 0:
        raise UserError(
            f"refused: an array of type {str(kind)[:40]!r} and shape {str(shape)[:80]}",
            expected="a type of NumPy's numbers, a list of sizes, and bytes",
        )
    dtype = np.dtype(kind).newbyteorder("<")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != len(raw):
        raise UserError(
            f"refused: an array of shape {tuple(shape)} ({claimed:,} bytes), "
            f"of which the file holds {len(raw):,}"
        )
    return np.frombuffer(raw, dtype).reshape(shape)


def _complex(parts: Any) -> complex:
    if (
        not isinstance(parts, list)
        or len(parts) != 2
        or not all(isinstance(n, int | float) for n in parts)
    ):
        raise UserError("refused: a complex number that is not two numbers")
    return complex(*parts)
