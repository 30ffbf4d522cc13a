"""DDIM (https://arxiv.org/abs/2010.02502, eq. 12) in sigma-space, with eta between 0 and 1.

x' = D + s_down e + s_up z, e = (x - D) / s, s_up = eta sqrt(s'^2 (s^2 - s'^2) / s^2). eta 0 is
Euler's method, eta 1 is DDPM's ancestral sampling with the small variance. NFE = steps.
"""

import itertools
import math
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers._base import Sampler
from cmbench.samplers._steps import denoise, sigma_steps, start

__all__ = ["DDIM"]


class DDIM(Sampler):
    """Strided sampling of a Gaussian diffusion; `clip` bounds D to [-1, 1] at each step."""

    order: ClassVar[int | None] = 1

    steps: int = Field(default=50, ge=1, description="noise levels before zero")
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")
    eta: float = Field(default=0.0, ge=0, le=1, description="0 deterministic, 1 ancestral")
    clip: bool = Field(default=False, description="clip D to [-1, 1]")

    def nfe(self) -> int:
        """One evaluation a step."""
        return self.steps

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), float64; draw i + 1 belongs to step i."""
        sigmas = sigma_steps(denoiser, self.steps, self.rho)
        x = start(noise, sigmas[0])
        for i, (now, then) in enumerate(itertools.pairwise(sigmas)):
            clean = denoise(denoiser, x, now, labels)
            clean = clean.clamp(-1, 1) if self.clip else clean
            up = self.eta * math.sqrt(then**2 * (now**2 - then**2) / now**2)
            x = clean + math.sqrt(then**2 - up**2) / now * (x - clean)
            if up > 0:
                x = x + up * noise.normal(i + 1).to(x.dtype)
        return x
