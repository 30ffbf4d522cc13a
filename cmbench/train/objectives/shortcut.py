r"""Shortcut models: a step of length h equals two of length h / 2, down to flow matching.

Frans et al. (https://arxiv.org/abs/2410.12557, eq. 5 and Algorithm 1): in each batch, one image
in `bootstrap_every` has as h a power of two and as target
(u(x, t, h/2) + u(x', t - h/2, h/2)) / 2 with x' = x - h/2 u(x, t, h/2); the others match the
velocity, with the shortest step as h. Here time runs from data (0) to noise (1), in the paper the
other way.
"""

import copy
import math

import torch
from pydantic import Field
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.base import expand
from cmbench.denoise.flow import JumpDenoiser
from cmbench.train.draws import Draws
from cmbench.train.objectives._consistency import update_average
from cmbench.train.objectives._flow import JumpLoss, line
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["Shortcut"]


class Shortcut(Objective):
    """Shortcut objective; its targets use an EMA of the weights at rate `mu`, 0 for no EMA."""

    bootstrap_every: int = Field(
        default=8, ge=2, le=100_000, description="one image in so many has a long step"
    )
    mu: float = Field(default=0.999, ge=0, lt=1, description="rate of the target's EMA")
    bound: float = Field(default=4.0, gt=0, description="bound on the state after a half step")

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If the student has no shortest step that is a power of two.
        """
        return _Shortcut(self, setup)

    def forward_equivalents(self) -> float:
        """Counts student 3 (forward and backward), and 2 for one image in `bootstrap_every`."""
        return 3.0 + 2 / self.bootstrap_every


class _Shortcut(JumpLoss):
    def __init__(self, spec: Shortcut, setup: Setup) -> None:
        super().__init__(setup)
        self.spec, shortest = spec, self.student.shortest
        self.halvings = round(-math.log2(shortest)) if shortest > 0 else 0
        if self.halvings < 1 or 2.0**-self.halvings != shortest:
            raise UserError(
                f"objective shortcut can't train a model whose shortest step is {shortest}",
                expected="a power of two below 1, such as 0.0078125 = 1 / 128",
            )
        self.target: JumpDenoiser | None = None
        if spec.mu > 0:
            self.target = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        position = torch.arange(*draws.part, device=images.device)
        long = position % self.spec.bootstrap_every == 0
        exponent = torch.where(long, draws.integers(self.halvings), self.halvings)
        h = 2.0**-exponent
        # t is the step's upper end, a multiple of h in (0, 1].
        t = (torch.floor(draws.uniform() / h) + 1) * h
        return self.loss(images, t, h, draws.normal(*images.shape[1:]), labels)

    def loss(
        self, images: Tensor, t: Tensor, h: Tensor, noise: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Computes the loss per image (B,) for steps from t down to t - h (B,), for the given
        noise.
        """
        x, aim = line(images, noise, t)
        long = h > self.student.shortest
        if bool(long.any()):
            long_labels = None if labels is None else labels[long]
            aim = aim.clone()
            aim[long] = self.two_halves(x[long], t[long], h[long], long_labels).to(aim.dtype)
        error = self.student.mean_velocity(x, t, h, labels) - aim
        return error.square().flatten(1).mean(1)

    @torch.no_grad()
    def two_halves(self, x: Tensor, t: Tensor, h: Tensor, labels: Tensor | None) -> Tensor:
        """Returns the mean velocity of two steps of half the length."""
        net = self.target if self.target is not None else self.student
        first = net.mean_velocity(x, t, h / 2, labels)
        bound = self.spec.bound
        ahead = (x - expand(h / 2, x) * first).clamp(-bound, bound)
        return (first + net.mean_velocity(ahead, t - h / 2, h / 2, labels)) / 2

    def after_step(self, step: int) -> None:
        if self.target is not None:
            update_average(self.target, self.student, self.spec.mu)
