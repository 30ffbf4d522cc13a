"""Tests before anything runs whether a model's fields form a valid network; fills no weights.

PyTorch's meta device would do the same, but its first use imports for two seconds, and a `build`
that reads the values of a table fails on it.
"""

import json
from functools import lru_cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from cmbench.core.digests import canonical
from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.denoise.model import Model

__all__ = ["require_buildable"]

_MOST_PARAMETERS = 20_000_000_000

_SMALL = 4_096
"""Tensors up to this size are filled: tables of noise levels, which a `build` may read."""

_FILLING = {
    "fill_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_", "orthogonal_",
    "trunc_normal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zero_", "zeros_",
}  # fmt: skip


def require_buildable(model: Model, where: str = "") -> None:
    """Builds the model once with its large tensors unfilled, and drops it.

    Raises:
        UserError: If its fields make no network, with the reason, or one of more than 20 billion
            parameters.
    """
    fault = _fault(canonical(model.spec()))
    if fault:
        raise UserError(f"model '{model.name}' can't be built: {fault}", where=where)


@lru_cache(maxsize=256)
def _fault(spec: str) -> str:
    model: Model = create("model", json.loads(spec))
    try:
        with torch.random.fork_rng(devices=[]), _Unfilled():
            module = model.build()
    except UserError as error:
        return error.what
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"it would have {count:,} parameters" if count > _MOST_PARAMETERS else ""


class _Unfilled(TorchFunctionMode):
    """Leaves large new tensors as they are: their memory is reserved, but never touched."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        tensor = args[0] if args else given.get("tensor")
        fills = getattr(func, "__name__", "") in _FILLING
        if fills and isinstance(tensor, torch.Tensor) and tensor.numel() > _SMALL:
            return tensor
        return func(*args, **given)
