"""Progressive distillation in sigma-space: a step of the student equals two of the teacher.

Salimans and Ho (https://arxiv.org/abs/2202.00512), in the form of the consistency-models paper
(https://arxiv.org/abs/2303.01469, section 6.2): Karras levels, Euler steps. The number of
intervals halves with each stage, whose student is the next stage's teacher. Each stage has a new
optimiser whose rate decays linearly to zero. The authors of consistency models start at 4096
intervals and double the steps of the last two stages.
"""

import copy
import itertools
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.core.bounds import Levels
from cmbench.core.errors import UserError
from cmbench.denoise.base import Denoiser, expand
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["ProgressiveDistillation"]


class ProgressiveDistillation(Objective):
    """Progressive distillation with the truncated signal-to-noise ratio max(1 / t^2, 1)."""

    needs_teacher: ClassVar[bool] = True
    needs_distance: ClassVar[bool] = True

    intervals: Levels = Field(default=4096, description="N, intervals of the first stage")
    stage_steps: int = Field(
        default=50_000, ge=1, le=10**9, description="optimiser steps per stage"
    )
    final_factor: int = Field(
        default=2, ge=1, le=1000, description="factor of the steps of the last two stages"
    )
    decay: bool = Field(default=True, description="decay the rate to zero within each stage")
    weighting: Literal["truncated_snr", "uniform"] = "truncated_snr"
    rho: float = Field(default=7.0, gt=0)

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If there is no teacher, or the student is not a denoiser.
        """
        if setup.teacher is None or setup.distance is None:
            raise UserError("objective progressive needs a teacher and a distance")
        if not isinstance(setup.student, Denoiser):
            raise UserError(f"objective progressive can't train a {type(setup.student).__name__}")
        return _Halving(self, setup.student, setup.teacher, setup.distance)

    def forward_equivalents(self) -> float:
        """Counts student 3 (forward and backward) and teacher 2."""
        return 5.0

    def initial_state(self, teacher: nn.Module) -> dict[str, Any] | None:
        """Returns the teacher's weights."""
        return dict(teacher.state_dict())


class _Halving(Loss):
    def __init__(
        self,
        spec: ProgressiveDistillation,
        student: Denoiser,
        teacher: nn.Module,
        distance: nn.Module,
    ) -> None:
        super().__init__()
        self.spec, self.student, self.distance = spec, student, distance
        # A copy in the module tree: from the second stage on it must be part of a checkpoint.
        self.teacher = copy.deepcopy(teacher).eval().requires_grad_(False)

    def stage(self, step: int) -> tuple[int, int, int]:
        """Returns N, first step and length of a step's stage; the last one, N = 1, never ends."""
        count, first = self.spec.intervals, 0
        while True:
            length = self.spec.stage_steps * (self.spec.final_factor if count <= 2 else 1)
            if count == 1 or step < first + length:
                return count, first, length
            count, first = max(count // 2, 1), first + length

    def intervals(self, step: int) -> int:
        """Returns N at a step, halved with each stage down to 1."""
        return self.stage(step)[0]

    def learning_rate_share(self, step: int) -> float:
        _, first, length = self.stage(step)
        return max(1 - (step - first) / length, 0.0) if self.spec.decay else 1.0

    def restarts(self, step: int) -> bool:
        return step > 0 and self.stage(step)[1] == step

    def level(self, share: Tensor) -> Tensor:
        """Returns the Karras level at a share (B,) of the way from sigma_max to sigma_min."""
        low, high = self.student.sigma_min, self.student.sigma_max
        ends = high ** (1 / self.spec.rho), low ** (1 / self.spec.rho)
        level: Tensor = (ends[0] + share * (ends[1] - ends[0])) ** self.spec.rho
        return level

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        count = self.intervals(step)
        index = draws.integers(count)
        return self.loss(images, index, count, draws.normal(*images.shape[1:]), labels)

    def loss(
        self, images: Tensor, index: Tensor, count: int, noise: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Computes the loss per image (B,) at interval `index` (B,) of `count`, for the given
        noise.
        """
        t = self.level(index / count)
        x = images + expand(t, images) * noise
        aim = self.aim(x, index, count, labels)
        distance: Tensor = self.distance(self.student(x, t, labels), aim)
        return (
            distance * (t**-2).clamp(min=1) if self.spec.weighting == "truncated_snr" else distance
        )

    @torch.no_grad()
    def aim(self, x: Tensor, index: Tensor, count: int, labels: Tensor | None) -> Tensor:
        """Returns the D for which one Euler step ends where the teacher's two steps end."""
        levels = [self.level((index + part) / count) for part in (0.0, 0.5, 1.0)]
        ahead = x
        for now, then in itertools.pairwise(levels):
            slope = (ahead - self.teacher(ahead, now, labels)) / expand(now, x)
            ahead = ahead + expand(then - now, x) * slope
        first, last = expand(levels[0], x), expand(levels[2], x)
        return x - first * (ahead - x) / (last - first)

    def after_step(self, step: int) -> None:
        if self.restarts(step + 1):
            self.teacher.load_state_dict(self.student.state_dict())

    def progress(self, step: int) -> dict[str, float]:
        return {"N": float(self.intervals(step))}
