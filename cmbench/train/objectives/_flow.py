"""Shared parts of the flow objectives: the straight line and the regression on its velocity.

Flow matching (https://arxiv.org/abs/2210.02747, eq. 22-23, sigma_min = 0), rectified flow
(https://arxiv.org/abs/2209.03003, eq. 1); here time runs from data (0) to noise (1).
"""

from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.base import expand
from cmbench.denoise.flow import FlowDenoiser, JumpDenoiser
from cmbench.train.objectives.base import Loss, Setup

__all__ = ["FlowLoss", "JumpLoss", "line"]


def line(images: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the state x_t = (1 - t) x0 + t n and its velocity n - x0, for t (B,)."""
    share = expand(t, images)
    return (1 - share) * images + share * noise, noise - images


class FlowLoss(Loss):
    """Base of losses on a student that predicts velocities."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        if not isinstance(setup.student, FlowDenoiser):
            raise UserError(
                f"a flow objective can't train a {type(setup.student).__name__}",
                expected="a model whose build() returns a FlowDenoiser",
            )
        self.student = setup.student

    def match(self, images: Tensor, noise: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """Computes the mean over pixels of (v(x_t, t) - (n - x0))^2, (B,)."""
        x, velocity = line(images, noise, t)
        error = self.student.velocity(x, t, labels) - velocity
        return error.square().flatten(1).mean(1)


class JumpLoss(Loss):
    """Base of losses on a student that predicts mean velocities."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        if not isinstance(setup.student, JumpDenoiser):
            raise UserError(
                f"this objective can't train a {type(setup.student).__name__}",
                expected="a model whose build() returns a JumpDenoiser",
            )
        self.student = setup.student
