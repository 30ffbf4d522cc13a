"""Opens an engine by its name: engine NAME is the file `NAME_engine.py` in this folder."""

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cmbench.core.errors import UserError, unknown_name
from cmbench.core.loader import validation_message
from cmbench.engine.base import Engine
from cmbench.engine.context import JobContext
from cmbench.engine.names import engine_names
from cmbench.engine.progress import Progress

__all__ = ["open_engine"]


def open_engine(
    name: str, context: JobContext, progress: Progress, options: Mapping[str, Any]
) -> Engine:
    """Opens the engine called `name`, a context manager.

    Args:
        name: One of `engine_names()`.
        context: Store, device and caches.
        progress: Where progress is shown.
        options: Values for fields of the engine's `Options`.

    Raises:
        UserError: For an unknown name or option, or if Ray or Slurm is not reachable.
        Pending: If a package that the engine needs is not installed.
    """
    engine = _engine(name)
    allowed = list(engine.Options.model_fields)
    try:
        validated = engine.Options.model_validate(dict(options))
    except ValidationError as error:
        raise UserError(
            f"--engine {name}: {validation_message(error, allowed)}",
            expected=f"options of {name}: {', '.join(allowed) or '(none)'}",
        ) from None
    return engine.open(context, progress, validated)


def _engine(name: str) -> type[Engine]:
    if name not in engine_names():
        raise unknown_name("engine", name, engine_names())
    module = importlib.import_module(f"cmbench.engine.{name}_engine")
    engine: type[Engine] = getattr(module, module.__all__[0])
    return engine
