"""Pickled statistics (EDM2's .pkl), read without running code: dictionaries of arrays only.

Such a file holds {"fid": {"mu", "sigma"}, "fd_dinov2": {...}, "num_images"}
(https://arxiv.org/abs/2312.02696).
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file, parsing, read_regular
from cmbench.core.safe_pickle import SafeUnpickler

__all__ = ["read_pickled_arrays", "write_pickled_arrays"]


def read_pickled_arrays(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Reads arrays by group; the top level of the file is the group "".

    Raises:
        UserError: If the file is missing, truncated or not a dictionary, or if it asks for
            anything but data, or for more memory than its size justifies.
    """
    data = read_regular(path, "statistics file")
    with parsing(path, "a pickle of statistics"):
        content = SafeUnpickler(io.BytesIO(data)).load()
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}", expected="a dictionary")
    groups: dict[str, dict[str, np.ndarray]] = {"": _arrays_of(content)}
    for name, value in content.items():
        if isinstance(value, dict):
            groups[str(name)] = _arrays_of(value)
    return groups


def write_pickled_arrays(path: Path, groups: dict[str, dict[str, np.ndarray]], count: int) -> None:
    """Writes groups of arrays with the number of images behind them.

    Raises:
        OSError: If the file can't be written; no partial file remains.
    """
    with atomic_file(path) as file:
        pickle.dump({"num_images": count, **groups}, file, protocol=4)


def _arrays_of(content: dict[Any, Any]) -> dict[str, np.ndarray]:
    return {
        str(name): np.asarray(value)
        for name, value in content.items()
        if isinstance(value, np.ndarray | int | float | np.generic)
    }
