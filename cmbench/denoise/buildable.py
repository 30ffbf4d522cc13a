"""Tests whether a model's fields form a valid network, without memory and before anything runs."""

import json
from functools import lru_cache

import torch

from cmbench.core.digests import canonical
from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.denoise.model import Model

__all__ = ["require_buildable"]

_MOST_PARAMETERS = 20_000_000_000


def require_buildable(model: Model, where: str = "") -> None:
    """Builds the model on PyTorch's meta device, which allocates and draws nothing.

    A model that can't be built there (its `build` reads values of tensors) is taken as it is.

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
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            module = model.build()
    except NotImplementedError:
        return ""
    except UserError as error:
        return error.what
    except Exception as error:
        return "" if "meta" in str(error) else f"{type(error).__name__}: {error}"
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"it would have {count:,} parameters" if count > _MOST_PARAMETERS else ""
