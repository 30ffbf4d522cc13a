"""Consistency training without a teacher: both points of a pair share one noise draw.

Consistency Models (https://arxiv.org/abs/2303.01469), Algorithm 3, with the paper's schedules of
N(k) and mu(k) (appendix C), or fixed ones.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from cmbench.core.bounds import Levels
from cmbench.denoise.base import expand
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.train.draws import Draws
from cmbench.train.objectives._consistency import (
    PairLoss,
    adaptive_points,
    adaptive_rate,
    update_average,
)
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["ConsistencyTraining"]


class ConsistencyTraining(Objective):
    """Consistency training; `schedule: adaptive` raises N from s0 to s1 + 1, and mu with it.

    `fixed` keeps N = s1 + 1 and mu0.
    """

    needs_distance: ClassVar[bool] = True

    schedule: Literal["adaptive", "fixed"] = "adaptive"
    s0: Levels = Field(default=2, description="first number of steps")
    s1: int = Field(default=150, ge=2, le=100_000, description="last number of steps")
    mu0: float = Field(default=0.9, gt=0, lt=1, description="first rate of the target's EMA")
    rho: float = Field(default=7.0, gt=0)
    init: Literal["random", "teacher"] = "random"

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student."""
        return _Training(self, setup)

    def forward_equivalents(self) -> float:
        """Counts student 3 (forward and backward) and target 1."""
        return 4.0

    def starts_from_teacher(self) -> bool:
        """Returns True if `init` asks for the teacher's weights."""
        return self.init == "teacher"

    def initial_state(self, teacher: nn.Module) -> dict[str, Any] | None:
        """Returns the teacher's weights if `init` asks for them."""
        return dict(teacher.state_dict()) if self.init == "teacher" else None


class _Training(PairLoss):
    def __init__(self, spec: ConsistencyTraining, setup: Setup) -> None:
        super().__init__(setup, keeps_target=True)
        self.spec, self.total = spec, setup.total_steps

    def points(self, step: int) -> int:
        """Returns N(k)."""
        if self.spec.schedule == "fixed":
            return self.spec.s1 + 1
        return adaptive_points(step, self.total, self.spec.s0, self.spec.s1)

    def target_rate(self, step: int) -> float:
        """mu(k), the EMA rate of the target network (not of the learning rate)."""
        if self.spec.schedule == "fixed":
            return self.spec.mu0
        return adaptive_rate(self.points(step), self.spec.s0, self.spec.mu0)

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        count = self.points(step)
        low, high = self.student.sigma_min, self.student.sigma_max
        grid = karras_grid(count, low, high, self.spec.rho).float().to(images.device)
        index = draws.integers(count - 1)
        t, u = grid[index], grid[index + 1]
        noise = draws.normal(*images.shape[1:])
        x_t, x_u = images + expand(t, images) * noise, images + expand(u, images) * noise
        return self.pair_loss(x_t, t, x_u, u, labels)

    def after_step(self, step: int) -> None:
        assert self.target is not None
        update_average(self.target, self.student, self.target_rate(step))

    def progress(self, step: int) -> dict[str, float]:
        return {"N": float(self.points(step)), "mu": self.target_rate(step)}
