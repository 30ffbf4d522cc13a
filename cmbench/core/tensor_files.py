"""Tensors by name from a safetensors file, every fault of which is a UserError with its path."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from cmbench.core.files import parsing, regular_file

__all__ = ["read_safetensors"]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file by name, on the CPU.

    Raises:
        UserError: If the file is missing, no regular file, truncated or not safetensors.
    """
    regular_file(path, "weights file")
    with parsing(path, "safetensors", fix="delete it and run again, or bring an intact copy"):
        return load_file(path)
