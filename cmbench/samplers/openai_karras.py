"""The samplers of openai/consistency_models: Karras levels, D clipped to [-1, 1] at every call.

They are the baselines of Consistency Models (https://arxiv.org/abs/2303.01469): EDM's Heun,
DPM-Solver-2 in k-diffusion's form, Euler, ancestral, and progressive distillation's Euler steps on
a grid of N intervals that ends at sigma_min; also multi-step consistency sampling with an option
not to clip, which `multistep` lacks. The result is always clipped.
"""

import itertools
import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.bounds import MOST_STEPS, Steps
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.samplers._editing import edit
from cmbench.samplers._ode import denoise, start
from cmbench.samplers.base import Sampler

__all__ = ["OpenAIKarras"]


class OpenAIKarras(Sampler):
    """Sampler of the update `method`; `steps` counts noise levels (heun, dpm) or intervals."""

    method: Literal["heun", "dpm", "euler", "ancestral", "progdist", "multistep"] = "heun"
    steps: Steps = Field(default=40, description="noise levels before zero; progdist: steps")
    indices: tuple[Annotated[int, Field(ge=0, lt=MOST_STEPS)], ...] | None = Field(
        default=None, description="multistep: points of the grid of `steps`, such as (0, 22, 39)"
    )
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")
    clip: bool = Field(default=True, description="clip D to [-1, 1] at each call")
    churn: float = Field(default=0.0, ge=0, description="s_churn, for heun and dpm")
    noise_from: float = Field(default=0.0, ge=0, description="s_tmin")
    noise_to: float | None = Field(default=None, ge=0, description="s_tmax; none: no bound")
    noise_scale: float = Field(default=1.0, gt=0, description="s_noise")

    @model_validator(mode="after")
    def _indices(self) -> "OpenAIKarras":
        if (self.method == "multistep") != (self.indices is not None):
            raise ValueError("indices belong to method multistep, which needs them")
        rising = sorted(set(self.indices or (0, 1)))
        if list(self.indices or (0, 1)) != rising or rising[0] < 0 or len(rising) < 2:
            raise ValueError("indices must rise")
        if self.indices is not None and rising[-1] >= self.steps:
            raise ValueError(f"indices must be less than steps = {self.steps}")
        return self

    def nfe(self) -> int:
        """Two evaluations per step for dpm and heun (one in heun's last), otherwise one."""
        if self.indices is not None:
            return len(self.indices) - 1
        return {"heun": 2 * self.steps - 1, "dpm": 2 * self.steps}.get(self.method, self.steps)

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) in [-1, 1]; step i uses noise draw i + 1."""
        if self.indices is not None:
            grid = karras_grid(self.steps, denoiser.sigma_min, denoiser.sigma_max, self.rho)
            points = grid[list(self.indices)].tolist()
            x = start(noise, points[0])
            return edit(denoiser, x, points, noise, _same, labels, clip=self.clip).clamp(-1, 1)
        sigmas = self._levels(denoiser)
        x = start(noise, sigmas[0])
        for i, (level, then) in enumerate(itertools.pairwise(sigmas)):
            now = level * (1 + self._gamma(level))
            if now > level:
                fresh = noise.normal(i + 1).to(x.dtype) * self.noise_scale
                x = x + math.sqrt(now**2 - level**2) * fresh
            x = self._step(denoiser, x, now, then, labels, noise, i + 1)
        return x.clamp(-1, 1)

    def _levels(self, denoiser: Denoiser) -> list[float]:
        """Computes the grid in float32, like the authors, whose levels are off by up to 1e-6."""
        points = self.steps + 1 if self.method == "progdist" else self.steps
        low, high = denoiser.sigma_min ** (1 / self.rho), denoiser.sigma_max ** (1 / self.rho)
        ramp = torch.linspace(0, 1, points)
        grid: list[float] = ((high + ramp * (low - high)) ** self.rho).tolist()
        return grid if self.method == "progdist" else [*grid, 0.0]

    def _gamma(self, sigma: float) -> float:
        inside = self.noise_from <= sigma <= (math.inf if self.noise_to is None else self.noise_to)
        churned = inside and self.method in ("heun", "dpm")
        return min(self.churn / self.steps, math.sqrt(2) - 1) if churned else 0.0

    def _step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        now: float,
        then: float,
        labels: Tensor | None,
        noise: Noise,
        draw: int,
    ) -> Tensor:
        slope = self._slope(denoiser, x, now, labels)
        if self.method == "dpm":
            middle = ((now ** (1 / 3) + then ** (1 / 3)) / 2) ** 3
            halfway = x + (middle - now) * slope
            return x + (then - now) * self._slope(denoiser, halfway, middle, labels)
        if self.method == "ancestral":
            up = math.sqrt(then**2 * (now**2 - then**2) / now**2)
            x = x + (math.sqrt(then**2 - up**2) - now) * slope
            return x + up * noise.normal(draw).to(x.dtype) if up > 0 else x
        ahead = x + (then - now) * slope
        if self.method == "heun" and then > 0:
            corrected = self._slope(denoiser, ahead, then, labels)
            ahead = x + (then - now) * (slope + corrected) / 2
        return ahead

    def _slope(self, denoiser: Denoiser, x: Tensor, sigma: float, labels: Tensor | None) -> Tensor:
        clean = denoise(denoiser, x, sigma, labels)
        return (x - (clean.clamp(-1, 1) if self.clip else clean)) / sigma


def _same(clean: Tensor) -> Tensor:
    return clean
