"""Components: parameter objects whose pydantic fields are schema, documentation and record."""

import math
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["Component"]


class Component(BaseModel):
    """A sampler, metric, distance, ... as named in YAML: `{name: heun, rho: 7}`.

    The class's fields are the YAML's parameters; the name is the file's. Heavy state (weights,
    devices) is made by the subclass's `build`, never in the constructor. Every field counts
    towards a cell's identity, except those named in `transport`. Floats are finite, in fields of
    any type, unless a field says otherwise (`Field(allow_inf_nan=True)`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: ClassVar[str] = "component"
    name: ClassVar[str] = ""
    transport: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how the work is done, not its numbers: batch sizes, paths, devices."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__module__.rsplit(".", 1)[-1]

    @model_validator(mode="after")
    def _finite_inside(self) -> Self:
        # The fields' own floats are pydantic's; those inside a free-form mapping are not.
        for name, value in self.__dict__.items():
            if isinstance(value, dict) and not _is_finite(value):
                raise ValueError(f"{name} holds a number that is not finite")
        return self

    def spec(self) -> dict[str, Any]:
        """Name and all parameters that change numbers: what digests and records hold."""
        return {"name": self.name, **self.model_dump(mode="json", exclude=set(self.transport))}


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_finite(inner) for inner in value)
    return not isinstance(value, float) or math.isfinite(value)
