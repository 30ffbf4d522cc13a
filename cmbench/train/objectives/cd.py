"""Consistency distillation: one step of the teacher's probability-flow ODE gives the pair.

Consistency Models (https://arxiv.org/abs/2303.01469), Algorithm 2, discrete time.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.denoise.base import expand
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.train.draws import Draws
from cmbench.train.objectives._consistency import PairLoss, update_average
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["ConsistencyDistillation"]


class ConsistencyDistillation(Objective):
    """Consistency distillation with uniform weights, initialised from the teacher."""

    needs_teacher: ClassVar[bool] = True
    needs_distance: ClassVar[bool] = True

    points: int = Field(default=18, ge=2, le=100_000, description="N, points of the Karras grid")
    solver: Literal["heun", "euler"] = "heun"
    mu: float = Field(default=0.0, ge=0, lt=1, description="rate of the target network's EMA")
    rho: float = Field(default=7.0, gt=0)

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student, with its teacher."""
        if setup.teacher is None:
            raise UserError("objective cd needs a teacher", fix="teacher: edm/digits")
        return _Distillation(self, setup, setup.teacher)

    def forward_equivalents(self) -> float:
        """Counts student 3 (forward and backward), target 1, teacher 2 (Heun) or 1 (Euler)."""
        return 6.0 if self.solver == "heun" else 5.0

    def shares(self) -> dict[str, Any]:
        """The teacher's step does not depend on the student's distance or its target's rate."""
        return {"points": self.points, "solver": self.solver, "rho": self.rho}

    def starts_from_teacher(self) -> bool:
        """Returns True."""
        return True

    def initial_state(self, teacher: nn.Module) -> dict[str, Any] | None:
        """Returns the teacher's weights, which have the same names in both modules."""
        return dict(teacher.state_dict())


class _Distillation(PairLoss):
    grid: Tensor

    def __init__(self, spec: ConsistencyDistillation, setup: Setup, teacher: nn.Module) -> None:
        super().__init__(setup, keeps_target=spec.mu > 0)
        self.spec, self.shared = spec, setup.shared
        # The teacher is outside of the module tree, so that it is not part of a checkpoint.
        self._teacher = [teacher.eval().requires_grad_(False)]
        low, high = self.student.sigma_min, self.student.sigma_max
        self.grid = karras_grid(spec.points, low, high, spec.rho).float().to(setup.device)

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        x_t, t, x_u, u = self.shared.at(step, lambda: self.pair(images, labels, draws))
        return self.pair_loss(x_t, t, x_u, u, labels)

    def pair(self, images: Tensor, labels: Tensor | None, draws: Draws) -> tuple[Tensor, ...]:
        """Returns x_t, t, x_u, u, neighbours on one trajectory of the teacher's ODE."""
        index = draws.integers(self.spec.points - 1)
        t, u = self.grid[index], self.grid[index + 1]
        x_t = images + expand(t, images) * draws.normal(*images.shape[1:])
        return x_t, t, self.solve(x_t, t, u, labels), u

    @torch.no_grad()
    def solve(self, x_t: Tensor, t: Tensor, u: Tensor, labels: Tensor | None) -> Tensor:
        """Steps the teacher's ODE from t down to u (Algorithm 2)."""
        teacher = self._teacher[0]
        wide_t, wide_u = expand(t, x_t), expand(u, x_t)
        slope = (x_t - teacher(x_t, t, labels)) / wide_t
        ahead = x_t + (wide_u - wide_t) * slope
        if self.spec.solver == "euler":
            return ahead
        corrected = (ahead - teacher(ahead, u, labels)) / wide_u
        return x_t + (wide_u - wide_t) * (slope + corrected) / 2

    def after_step(self, step: int) -> None:
        if self.target is not None:
            update_average(self.target, self.student, self.spec.mu)
