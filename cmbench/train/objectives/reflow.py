"""Reflow: a flow trained on pairs of a first flow, whose lines cross less.

Rectified flow (https://arxiv.org/abs/2209.03003, section 2, Algorithm 1): the teacher's ODE maps
noise n to an image, and the student matches velocities on the line between the two. The authors
store their pairs; here each is computed when needed, by Heun's method on even steps.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.core.bounds import Levels
from cmbench.core.errors import UserError
from cmbench.denoise.flow import FlowDenoiser
from cmbench.train.draws import Draws
from cmbench.train.objectives._flow import FlowLoss
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["Reflow"]


class Reflow(Objective):
    """Reflow; it uses only the number of images, and the student starts as the teacher."""

    needs_teacher: ClassVar[bool] = True

    solver_steps: Levels = Field(default=6, description="Heun steps of the teacher's ODE")

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If student or teacher predicts no velocities.
        """
        if not isinstance(setup.teacher, FlowDenoiser):
            raise UserError("objective reflow needs a flow as teacher", fix="teacher: flow/digits")
        return _Reflow(self, setup, setup.teacher)

    def forward_equivalents(self) -> float:
        """Counts student 3 (forward and backward) and teacher 2 per solver step."""
        return 3.0 + 2 * self.solver_steps

    def starts_from_teacher(self) -> bool:
        """Returns True."""
        return True

    def initial_state(self, teacher: nn.Module) -> dict[str, Any] | None:
        """Returns the teacher's weights."""
        return dict(teacher.state_dict())


class _Reflow(FlowLoss):
    def __init__(self, spec: Reflow, setup: Setup, teacher: FlowDenoiser) -> None:
        super().__init__(setup)
        self.spec = spec
        # The teacher is outside of the module tree, so that it is not part of a checkpoint.
        self._teacher = [teacher.eval().requires_grad_(False)]

    @torch.no_grad()
    def carried(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Returns the images to which the teacher's ODE maps noise (B, C, H, W)."""
        x, teacher, h = noise, self._teacher[0], 1 / self.spec.solver_steps
        for i in range(self.spec.solver_steps):
            t = x.new_full((len(x),), 1 - i * h)
            slope = teacher.velocity(x, t, labels)
            ahead = teacher.velocity(x - h * slope, (t - h).clamp(min=0), labels)
            x = x - h * (slope + ahead) / 2
        return x

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        t, noise = draws.uniform(), draws.normal(*images.shape[1:])
        return self.match(self.carried(noise, labels), noise, t, labels)
