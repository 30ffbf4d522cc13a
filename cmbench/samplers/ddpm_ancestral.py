r"""DDPM's ancestral sampling (https://arxiv.org/abs/2006.11239, Algorithm 2), with any stride.

In sigma-space a step from s to s' draws from N(r x + (1 - r) D, v), r = s'^2 / s^2. The small
variance (beta~, right where images are points) is v = s'^2 (s^2 - s'^2) / s^2, the large one
(beta, right where images are unit noise) v = (s^2 - s'^2)(1 + s'^2) / (1 + s^2). NFE = steps.
"""

import math
from typing import Literal

from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.ddpm import DDPMDenoiser, Habits
from cmbench.denoise.released_denoisers import DiscreteVPDenoiser
from cmbench.samplers._discrete_steps import Grid, Step, walk
from cmbench.samplers._ode import denoise, start
from cmbench.samplers.base import Sampler

__all__ = ["DDPMAncestral"]


class DDPMAncestral(Sampler):
    """Ancestral sampling; a field that is not given takes the model's convention.

    Without one: small variance, no clipping, and all steps of a discrete process or else 1000
    levels of the Karras grid.
    """

    steps: Steps | None = Field(default=None, description="none: all of the process, or 1000")
    variance: Literal["small", "large"] | None = Field(default=None, description="beta~ or beta")
    clip: bool | None = Field(default=None, description="clip D to [-1, 1]")
    grid: Grid | None = Field(default=None, description="steps of the process to keep")
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")

    def nfe(self) -> int | None:
        """One evaluation per step; None if the model decides the steps."""
        return self.steps

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), float64; step i uses noise draw i + 1.

        Raises:
            UserError: If the grid needs steps that the denoiser does not have.
        """
        habits = _habits(denoiser)
        bound = habits.clip if self.clip is None else (1.0 if self.clip else None)
        large = (self.variance or habits.variance) == "large"
        grid: Grid = "karras"
        steps = self.steps or 1000
        if isinstance(denoiser, DiscreteVPDenoiser):
            grid, steps = habits.grid, self.steps or len(denoiser.levels)
        grid = self.grid or grid
        path = walk(denoiser, grid, steps, rho=self.rho, offset=habits.offset)
        x = start(noise, path.start)
        for i, step in enumerate(path.steps):
            clean = denoise(denoiser, x, step.now, labels)
            clean = clean if bound is None else clean.clamp(-bound, bound)
            ratio = (step.then / step.now) ** 2  # r = s'^2 / s^2
            x = ratio * x + (1 - ratio) * clean
            spread = _spread(step, large=large) if step.noisy else 0.0
            if spread > 0:
                x = x + spread * noise.normal(i + 1).to(x.dtype)
            x = x * step.carry
        return x


def _spread(step: Step, *, large: bool) -> float:
    removed = step.now**2 - step.then**2
    if large:
        return math.sqrt(removed * (1 + step.then**2) / (1 + step.now**2))
    return math.sqrt(step.then**2 * removed) / step.now


def _habits(denoiser: Denoiser) -> Habits:
    if isinstance(denoiser, DDPMDenoiser):
        return denoiser.habits
    return Habits(variance="small", clip=None, grid="even")
