"""Weights of extractors: a given file, the file of an environment variable, or an asset."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cmbench.core.digests import file_sha256
from cmbench.core.errors import Pending, UserError
from cmbench.core.files import parsing, regular_file
from cmbench.core.paths import cache_folder, user_path
from cmbench.core.tensor_files import read_safetensors

__all__ = ["read_state", "weights_path"]


def weights_path(given: Path | None, variable: str, file: str, asset: str) -> Path:
    """Returns the path of the weights file.

    Args:
        given: A path from the suite, or None.
        variable: Environment variable that may hold a path.
        file: Name of the asset's file in the cache.
        asset: Name in the catalogue.

    Raises:
        Pending: If the asset is not in the cache, with the command that downloads it.
        UserError: If there is no file at the given path.
    """
    value = os.environ.get(variable)
    override = given or (user_path(value, where=variable) if value else None)
    if override is not None and not override.is_file():
        raise UserError(
            f"{override} does not exist", where=variable if given is None else "weights"
        )
    path = override or cache_folder() / "assets" / file
    if path.is_file():
        return path
    raise Pending(
        f"the weights of {asset} are not on this machine", command=f"cmbench assets fetch {asset}"
    )


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Reads a state dict of tensors without running code from the file.

    Raises:
        UserError: If the file is damaged, or not a plain state dict.
    """
    digest = path.with_name(path.name + ".sha256")
    if digest.is_file() and digest.read_text("utf-8").split()[0] != file_sha256(path):
        raise UserError(f"{path} is damaged", fix="delete it and download it again")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    with parsing(regular_file(path, "weights file"), "a plain state dict"):
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} is not a plain state dict", expected="names and tensors")
    return state
