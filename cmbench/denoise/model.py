"""The contract of a model plugin, and how its weights are read."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import nn

from cmbench.core.component import Component
from cmbench.core.errors import UserError
from cmbench.core.tensor_files import read_safetensors

__all__ = ["Model", "Published", "load_weights"]


class Published(BaseModel):
    """A number that the authors printed, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    value: float
    nfe: int
    source: str


class Model(Component, ABC):
    """One family of models: `models/<family>/adapter.py`, or `models/<name>.py`.

    The fields are the configuration (architecture, preconditioning, classes); a card or a recipe
    gives their values. `build` makes the network with random weights, `load` fills it in.
    """

    kind: ClassVar[str] = "model"
    sampler: ClassVar[dict[str, Any] | None] = None
    """The family's own sampler, used where a suite names none; None for a Generator."""

    makes: ClassVar[frozenset[str]] = frozenset({"denoiser"})
    """What `build` gives, in the words of `Sampler.accepts`; other samplers are refused."""

    @classmethod
    def opened(cls, given: Path) -> tuple[Path, dict[str, Any]]:
        """The weights file that `given` stands for, and the fields that files beside it tell.

        By default `given` itself, and none. A family whose checkpoints are folders, or names on
        a hub, finds the file in them and reads its configuration there.

        Raises:
            UserError: If the folder is not one of the family's.
            Pending: If a name stands for files that are not on this machine.
        """
        return given, {}

    @abstractmethod
    def build(self) -> nn.Module:
        """A Denoiser (cmbench binds it with a sampler), a Restorer, or a Generator that is a
        module; on the CPU, in evaluation mode, randomly initialised from torch's global RNG.
        """

    def load(self, module: nn.Module, weights: Path) -> None:
        """Reads `weights` into `module`; by default cmbench's own safetensors.

        Raises:
            UserError: If the file is truncated or belongs to another architecture.
        """
        load_weights(module, weights)


def load_weights(module: nn.Module, weights: Path) -> None:
    """Loads a safetensors file whose names are exactly `module`'s; float16 is cast up.

    Raises:
        UserError: If the file is missing, truncated, or belongs to another architecture.
    """
    state = read_safetensors(weights)
    own = module.state_dict()
    wrong = [k for k in own if k not in state] + [k for k in state if k not in own]
    wrong += [k for k in own if k in state and own[k].shape != state[k].shape]
    if wrong:
        raise UserError(
            f"weights file {weights} is of another architecture: {len(wrong)} tensors differ, "
            f"first '{wrong[0]}'",
            expected=f"{len(own)} tensors as in {type(module).__name__}",
        )
    module.load_state_dict(state)
