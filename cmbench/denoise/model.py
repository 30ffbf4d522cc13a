"""The contract of a model plugin, and the default reader of its weights."""

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
    """A number that the authors published, and its source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    value: float
    nfe: int
    source: str


class Model(Component, ABC):
    """One family of models: `models/<family>/adapter.py`, or `models/<name>.py`.

    The fields are the configuration (architecture, preconditioning, classes); a card or a recipe
    sets their values. `build` constructs the network with random weights, `load` reads weights.
    """

    kind: ClassVar[str] = "model"
    sampler: ClassVar[dict[str, Any] | None] = None
    """The family's own sampler, used if a suite names none; None for a Generator."""

    makes: ClassVar[frozenset[str]] = frozenset({"denoiser"})
    """Which samplers fit: a sampler is allowed if its `accepts` is one of these words.

    Leave the default for a Denoiser. A model that only its own sampler can run needs a new word.
    """

    @classmethod
    def opened(cls, given: Path) -> tuple[Path, dict[str, Any]]:
        """Returns the weights file that `given` names, and field values read from files beside it.

        By default that is `given` itself and no fields. A family whose checkpoints are folders or
        names on a hub finds the file in them and reads its configuration there.

        Raises:
            UserError: If the folder is not a checkpoint of the family.
            Pending: If the files that a name stands for are not on this machine.
        """
        return given, {}

    @abstractmethod
    def build(self) -> nn.Module:
        """Builds a Denoiser (cmbench binds it to a sampler), a Restorer, or a Generator module.

        It is on the CPU, in evaluation mode, and randomly initialised from torch's global RNG.
        """

    def load(self, module: nn.Module, weights: Path) -> None:
        """Reads `weights` into `module`; by default a safetensors file in cmbench's names.

        Raises:
            UserError: If the file is truncated or belongs to another architecture.
        """
        load_weights(module, weights)


def load_weights(module: nn.Module, weights: Path) -> None:
    """Loads a safetensors file whose names are exactly those of `module`; float16 is cast up.

    Raises:
        UserError: If the file is missing, truncated, or belongs to another architecture.
    """
    state = read_safetensors(weights)
    expected = module.state_dict()
    wrong = [k for k in expected if k not in state] + [k for k in state if k not in expected]
    wrong += [k for k in expected if k in state and expected[k].shape != state[k].shape]
    if wrong:
        raise UserError(
            f"weights file {weights} is of another architecture: {len(wrong)} tensors differ, "
            f"first '{wrong[0]}'",
            expected=f"{len(expected)} tensors as in {type(module).__name__}",
        )
    module.load_state_dict(state)
