r"""MeanFlow: the mean velocity over [r, t], from the identity u = v - (t - r) du/dt.

Geng et al. (https://arxiv.org/abs/2505.13447, eq. 6 and 9-11, Algorithm 1): du/dt is the total
derivative along the path, a Jacobian-vector product with tangents (v, 1) in (x, t) at fixed r. The
target is stop-gradient; the squared error s is weighted by 1 / (s + c)^p (eq. 22).
"""

import warnings
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from cmbench.denoise.base import expand
from cmbench.train.draws import Draws
from cmbench.train.objectives._flow import JumpLoss, line
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["MeanFlow"]


class MeanFlow(Objective):
    """MeanFlow; t > r are sigmoids of normal draws, and the defaults are CIFAR-10's."""

    t_mean: float = Field(default=-2.0, description="mean of the logits of t and r")
    t_std: float = Field(default=2.0, gt=0, description="standard deviation of the logits")
    flow_share: float = Field(default=0.25, ge=0, le=1, description="probability of r = t")
    power: float = Field(default=0.75, ge=0, description="p of the adaptive weight")
    floor: float = Field(default=1e-3, gt=0, description="c of the adaptive weight")

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If the student predicts no mean velocities.
        """
        return _MeanFlow(self, setup)

    def forward_equivalents(self) -> float:
        """Counts student 3 (forward and backward) and about 1 for the Jacobian-vector product."""
        return 4.0


class _MeanFlow(JumpLoss):
    def __init__(self, spec: MeanFlow, setup: Setup) -> None:
        super().__init__(setup)
        self.spec = spec
        with warnings.catch_warnings():
            # torch's first product calls a function that torch itself deprecates.
            warnings.simplefilter("ignore", FutureWarning)
            torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        logits = self.spec.t_mean + self.spec.t_std * draws.normal(2)
        r, t = torch.sigmoid(logits).sort(dim=1).values.unbind(1)
        h = torch.where(draws.uniform() < self.spec.flow_share, 0.0, t - r)
        return self.loss(images, t, h, draws.normal(*images.shape[1:]), labels)

    def loss(
        self, images: Tensor, t: Tensor, h: Tensor, noise: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Computes the loss per image (B,) for steps from t down to r = t - h (B,), for the given
        noise.
        """
        error = self.error(images, t, h, noise, labels).square().flatten(1).sum(1)
        return error / (error.detach() + self.spec.floor) ** self.spec.power

    def error(
        self, images: Tensor, t: Tensor, h: Tensor, noise: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Computes the error u - stopgrad(v - h du/dt), (B, C, H, W) (eq. 9-11)."""
        x, velocity = line(images, noise, t)
        one = torch.ones_like(t)

        def mean_velocity(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
            return self.student.mean_velocity(x, t, h, labels)

        # At fixed r, dh/dt = 1: the tangents are (v, 1, 1) in (x, t, h).
        product: Any = torch.func.jvp(mean_velocity, (x, t, h), (velocity, one, one))
        mean, derivative = product
        aim = velocity - expand(h, x) * derivative
        error: Tensor = mean - aim.detach()
        return error
