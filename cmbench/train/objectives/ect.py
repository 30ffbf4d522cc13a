r"""Easy consistency tuning: a diffusion model becomes a consistency model by closing a gap.

Geng et al. (https://arxiv.org/abs/2406.14548), section 3: continuous levels
ln t ~ N(p_mean, p_std^2); the lower level r = max(t (1 - q^-(s + 1) (1 + k sigmoid(-b t))), 0)
approaches t with each stage s, so that training starts as diffusion (r = 0: the target is the
image itself) and ends as consistency training. The loss is |f(x_t, t) - sg f(x_r, r)| / (t - r)
with one noise draw for both.
"""

import dataclasses
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.core.bounds import Levels
from cmbench.denoise.base import expand
from cmbench.distances.pseudo_huber import PseudoHuber
from cmbench.train.draws import Draws
from cmbench.train.objectives._consistency import PairLoss
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["EasyConsistencyTuning"]

_LEAST = 1e-8
"""Level in place of r = 0: f(x, r) = x to the last bit of float32, and ln r is finite."""


class EasyConsistencyTuning(Objective):
    """Easy consistency tuning; the teacher is used only for the student's initial weights.

    The distance is the Euclidean norm, not squared, or pseudo-Huber with `c`, unless the recipe
    names another. At c = 0 its square root has a floor of 1e-6.
    """

    q: float = Field(default=2.0, gt=1, description="speed at which r approaches t")
    k: float = Field(default=8.0, ge=0)
    b: float = Field(default=1.0, gt=0)
    stages: Levels = Field(default=8, description="number of stages of equal length")
    c: float = Field(default=0.0, ge=0, description="constant of pseudo-Huber")
    p_mean: float = Field(default=-1.1, description="mean of ln t")
    p_std: float = Field(default=2.0, gt=0, description="standard deviation of ln t")

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student."""
        distance = setup.distance or PseudoHuber(c=self.c or 1e-6).build(setup.device)
        return _Tuning(self, dataclasses.replace(setup, distance=distance))

    def forward_equivalents(self) -> float:
        """Counts student 3 (forward and backward) and target 1."""
        return 4.0

    def starts_from_teacher(self) -> bool:
        """Returns True."""
        return True

    def initial_state(self, teacher: nn.Module) -> dict[str, Any] | None:
        """Returns the teacher's weights, which have the same names in both modules."""
        return dict(teacher.state_dict())


class _Tuning(PairLoss):
    def __init__(self, spec: EasyConsistencyTuning, setup: Setup) -> None:
        super().__init__(setup, keeps_target=False)
        self.spec, self.total = spec, setup.total_steps

    def stage(self, step: int) -> int:
        """Returns the stage s of a step."""
        return min(step * self.spec.stages // self.total, self.spec.stages - 1)

    def lower(self, t: Tensor, stage: int) -> Tensor:
        """Returns the lower level r of t, in its shape; 0 if the target is the image."""
        gap = self.spec.q ** -(stage + 1) * (1 + self.spec.k * torch.sigmoid(-self.spec.b * t))
        return (t * (1 - gap)).clamp(min=0)

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        t = (self.spec.p_mean + self.spec.p_std * draws.normal()).exp()
        r = self.lower(t, self.stage(step))
        return self.loss(images, t, r, draws.normal(*images.shape[1:]), labels)

    def loss(
        self, images: Tensor, t: Tensor, r: Tensor, noise: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Computes the loss per image (B,) for levels t > r (B,), for the given noise."""
        below = r.clamp(min=_LEAST)
        x_t, x_r = images + expand(t, images) * noise, images + expand(r, images) * noise
        return self.pair_loss(x_t, t, x_r, below, labels) / (t - r)

    def progress(self, step: int) -> dict[str, float]:
        return {"stage": float(self.stage(step))}
