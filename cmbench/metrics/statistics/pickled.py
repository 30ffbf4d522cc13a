"""Pickled statistics (EDM2's .pkl): dictionaries of numbers and arrays, and nothing else is run.

Such a file holds {"fid": {"mu", "sigma"}, "fd_dinov2": {...}, "num_images"}
(https://arxiv.org/abs/2312.02696). Only what rebuilds an array may be named in the stream.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file

__all__ = ["read_pickled_arrays", "write_pickled_arrays"]

_ARRAY_PARTS = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
        ("numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
_FAULTS = (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, TypeError,
           AttributeError, MemoryError, OverflowError)  # fmt: skip


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAY_PARTS:
            return super().find_class(module, name)
        raise UserError(
            f"the pickle calls {module}.{name}, which is not data; it was not run",
            expected="numbers, text, arrays, and dictionaries of them",
        )


def read_pickled_arrays(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Arrays by group; the file's own top level is the group "".

    Raises:
        UserError: If the file is missing, truncated, no dictionary, or asks for anything but data.
    """
    try:
        with path.open("rb") as file:
            held = _ArrayUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"can't read the statistics {path}: {error}") from None
    except UserError as error:
        raise error.at(str(path)) from None
    except _FAULTS as error:
        raise UserError(f"{path} is not a whole pickle of statistics: {error}") from None
    if not isinstance(held, dict):
        raise UserError(f"{path} holds a {type(held).__name__}", expected="a dictionary")
    groups: dict[str, dict[str, np.ndarray]] = {"": _arrays_of(held)}
    for name, value in held.items():
        if isinstance(value, dict):
            groups[str(name)] = _arrays_of(value)
    return groups


def write_pickled_arrays(path: Path, groups: dict[str, dict[str, np.ndarray]], count: int) -> None:
    """Writes groups of arrays with the number of images behind them.

    Raises:
        OSError: As the file system says; nothing is left behind.
    """
    with atomic_file(path) as file:
        pickle.dump({"num_images": count, **groups}, file, protocol=4)


def _arrays_of(held: dict[Any, Any]) -> dict[str, np.ndarray]:
    return {
        str(name): np.asarray(value)
        for name, value in held.items()
        if isinstance(value, np.ndarray | int | float | np.generic)
    }
