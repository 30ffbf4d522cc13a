"""Folders of diffusers pipelines: network, scheduler and weights, each in its own file.

There are two layouts: `model_index.json` with `unet/` and `scheduler/`, or all files in one
folder, as in google's DDPM repositories. A hub name (`google/ddpm-cifar10-32`) is looked up in
Hugging Face's cache on this machine; nothing is downloaded.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cmbench.core.errors import Pending, UserError
from cmbench.core.files import parsing, read_regular, regular_file
from cmbench.core.paths import user_path
from cmbench.core.tensor_files import read_safetensors
from cmbench.released.torch_state import read_state_dict

__all__ = ["DiffusersFolder", "find_diffusers", "read_diffusers_weights"]

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_HUB = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json")


@dataclass(frozen=True)
class DiffusersFolder:
    """Contents of a pipeline folder.

    Args:
        unet: The network's `config.json`.
        scheduler: The scheduler's `scheduler_config.json`.
        weights: Path of the weights file.
    """

    unet: dict[str, Any]
    scheduler: dict[str, Any]
    weights: Path


def find_diffusers(given: Path | str) -> DiffusersFolder:
    """Finds the pipeline at `given`: a folder, a weights file in one, or a name on the hub.

    Raises:
        Pending: If a hub name is not in the cache, with the command that downloads it.

        UserError: If the folder lacks a file, or a file is not JSON.
    """
    path = user_path(given)
    # os.path returns False, where pathlib raises, for a name that no file can have.
    if os.path.isdir(path):
        return _folder(path / "unet" if os.path.isdir(path / "unet") else path)
    if os.path.lexists(path):
        return _folder(path.parent, weights=regular_file(path, "weights file"))
    if _HUB.fullmatch(path.as_posix()) and path.suffix not in _FILES:
        return find_diffusers(_cached(path.as_posix()))
    raise UserError(
        f"{path} is neither a diffusers folder nor a name on the hub",
        expected="a folder with config.json, or OWNER/NAME",
    )


def read_diffusers_weights(path: Path) -> dict[str, Tensor]:
    """Reads the tensors by name from safetensors or a `torch.save` file, as data without code.

    Raises:
        UserError: If the file is broken or holds anything but tensors.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return read_state_dict(path)


def _folder(unet: Path, weights: Path | None = None) -> DiffusersFolder:
    folders = [unet.parent / "scheduler", unet]
    scheduler = next((p for p in folders if (p / "scheduler_config.json").is_file()), None)
    if scheduler is None:
        raise UserError(
            f"{unet} has no scheduler_config.json, in it or beside it",
            expected="a diffusers pipeline, whose scheduler defines the noise levels",
        )
    if weights is None:
        files = [unet / name for name in _WEIGHTS if (unet / name).is_file()]
        weights = files[0] if files else _other_weights(unet)
    return DiffusersFolder(
        _read(unet / "config.json"), _read(scheduler / "scheduler_config.json"), weights
    )


def _other_weights(unet: Path) -> Path:
    """Raises a UserError that names the files found in place of full-precision weights."""
    other = sorted(f.name for f in unet.glob("diffusion_pytorch_model*") if f.suffix in _FILES)
    shards = [name for name in other if "-of-" in name]
    if shards:
        raise UserError(
            f"{unet} holds its weights in {len(shards)} shards, first {shards[0]}",
            expected=_WEIGHTS[0],
            fix="save the network with diffusers: save_pretrained(FOLDER, max_shard_size='1TB')",
        )
    if other:
        raise UserError(
            f"{unet} holds only {other[0]}, a variant in another precision or name",
            expected=_WEIGHTS[0],
            fix=f"give that file itself: {unet / other[0]}",
        )
    raise UserError(f"{unet} holds no weights", expected=" or ".join(_WEIGHTS))


def _read(path: Path) -> dict[str, Any]:
    data = read_regular(path, "configuration")
    with parsing(path, "JSON", fix="download the folder's file again"):
        config = json.loads(data.decode("utf-8"))
    if not isinstance(config, dict):
        raise UserError("not a mapping of keys to values", where=str(path))
    return config


def _cached(name: str) -> Path:
    """Returns the snapshot of a hub repository in Hugging Face's cache."""
    folder = _hub_cache() / ("models--" + name.replace("/", "--"))
    reference = folder / "refs" / "main"
    revision = ""
    if reference.is_file():
        with parsing(reference, "the name of a revision"):
            revision = read_regular(reference).decode("utf-8").strip()
    snapshots = sorted((folder / "snapshots").glob("*")) if folder.is_dir() else []
    matching = [s for s in snapshots if s.name == revision] or snapshots
    if not matching:
        raise Pending(
            f"{name} is neither a folder here nor in Hugging Face's cache ({_hub_cache()})",
            command=f"hf download {name}",
        )
    return matching[0]


def _hub_cache() -> Path:
    if "HF_HUB_CACHE" in os.environ:
        return user_path(os.environ["HF_HUB_CACHE"])
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / (
        "huggingface"
    )
    return user_path(home) / "hub"
