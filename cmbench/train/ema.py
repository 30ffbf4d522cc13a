"""The average of the weights for evaluation (not the target network of consistency training)."""

import copy

import torch
from torch import Tensor, nn

from cmbench.train.recipe import EMA

__all__ = ["WeightAverage"]


class WeightAverage:
    """theta_avg <- beta theta_avg + (1 - beta) theta, beta = 0.5^(batch / half-life).

    The half-life grows with the images seen up to its final value (EDM's ramp), so that early
    weights are soon forgotten.
    """

    def __init__(self, module: nn.Module, spec: EMA, batch: int) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.spec, self.batch = spec, batch

    @torch.no_grad()
    def update(self, online: nn.Module, images_seen: int) -> None:
        """Updates the average after an optimiser step, after `images_seen` images of training."""
        half_life = self.spec.half_life_images
        if self.spec.ramp:
            half_life = min(half_life, self.spec.ramp * images_seen)
        rate = 0.5 ** (self.batch / half_life) if half_life > 0 else 0.0
        old: list[Tensor] = list(self.module.parameters())
        new: list[Tensor] = list(online.parameters())
        torch._foreach_lerp_(old, new, 1 - rate)
        for average, current in zip(self.module.buffers(), online.buffers(), strict=True):
            average.copy_(current)
