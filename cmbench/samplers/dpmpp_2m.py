"""DPM-Solver++(2M) (https://arxiv.org/abs/2211.01095) in sigma-space.

Second order in h = ln(s / s') from the last two evaluations; the first step, and the last to zero,
are of first order. NFE = steps.
"""

import itertools
import math
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers._ode import denoise, sigma_steps, start
from cmbench.samplers.base import Sampler
from cmbench.samplers.euler import Euler

__all__ = ["DPMpp2M"]


class DPMpp2M(Sampler):
    r"""x' = (s'/s) x + (1 - e^{-h}) D', D' = D + (D - D_before) h / (2 h_before)."""

    order: ClassVar[int | None] = 2

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
        before: Tensor | None = None
        width = 0.0
        for now, then in itertools.pairwise(sigmas):
            clean = denoise(denoiser, x, now, labels)
            if then == 0:
                return clean
            h = math.log(now / then)
            blended = clean if before is None else clean + (clean - before) * (h / (2 * width))
            x = then / now * x + (1 - math.exp(-h)) * blended
            before, width = clean, h
        return x
