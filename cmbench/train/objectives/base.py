"""The contract of a training objective: a loss of the student on the data."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cmbench.core.component import Component
from cmbench.train.draws import Draws

__all__ = ["Loss", "Objective", "Setup", "Shared"]


class Shared:
    """Tensors shared by students trained in step; the first to reach a step computes them."""

    def __init__(self) -> None:
        self._step, self._made = -1, tuple[Tensor, ...]()

    def at(self, step: int, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Returns the result of `make` at `step`; only the latest step's is stored."""
        if step != self._step:
            self._step, self._made = step, make()
        return self._made


@dataclass
class Setup:
    """Arguments of an objective's `build`.

    Args:
        student: The module to train, as returned by the model plugin's `build`.
        teacher: The trained module of the teacher's card in evaluation mode, or None.
        distance: The distance module, or None if the objective has its own loss.
        total_steps: Total number of optimiser steps, which schedules refer to.
        device: Device of all modules.
        shared: Tensors shared by students trained in step.
    """

    student: nn.Module
    teacher: nn.Module | None
    distance: nn.Module | None
    total_steps: int
    device: torch.device
    shared: Shared = field(default_factory=Shared)


class Loss(nn.Module, ABC):
    """A built objective; its buffers and submodules (the target network) are checkpointed."""

    @abstractmethod
    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        """Computes the loss per image (B,) of images (B, C, H, W) in [-1, 1].

        Every random number is taken from `draws`.
        """

    def after_step(self, step: int) -> None:
        """Updates target networks or stages after each optimiser step, before `step` grows."""

    def learning_rate_share(self, step: int) -> float:
        """Returns the factor of the recipe's learning rate at `step`; stages may decay it."""
        return 1.0

    def restarts(self, step: int) -> bool:
        """Returns True if a new stage begins at `step`, before which the optimiser is reset."""
        return False

    def progress(self, step: int) -> dict[str, float]:
        """Returns numbers to show and log with the loss, such as N(k), mu(k) or the stage."""
        return {}


class Objective(Component, ABC):
    """A training objective and its hyperparameters."""

    kind: ClassVar[str] = "objective"
    needs_teacher: ClassVar[bool] = False
    needs_distance: ClassVar[bool] = False

    @abstractmethod
    def build(self, setup: Setup) -> Loss:
        """Builds the loss; a target network is a copy of the student."""

    def forward_equivalents(self) -> float:
        """Forward passes per training image; a backward pass counts as two."""
        return 3.0

    def shares(self) -> dict[str, Any] | None:
        """Fields that determine the tensors shared by students of one teacher with equal draws.

        None if students share nothing.
        """
        return None

    def starts_from_teacher(self) -> bool:
        """Returns True if the student is initialised with the teacher's weights."""
        return False

    def initial_state(self, teacher: nn.Module) -> dict[str, Any] | None:
        """Returns the student's initial weights from the teacher's, or None for random ones."""
        return None
