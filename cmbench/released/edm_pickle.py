"""Reads NVIDIA's EDM pickles as data: tensors, class names, constructor arguments.

Such a file (https://github.com/NVlabs/edm) holds the source text of its classes, which ordinary
unpickling executes. This reader skips the text and keeps the state of the modules.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.core.files import parsing, read_regular
from cmbench.core.safe_pickle import OrderedEntries, Refused, SafeUnpickler
from cmbench.released.torch_pickle import TENSORS, Storage
from cmbench.released.torch_state import read_torch_bytes

__all__ = ["EDMFile", "read_edm"]


@dataclass(frozen=True)
class EDMFile:
    """A file's network and its constructor arguments.

    Args:
        class_name: The wrapper's class: EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond.
        arguments: The wrapper's constructor arguments, by name.
        network: Class of the inner network (SongUNet, DhariwalUNet); empty if there is none.
        network_arguments: The inner network's constructor arguments.
        state: Tensors by their official names, with `model.`, in the file's order.
    """

    class_name: str
    arguments: dict[str, Any]
    network: str
    network_arguments: dict[str, Any]
    state: dict[str, Tensor]


class _Module:
    """Substitute for a module: the name of its class and its state."""

    def __init__(self, class_name: str = "", state: Mapping[str, Any] | None = None) -> None:
        self.class_name, self.state = class_name, {} if state is None else state

    def take_state(self, state: Any) -> None:
        """Stores the state of a plain torch container, as found in the stream."""
        if not isinstance(state, Mapping):
            raise Refused("a module whose state is not a dictionary")
        self.state = state


class _Container(_Module):
    """Substitute for a ModuleDict, ModuleList or Sequential, constructed before its state."""

    def __new__(cls, *_: Any) -> "_Container":
        container = super().__new__(cls)
        container.class_name, container.state = "container", {}
        return container


def read_edm(path: Path | str, key: str = "ema") -> EDMFile:
    """Reads the network under `key` of an EDM pickle; its authors sample from `ema`.

    Raises:
        UserError: If the file is missing or truncated, has no such network, names anything but
            data, or claims more bytes than it holds.
    """
    path = Path(path)
    data = read_regular(path, "weights file")
    with parsing(path, "an EDM pickle"):
        if data.startswith(b"PK\x03\x04"):
            raise UserError(
                "this is a file of torch.save (a training state or a state_dict), not a network",
                expected="a network-snapshot-*.pkl, which EDM writes beside its training states",
            )
        return _network(SafeUnpickler(io.BytesIO(data), _ALLOWED).load(), key)


def _network(content: Any, key: str) -> EDMFile:
    if not isinstance(content, Mapping) or not isinstance(content.get(key), _Module):
        keys = (
            ", ".join(map(str, content))[:200]
            if isinstance(content, Mapping)
            else type(content).__name__
        )
        raise UserError(f"no network '{key}' in the file", expected=f"one of its keys: {keys}")
    outer = content[key]
    inner = _mapping(outer.state, "_modules").get("model")
    inner = inner if isinstance(inner, _Module) else _Module()
    return EDMFile(
        outer.class_name,
        dict(_mapping(outer.state, "_init_kwargs")),
        inner.class_name,
        dict(_mapping(inner.state, "_init_kwargs")),
        dict(_tensors(outer, "")),
    )


def _tensors(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yields parameters, then buffers, then children, in the order of a state_dict."""
    stated = module.state.get("_non_persistent_buffers_set")
    hidden = stated if isinstance(stated, set) else set()
    for kind in ("_parameters", "_buffers"):
        for name, value in _mapping(module.state, kind).items():
            if isinstance(value, Tensor) and not (kind == "_buffers" and name in hidden):
                yield f"{prefix}{name}", value
    for name, child in _mapping(module.state, "_modules").items():
        if isinstance(child, _Module):
            yield from _tensors(child, f"{prefix}{name}.")


def _mapping(state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = state.get(name)
    return value if isinstance(value, Mapping) else {}


def _rebuilt(meta: Any) -> _Module:
    """Replaces torch_utils.persistence: keeps the name and the state, drops the source."""
    if not isinstance(meta, Mapping) or meta.get("type") != "class":
        raise Refused("a persistent object that is not a class")
    state, name = meta.get("state"), meta.get("class_name", "")
    if not isinstance(state, Mapping) or not isinstance(name, str):
        raise Refused("a persistent object without its state")
    return _Module(name.rsplit(".", 1)[-1], state)


def _nested(data: Any) -> Storage:
    """Replaces torch.storage._load_from_bytes, which would run code in the bytes."""
    if not isinstance(data, bytes):
        raise Refused(f"a nested file that is a {type(data).__name__}")
    storage = read_torch_bytes(data)
    if not isinstance(storage, Storage):
        raise Refused("a nested file that is not a tensor's storage")
    return storage


def _nothing(*_: Any) -> None:
    """Replaces builtins.getattr, with which some trainers store a bound method of their loss."""


_ALLOWED: Mapping[str, Any] = {
    **TENSORS,
    "torch_utils.persistence._reconstruct_persistent_obj": _rebuilt,
    "torch.storage._load_from_bytes": _nested,
    "torch.nn.modules.container.ModuleDict": _Container,
    "torch.nn.modules.container.ModuleList": _Container,
    "torch.nn.modules.container.Sequential": _Container,
    "dnnlib.util.EasyDict": OrderedEntries,
    "builtins.getattr": _nothing,
}
