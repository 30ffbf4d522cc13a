"""Euler's method on the probability-flow ODE dx/dsigma = (x - D) / sigma; equal to DDIM (eta 0).

EDM (https://arxiv.org/abs/2206.00364), Algorithm 1 without the correction. NFE = steps.
"""

import itertools
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers._ode import denoise, sigma_steps, start
from cmbench.samplers.base import Sampler

__all__ = ["Euler"]


class Euler(Sampler):
    r"""x' = x + (s' - s)(x - D(x; s)) / s over the Karras grid, ending at zero."""

    order: ClassVar[int | None] = 1

    steps: int = Field(default=18, ge=1, description="noise levels before zero")
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")

    def nfe(self) -> int:
        """One evaluation a step."""
        return self.steps

    def prefixes(self) -> tuple[Sampler, ...]:
        """The call at the start of the Karras grid, whatever its length."""
        return (Euler(steps=1),)

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), float64."""
        sigmas = sigma_steps(denoiser, self.steps, self.rho)
        x = start(noise, sigmas[0])
        for now, then in itertools.pairwise(sigmas):
            x = x + (then - now) / now * (x - denoise(denoiser, x, now, labels))
        return x
