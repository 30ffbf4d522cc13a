"""DDIM (https://arxiv.org/abs/2010.02502, eq. 12) in sigma-space, with eta between 0 and 1.

x' = D + s_down e + s_up z, e = (x - D) / s, s_up = eta sqrt(s'^2 (s^2 - s'^2) / s^2). eta 0 is
Euler's method; eta 1 is DDPM's ancestral sampling with the small variance (k-diffusion's
`euler_ancestral`). NFE = steps.
"""

import math
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.ddpm import DDPMDenoiser, Habits
from cmbench.samplers._discrete_steps import Grid, walk
from cmbench.samplers._ode import denoise, start
from cmbench.samplers.base import Sampler
from cmbench.samplers.euler import Euler

__all__ = ["DDIM"]


class DDIM(Sampler):
    """Strided sampling of a Gaussian diffusion; `clip` bounds D to [-1, 1] at each step.

    Implementations differ after clipping: improved-diffusion recomputes the noise from the clipped
    D, diffusers keeps the network's (`rederive: false`), DDIM's authors do not clip.
    """

    order: ClassVar[int | None] = 1

    steps: Steps = Field(default=50, description="evaluations")
    grid: Grid = Field(default="karras", description="steps of a discrete process to keep")
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")
    eta: float = Field(default=0.0, ge=0, le=1, description="0 deterministic, 1 ancestral")
    clip: bool = Field(default=False, description="clip D to [-1, 1]")
    rederive: bool = Field(default=True, description="recompute the noise from the clipped D")

    def nfe(self) -> int:
        """One evaluation per step."""
        return self.steps

    def prefixes(self) -> tuple[Sampler, ...]:
        """The call at the start of the Karras grid; other grids' starts depend on their length."""
        return (Euler(steps=1),) if self.grid == "karras" else ()

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), float64; step i uses noise draw i + 1.

        Raises:
            UserError: If the grid needs steps that the denoiser does not have.
        """
        habits = denoiser.habits if isinstance(denoiser, DDPMDenoiser) else Habits()
        path = walk(
            denoiser,
            self.grid,
            self.steps,
            rho=self.rho,
            offset=habits.offset,
            by_stride=True,
            ends_clean=habits.ends_clean,
        )
        x = start(noise, path.start)
        for i, step in enumerate(path.steps):
            estimate = denoise(denoiser, x, step.now, labels)
            clean = estimate.clamp(-1, 1) if self.clip else estimate
            scaled_noise = x - (clean if self.rederive else estimate)  # s e
            # diffusers' grids may name a level twice: rounding must not make s^2 - s'^2 negative.
            removed = max(step.now**2 - step.then**2, 0.0)
            up = self.eta * step.then * math.sqrt(removed) / step.now
            # Eq. 12: D + s_down e, with s_down^2 = s'^2 - s_up^2.
            x = clean + math.sqrt(step.then**2 - up**2) / step.now * scaled_noise
            if up > 0:
                x = x + up * noise.normal(i + 1).to(x.dtype)
            x = x * step.carry
        return x
