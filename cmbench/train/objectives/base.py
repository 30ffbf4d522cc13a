"""The contract of a training objective: what is minimised, given the student and the data."""

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
    """What students trained in step have in common: the first to reach a step makes it."""

    def __init__(self) -> None:
        self._step, self._made = -1, tuple[Tensor, ...]()

    def at(self, step: int, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What `make` gives at `step`; only the latest step's is kept."""
        if step != self._step:
            self._step, self._made = step, make()
        return self._made


@dataclass
class Setup:
    """What an objective is built with.

    Args:
        student: The module that is trained (what the model plugin's `build` returned).
        teacher: A trained module of the teacher's card in evaluation mode, or None.
        distance: The built distance module, or None where the objective has its own loss.
        total_steps: Optimiser steps of the whole training: what schedules refer to.
        device: Where all of it lies.
        shared: Common to students that are trained in step; a student alone has its own.
    """

    student: nn.Module
    teacher: nn.Module | None
    distance: nn.Module | None
    total_steps: int
    device: torch.device
    shared: Shared = field(default_factory=Shared)


class Loss(nn.Module, ABC):
    """A built objective. Its buffers and submodules (the target network) are checkpointed."""

    @abstractmethod
    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        """Loss of each image (B,), for images (B, C, H, W) in [-1, 1]; every random draw is
        taken from `draws`.
        """

    def after_step(self, step: int) -> None:
        """Called once after each optimiser step, before `step` grows: target networks, stages."""

    def learning_rate_share(self, step: int) -> float:
        """Share of the recipe's learning rate that `step` trains at; stages may decay it."""
        return 1.0

    def restarts(self, step: int) -> bool:
        """Whether the optimiser forgets its moments before `step`: a new stage begins."""
        return False

    def progress(self, step: int) -> dict[str, float]:
        """Numbers to show and log beside the loss (N(k), mu(k), stage)."""
        return {}


class Objective(Component, ABC):
    """Names a training objective and its hyperparameters."""

    kind: ClassVar[str] = "objective"
    needs_teacher: ClassVar[bool] = False
    needs_distance: ClassVar[bool] = False

    @abstractmethod
    def build(self, setup: Setup) -> Loss:
        """The loss, with its target network made from the student where it has one."""

    def forward_equivalents(self) -> float:
        """Forward passes an image costs in training; a backward counts as two."""
        return 3.0

    def shares(self) -> dict[str, Any] | None:
        """Fields that decide what students of one teacher and the same draws have in common; None
        where each must make all that it needs.
        """
        return None

    def starts_from_teacher(self) -> bool:
        """Whether the student's first weights are the teacher's."""
        return False

    def initial_state(self, teacher: nn.Module) -> dict[str, Any] | None:
        """The student's first weights taken from the teacher, or None to start at random."""
        return None
