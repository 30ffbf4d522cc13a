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
    """Fades colours. Linear: e_s = 1 - s / levels, at last grey. Constant: e_s = factor^s."""

    levels: Steps = 20
    routine: Literal["Linear", "Constant"] = "Linear"
    factor: float = Field(default=0.9, gt=0, lt=1, description="colour kept per step of Constant")
    total_remove: bool = Field(default=False, description="make the last severity grey")

    def degrade(self, x0: Tensor, severity: Tensor, noise: Noise | None = None) -> Tensor:
        """Desaturates x0 (B, C, H, W) to severity (B,) in 0..levels; deterministic."""
        share = self.saturation(severity).to(x0).reshape(-1, 1, 1, 1)
        return x0.mean(1, keepdim=True).lerp(x0, share)

    def start(self, noise: Noise) -> Tensor:
        """Returns grey noise of deviation 0.5, as desaturation keeps the picture."""
        last = torch.full((len(noise),), self.levels, device=noise.device)
        return self.degrade(0.5 * noise.normal(0), last)

    def saturation(self, severity: Tensor) -> Tensor:
        """Returns the share of the colour that remains at each severity, float64 in [0, 1]."""
        s = severity.double()
        share = 1 - s / self.levels if self.routine == "Linear" else self.factor**s
        return torch.where(s == self.levels, 0.0, share) if self.total_remove else share
