"""Reads NVIDIA's EDM pickles without running them: tensors, class names, constructor arguments.

Such a file (https://github.com/NVlabs/edm) holds the source text of its classes, which ordinary
unpickling executes. Here the text is skipped; what is left is the state of modules.
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
    """A network of a file and how it was constructed.

    Args:
        class_name: The wrapper's class: EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond.
        arguments: The wrapper's constructor arguments, by name.
        network: Class of the network inside (SongUNet, DhariwalUNet), empty where there is none.
        network_arguments: Its constructor arguments.
        state: Tensors by their official names, `model.` included, in their order.
    """

    class_name: str
    arguments: dict[str, Any]
    network: str
    network_arguments: dict[str, Any]
    state: dict[str, Tensor]


class _Module:
    """What stands for a module: its class's name and its state."""

    def __init__(self, class_name: str = "", state: Mapping[str, Any] | None = None) -> None:
        self.class_name, self.state = class_name, {} if state is None else state

    def take_state(self, state: Any) -> None:
        """Called with what the stream holds of a plain torch container."""
        if not isinstance(state, Mapping):
            raise Refused("a module whose state is not a dictionary")
        self.state = state


class _Container(_Module):
    """A ModuleDict, ModuleList or Sequential: made without arguments, then given its state."""

    def __new__(cls, *_: Any) -> "_Container":
        made = super().__new__(cls)
        made.class_name, made.state = "container", {}
        return made


def read_edm(path: Path | str, key: str = "ema") -> EDMFile:
    """The network under `key` of an EDM pickle (`ema` is what its authors sample from).

    Raises:
        UserError: If the file is missing, truncated, has no such network, asks for anything but
            data (naming it), or claims more than it holds.
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


def _network(found: Any, key: str) -> EDMFile:
    if not isinstance(found, Mapping) or not isinstance(found.get(key), _Module):
        held = (
            ", ".join(map(str, found))[:200]
            if isinstance(found, Mapping)
            else type(found).__name__
        )
        raise UserError(f"no network '{key}' in the file", expected=f"one of what it has: {held}")
    outer = found[key]
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
    """Parameters, then buffers, then children: the order of a state_dict."""
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
    """In place of torch_utils.persistence: keeps the name and the state, drops the source."""
    if not isinstance(meta, Mapping) or meta.get("type") != "class":
        raise Refused("a persistent object that is not a class")
    state, name = meta.get("state"), meta.get("class_name", "")
    if not isinstance(state, Mapping) or not isinstance(name, str):
        raise Refused("a persistent object without its state")
    return _Module(name.rsplit(".", 1)[-1], state)


def _nested(data: Any) -> Storage:
    """In place of torch.storage._load_from_bytes, which would run whatever the bytes hold."""
    if not isinstance(data, bytes):
        raise Refused(f"a nested file that is a {type(data).__name__}")
    found = read_torch_bytes(data)
    if not isinstance(found, Storage):
        raise Refused("a nested file that is not a tensor's storage")
    return found


def _nothing(*_: Any) -> None:
    """In place of builtins.getattr, by which some trainers store a bound method of their loss."""


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
