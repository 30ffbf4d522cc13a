"""Rules of loading: averaged weights are loaded, those of another network are refused."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.denoise.model import Model
from cmbench.released.torch_state import read_torch

__all__ = ["check_weights"]

_AVERAGES = ("ema", "ema_model", "model_ema", "average")


def check_weights(model: Model, file: Path | None) -> dict[str, Callable[[], None]]:
    """Returns the rules of loading with their checks; without a weights file there are fewer."""
    rules: dict[str, Callable[[], None]] = {
        "weights of another network are refused": lambda: _refuses_others(model)
    }
    if file is not None:
        rules["loading changes the weights"] = lambda: _changes(model, file)
        if file.suffix in (".pt", ".pth", ".ckpt"):
            rules["the averaged weights are loaded"] = lambda: _takes_average(model, file)
    return rules


def _refuses_others(model: Model) -> None:
    module = model.build()
    state = {k: v.clone().contiguous() for k, v in module.state_dict().items()}
    if not state:
        return
    first = next(iter(state))
    state[f"{first}.of_another_network"] = state.pop(first)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "other.safetensors"
        save_file(state, path)
        try:
            model.load(module, path)
        except UserError:
            return
    raise UserError(
        f"a file without '{first}' and with an unknown tensor was loaded without an error",
        fix="load with cmbench.api.load_weights, or load_state_dict(strict=True)",
    )


def _changes(model: Model, file: Path) -> None:
    torch.manual_seed(123)
    module = model.build()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    model.load(module, file)
    after = module.state_dict()
    changed = [k for k in before if k not in after or not torch.equal(before[k], after[k])]
    if not changed:
        raise UserError(
            "load left every weight at its random value",
            fix="copy the weights into the module that load is given",
        )


def _takes_average(model: Model, file: Path) -> None:
    """Refuses raw weights if a checkpoint holds averaged ones too."""
    checkpoint = read_torch(file)
    if not isinstance(checkpoint, Mapping):
        return
    average = _first(checkpoint, _AVERAGES)
    raw = _first(checkpoint, ("model", "state_dict"))
    if average is None or raw is None:
        return
    module = model.build()
    model.load(module, file)
    loaded = _sums(dict(module.named_parameters()))
    if len(loaded & _sums(average)) < len(loaded & _sums(raw)):
        raise UserError(
            f"{file.name} holds raw and averaged (EMA) weights; the raw ones were loaded",
            fix="load the averaged ones, which published numbers belong to",
        )


def _first(checkpoint: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any] | None:
    return next((checkpoint[k] for k in names if isinstance(checkpoint.get(k), Mapping)), None)


def _sums(tensors: Mapping[str, Any] | dict[str, nn.Parameter]) -> set[tuple[int, float]]:
    values = [v for v in tensors.values() if isinstance(v, Tensor) and v.is_floating_point()]
    return {(v.numel(), round(float(v.double().sum()), 9)) for v in values}
