"""Desaturation: colours fade to the mean of their channels.

D(x, s) = e_s x + (1 - e_s) mean(x). Cold Diffusion (https://arxiv.org/abs/2208.09392), appendix.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.degradations.base import Degradation

__all__ = ["Desaturate"]


class Desaturate(Degradation):
    """Linear: e_s = 1 - s / levels, so the last severity is grey. Constant: e_s = factor^s."""

    levels: Steps = 20
    routine: Literal["Linear", "Constant"] = "Linear"
    factor: float = Field(default=0.9, gt=0, lt=1, description="colour kept a step, Constant's")
    total_remove: bool = Field(default=False, description="the last severity is grey in any case")

    def degrade(self, x0: Tensor, severity: Tensor, noise: Noise | None = None) -> Tensor:
        """Takes colour from x0 (B, C, H, W) to severity (B,) in 0..levels; no randomness."""
        kept = self.saturation(severity).to(x0).reshape(-1, 1, 1, 1)
        return x0.mean(1, keepdim=True).lerp(x0, kept)

    def start(self, noise: Noise) -> Tensor:
        """Grey noise of deviation 0.5: desaturation alone destroys no picture to start from."""
        last = torch.full((len(noise),), self.levels, device=noise.device)
        return self.degrade(0.5 * noise.normal(0), last)

    def saturation(self, severity: Tensor) -> Tensor:
        """The part of the colour that is left at each severity, float64 in [0, 1]."""
        s = severity.double()
        kept = 1 - s / self.levels if self.routine == "Linear" else self.factor**s
        return torch.where(s == self.levels, 0.0, kept) if self.total_remove else kept
