"""Weights that extractors find: a file given, one an environment variable names, or an asset."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cmbench.core.digests import file_sha256
from cmbench.core.errors import Pending, UserError
from cmbench.core.files import parsing, regular_file
from cmbench.core.paths import cache_folder
from cmbench.core.tensor_files import read_safetensors

__all__ = ["read_state", "weights_path"]


def weights_path(given: Path | None, variable: str, file: str, asset: str) -> Path:
    """The weights file.

    Args:
        given: A path from the suite.
        variable: Environment variable that may name one.
        file: Name of the asset's file in the cache.
        asset: Name in the catalogue.

    Raises:
        Pending: If it is not here, with the command that brings it.
        UserError: If a path was given and nothing is there.
    """
    named = os.environ.get(variable)
    chosen = given or (Path(named).expanduser() if named else None)
    if chosen is not None and not chosen.is_file():
        raise UserError(f"{chosen} is not there", where=variable if given is None else "weights")
    path = chosen or cache_folder() / "assets" / file
    if path.is_file():
        return path
    raise Pending(f"the weights of {asset} are not here", command=f"cmbench assets fetch {asset}")


def read_state(path: Path) -> Mapping[str, Tensor]:
    """A state dict of tensors, read without running anything that the file holds.

    Raises:
        UserError: If it is damaged, or not a plain state dict.
    """
    kept = path.with_name(path.name + ".sha256")
    if kept.is_file() and kept.read_text("utf-8").split()[0] != file_sha256(path):
        raise UserError(f"{path} is damaged", fix="delete it and fetch it again")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    with parsing(regular_file(path, "weights file"), "a plain state dict"):
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} is not a plain state dict", expected="names and tensors")
    return state
