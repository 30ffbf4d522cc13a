"""EDM's stochastic sampler: Heun's method with noise added before each step.

EDM (https://arxiv.org/abs/2206.00364), Algorithm 2. NFE = 2 steps - 1.
"""

import itertools
import math

from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers._ode import denoise, heun_step, sigma_steps, start
from cmbench.samplers.base import Sampler

__all__ = ["HeunStochastic"]


class HeunStochastic(Sampler):
    r"""Raises s to s(1 + gamma), gamma = min(churn / steps, sqrt(2) - 1), then steps as Heun."""

    steps: Steps = Field(default=18, description="noise levels before zero")
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")
    churn: float = Field(default=30.0, ge=0, description="S_churn")
    noise_from: float = Field(default=0.01, ge=0, description="S_min")
    noise_to: float = Field(default=1.0, ge=0, description="S_max")
    noise_scale: float = Field(default=1.007, gt=0, description="S_noise")

    def nfe(self) -> int:
        """Two evaluations per step, one in the last."""
        return 2 * self.steps - 1

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), float64; step i uses noise draw i + 1."""

        def evaluate(x: Tensor, sigma: float) -> Tensor:
            return denoise(denoiser, x, sigma, labels)

        sigmas = sigma_steps(denoiser, self.steps, self.rho)
        x = start(noise, sigmas[0])
        for i, (level, then) in enumerate(itertools.pairwise(sigmas)):
            now = level * (1 + self._gamma(level))
            if now > level:  # Algorithm 2, lines 4 to 6: raise the noise level
                fresh = noise.normal(i + 1).to(x.dtype) * self.noise_scale
                x = x + math.sqrt(now**2 - level**2) * fresh
            x = heun_step(evaluate, x, now, then)
        return x

    def _gamma(self, sigma: float) -> float:
        inside = self.noise_from <= sigma <= self.noise_to
        return min(self.churn / self.steps, math.sqrt(2) - 1) if inside else 0.0
