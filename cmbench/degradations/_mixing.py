"""Mixing with another image: x_s = sqrt(abar_s) x0 + sqrt(1 - abar_s) z.

Cold Diffusion (https://arxiv.org/abs/2208.09392) with its first cosine schedule, that of iDDPM
(https://arxiv.org/abs/2102.09672, eq. 17).
"""

import math
from abc import abstractmethod
from functools import lru_cache

import torch
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.degradations.base import Degradation

__all__ = ["Mixing", "cosine_signal"]


class Mixing(Degradation):
    """A degradation that blends the image with z = `other(noise)`, equal at every severity."""

    levels: Steps = 200

    @abstractmethod
    def other(self, noise: Noise) -> Tensor:
        """Returns the image z (B, C, H, W) that is mixed in."""

    def degrade(self, x0: Tensor, severity: Tensor, noise: Noise | None = None) -> Tensor:
        """Mixes z into x0 (B, C, H, W) to severity (B,) in 0..levels.

        Raises:
            UserError: If `noise` is None: z is drawn from it.
        """
        if noise is None:
            raise UserError(f"degradation '{self.name}' needs noise", fix="pass noise=")
        return self.mix(x0, self.other(noise).to(x0), severity)

    def start(self, noise: Noise) -> Tensor:
        """Returns z alone: at the last severity nothing of the image is visible."""
        return self.other(noise)

    def mix(self, x0: Tensor, z: Tensor, severity: Tensor) -> Tensor:
        """Returns sqrt(abar_s) x0 + sqrt(1 - abar_s) z."""
        signal = self.signal(severity).to(x0)
        return signal.sqrt() * x0 + (1 - signal).sqrt() * z

    def estimated(self, x: Tensor, x0: Tensor, severity: Tensor) -> Tensor:
        """Estimates z = (x - sqrt(abar_s) x0) / sqrt(1 - abar_s) at severity >= 1."""
        signal = self.signal(severity).to(x0)
        return (x - signal.sqrt() * x0) / (1 - signal).sqrt()

    def signal(self, severity: Tensor) -> Tensor:
        """Returns abar_s, (B, 1, 1, 1) float64; it is 1 at severity 0."""
        return cosine_signal(self.levels)[severity.cpu()].reshape(-1, 1, 1, 1)


@lru_cache(maxsize=8)
def cosine_signal(levels: int) -> Tensor:
    """Returns abar at severities 0..levels, float64: a squared cosine with clipped steps."""
    times = torch.linspace(0, levels + 1, levels + 1, dtype=torch.float64) / (levels + 1)
    curve = torch.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
    ratios = (curve[1:] / curve[:-1]).clamp(0.001, 1)
    return torch.cat([torch.ones(1, dtype=torch.float64), ratios.cumprod(0)])
