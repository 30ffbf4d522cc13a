"""The unpickler for files from elsewhere: it rebuilds data, runs nothing, and stays in bounds.

A file may name what is on a short list: `ARRAYS`, or a longer one that a reader of checkpoints
gives. The class is written on Python's own unpickler, not the C one, whose memo and byte arrays
take the sizes that a stream claims before a byte of them is there, and which no signal interrupts.
"""

import io
import math
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from cmbench.core.errors import UserError

__all__ = [
    "ARRAYS",
    "OrderedEntries",
    "Refused",
    "SafeUnpickler",
    "check_keys",
    "plain_set",
]

_MOST_OPERATIONS = 2_000_000
"""Operations of one stream; CIFAR-10's batches have 60,000, EDM's networks 20,000."""
_MOST_NODES = 2_000_000
"""Values in the result, where a part that is shared counts each time."""
_SIZED = (str, bytes, list, tuple, dict, set)
_DEEPEST = 200
"""Containers inside one another."""
_WIDEST_KEY = 1 << 60
"""Whole numbers below it have a hash of their own: more of them can't be made to collide."""


class Refused(UserError):
    """The file asks for something that is not data; nothing of it was run."""

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        expected: str = "arrays, numbers, text and containers of them; nothing was run",
        fix: str = "",
    ) -> None:
        told = what if what.startswith("refused: ") else f"refused: {what}"
        super().__init__(told, where=where, expected=expected, fix=fix)


class OrderedEntries(OrderedDict[Any, Any]):
    """An OrderedDict that takes keys of text and numbers alone."""

    def __init__(self, entries: Any = ()) -> None:
        pairs = list(entries)
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            raise Refused("a dictionary made of anything but pairs")
        check_keys([pair[0] for pair in pairs])
        super().__init__(pairs)


def check_keys(keys: list[Any]) -> None:
    """Refuses keys that are not text or numbers.

    A nested tuple as a key could take for ever to hash (60 doublings fit in 200 bytes), and huge
    whole numbers can be chosen to have one hash.

    Raises:
        Refused: If one is not.
    """
    for key in keys:
        if not isinstance(key, str | int | float | bytes | None):
            raise Refused("a dictionary or set whose key is not text or a number")
        if isinstance(key, int) and abs(key) >= _WIDEST_KEY:
            raise Refused("a dictionary or set whose key is a huge number")


def plain_set(items: Any = ()) -> set[Any]:
    """Makes a set of text and numbers; anything else is Refused."""
    check_keys(list(items))
    return set(items)


