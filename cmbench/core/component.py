"""Components: parameter objects whose pydantic fields are schema, documentation and record."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

__all__ = ["Component"]


class Component(BaseModel):
    """A sampler, metric, distance, ... as named in YAML: `{name: heun, rho: 7}`.

    The class's fields are the YAML's parameters; the name is the file's. Heavy state (weights,
    devices) is made by the subclass's `build`, never in the constructor. Every field counts
    towards a cell's identity, except those named in `transport`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str] = "component"
    name: ClassVar[str] = ""
    transport: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how the work is done, not its numbers: batch sizes, paths, devices."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__module__.rsplit(".", 1)[-1]

    def spec(self) -> dict[str, Any]:
        """Name and all parameters that change numbers: what digests and records hold."""
        return {"name": self.name, **self.model_dump(mode="json", exclude=set(self.transport))}
