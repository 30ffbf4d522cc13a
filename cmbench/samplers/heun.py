"""Heun's method on the probability-flow ODE: EDM's deterministic sampler.

EDM (https://arxiv.org/abs/2206.00364), Algorithm 1. The last step, to zero, is Euler's, so
NFE = 2 steps - 1: 18 steps are 35 evaluations.
"""

import itertools
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers._ode import denoise, sigma_steps, start
from cmbench.samplers.base import Sampler
from cmbench.samplers.euler import Euler

__all__ = ["Heun"]


class Heun(Sampler):
    r"""x' = x + (s' - s)(d + d') / 2 with d = (x - D) / s and d' at Euler's point."""

    order: ClassVar[int | None] = 2

    steps: int = Field(default=18, ge=1, description="noise levels before zero")
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")

    def nfe(self) -> int:
        """Two evaluations a step, one in the last."""
        return 2 * self.steps - 1

    def prefixes(self) -> tuple[Sampler, ...]:
        """The call at the start of the Karras grid, whatever its length."""
        return (Euler(steps=1),)

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), float64."""
        sigmas = sigma_steps(denoiser, self.steps, self.rho)
        x = start(noise, sigmas[0])
        for now, then in itertools.pairwise(sigmas):
            slope = (x - denoise(denoiser, x, now, labels)) / now
            ahead = x + (then - now) * slope
            if then > 0:
                corrected = (ahead - denoise(denoiser, ahead, then, labels)) / then
                ahead = x + (then - now) * (slope + corrected) / 2
            x = ahead
        return x