class _NumpyType:
    """A NumPy type in the making: its byte order comes as its state."""

    def __init__(self, name: str, *_: Any) -> None:
        if not re.fullmatch(r"[<>|=]?(?:[biufc](?:1|2|4|8|16)|\?|[SU][1-9]\d{0,3})", name):
            raise Refused(f"the NumPy type {name[:40]!r}")
        self.dtype = np.dtype(name)

    def take_state(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder("<" if order == "<" else ">")


def _checked_array(kind: Any, shape: Any, raw: Any) -> tuple[np.dtype[Any], bytes]:
    """The type and the bytes of an array, if they are as many as its shape says."""
    if not isinstance(kind, _NumpyType) or not isinstance(shape, tuple) or len(shape) > 32:
        raise Refused("an array without a type and a shape")
    # Python 2 wrote bytes as text.
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(data, bytes) or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise Refused("an array without its bytes")
    if math.prod(shape) * kind.dtype.itemsize != len(data):
        claimed = math.prod(shape) * kind.dtype.itemsize
        raise Refused(f"an array of {claimed:,} bytes, of which the file holds {len(data):,}")
    return kind.dtype, data


class _Array:
    """Stands for numpy.ndarray, which is asked for by `_reconstruct` alone."""


def _reconstruct(kind: Any, *_: Any) -> np.ndarray[Any, Any]:
    """The empty array that is filled by its state."""
    if kind is not _Array:
        raise Refused("an array of a class of its own")
    return np.empty(0, np.uint8)


def _array_from_buffer(
    raw: Any, kind: Any, shape: Any, order: str = "C"
) -> np.ndarray[Any, np.dtype[Any]]:
    dtype, data = _checked_array(kind, shape, raw)
    return np.frombuffer(data, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def _numpy_scalar(kind: Any, raw: Any) -> Any:
    dtype, data = _checked_array(kind, (), raw)
    return np.frombuffer(data, dtype)[0].item()


def _encoded(text: str, codec: str = "latin1") -> bytes:
    if codec not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise Refused(f"text encoded as {codec!r}")
    return text.encode(codec)


ARRAYS: Mapping[str, Any] = {
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (
            ("multiarray._reconstruct", _reconstruct),
            ("multiarray.scalar", _numpy_scalar),
            ("numeric._frombuffer", _array_from_buffer),
        )
    },
    "numpy.ndarray": _Array,
    "numpy.dtype": _NumpyType,
    "_codecs.encode": _encoded,
    "__builtin__.bytes": lambda: b"",  # as protocols 0 to 2 write empty bytes
}
"""Global names that a file of NumPy arrays may use, and what stands for them here."""


class _Operations(dict[int, Callable[..., None]]):
    """The unpickler's operations by code; refuses to hand out more than a file may need."""

    left = _MOST_OPERATIONS

    @override
    def __getitem__(self, code: int) -> Callable[..., None]:
        self.left -= 1
        if self.left < 0:
            raise Refused(f"a pickle of more than {_MOST_OPERATIONS:,} operations")
        return super().__getitem__(code)

    def __missing__(self, code: int) -> Callable[..., None]:
        raise pickle.UnpicklingError(f"no pickle has the operation 0x{code:02x}")


class SafeUnpickler(pickle._Unpickler):
    """Unpickles with `allowed` names alone.

    Args:
        file: The stream.
        allowed: Global name to what stands for it: a function, a class, or a value.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(
        self,
        file: io.BytesIO,
        allowed: Mapping[str, Any] = ARRAYS,
    ) -> None:
        super().__init__(file, encoding="latin1")
        self._allowed = allowed
        self._length = len(file.getbuffer())
        # Calls copy what they are given: all together not much more than the file holds.
        self._room = 4 * self._length + (1 << 20)
        vars(self)["dispatch"] = _Operations(self.dispatch)

    @override
    def load(self) -> Any:
        """Reads the stream's next pickle.

        Raises:
            Refused: If it asks for anything but data, or for more than its bytes justify.
            Exception: Of many kinds, for a broken stream (see `cmbench.core.files.parsing`).
        """
        found = super().load()
        _measure(found, 0, {})
        return found

    @override
    def find_class(self, module: str, name: str) -> Any:
        """Returns the harmless stand-in for a global name.

        Raises:
            Refused: If it is not on the list.
        """
        full = f"{module}.{name}"
        if full not in self._allowed:
            raise Refused(f"the file asks for {full[:200]!r}")
        return self._allowed[full]

    @override
    def persistent_load(self, pid: Any) -> Any:
        """Refuses a part that is kept outside of the stream.

        Raises:
            Refused: Always; the subclass for torch's files loads storages.
        """
        raise Refused("a reference to something outside of the stream")

    def load_build(self) -> None:
        """State for an object: only for those that have a way to take it here."""
        state, target = self.stack.pop(), self.stack[-1]
        self._pay(state)
        if isinstance(target, np.ndarray):
            _fill(target, state)
        elif hasattr(type(target), "take_state"):
            target.take_state(state)
        elif not isinstance(target, OrderedDict):
            raise Refused(f"state for a {type(target).__name__}")

    def load_reduce(self) -> None:
        """A call of one of the allowed names."""
        self._pay(self.stack[-1])
        super().load_reduce()  # type: ignore[misc]

    def load_newobj(self) -> None:
        """An object of one of the allowed names."""
        self._pay(self.stack[-1])
        super().load_newobj()  # type: ignore[misc]

    def load_bytearray8(self) -> None:
        """Bytes, as NumPy's arrays in protocol 5 are; kept as immutable ones."""
        (count,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        if count > self._length:
            raise Refused(f"{count:,} bytes in a file of {self._length:,}")
        self.stack.append(self.read(count))  # type: ignore[attr-defined]

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
        self.stack[-1].update(plain_set(members))

    def _marked(self) -> list[Any]:
        found: list[Any] = self.pop_mark()  # type: ignore[attr-defined]
        return found

    def _enter(self, target: Any, entries: list[Any]) -> None:
        check_keys(entries[::2])
        if not isinstance(target, dict):
            raise Refused(f"entries for a {type(target).__name__}")
        target.update(zip(entries[::2], entries[1::2], strict=True))

    def _pay(self, given: Any) -> None:
        """Counts what a call is given, one level deep."""
        parts = given if isinstance(given, tuple | list) else (given,)
        self._room -= sum(len(part) for part in parts if isinstance(part, _SIZED))
        if self._room < 0:
            raise Refused("calls that copy the same values again and again")

    def _refuse(self) -> None:
        raise Refused("an operation that no file of data needs (extension codes, classes)")

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    for _code in (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEWOBJ_EX):
        dispatch[_code[0]] = _refuse
    for _code in (pickle.INST, pickle.OBJ, pickle.FROZENSET):
        dispatch[_code[0]] = _refuse
    del _code


def _fill(array: np.ndarray[Any, Any], state: Any) -> None:
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise Refused("an array without its state")
    shape, kind, fortran, raw = state[-4:]
    dtype, data = _checked_array(kind, shape, raw)
    array.__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]


def _measure(value: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Counts the values inside `value`, shared ones each time, and the containers in one another.

    Raises:
        Refused: If there are more than whoever walks through them can bear, or if something is
            inside itself.
    """
    if isinstance(value, dict):
        parts: Any = value.values()
    elif isinstance(value, list | tuple):
        parts = value
    elif hasattr(type(value), "take_state") and hasattr(value, "state"):
        parts = (value.state,)
    else:
        return 1, 0
    if id(value) not in known:
        total, height = 1, 0
        for part in parts if depth <= _DEEPEST else ():
            inside, below = _measure(part, depth + 1, known)
            total, height = total + inside, max(height, below)
        known[id(value)] = total, height + 1
        if depth + height > _DEEPEST:
            raise Refused(f"values nested more than {_DEEPEST} deep, or inside themselves")
        if total > _MOST_NODES:
            raise Refused(f"a nest of more than {_MOST_NODES:,} values")
    return known[id(value)]
