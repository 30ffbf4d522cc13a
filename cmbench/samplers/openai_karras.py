"""The samplers of openai/consistency_models: Karras levels, D clipped to [-1, 1] at every call.

Consistency Models (https://arxiv.org/abs/2303.01469), whose baselines they are: EDM's Heun,
DPM-Solver-2 in k-diffusion's form, Euler, ancestral, and progressive distillation's Euler steps on
a grid of N intervals that ends at sigma_min. The result is clipped too.
"""

import itertools
import math
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.grids import karras_grid
from cmbench.samplers._base import Sampler
from cmbench.samplers._steps import denoise, start

__all__ = ["OpenAIKarras"]


class OpenAIKarras(Sampler):
    """`method` names the update; `steps` are noise levels (heun, dpm, ...) or intervals."""

    stochastic: ClassVar[bool] = True

    method: Literal["heun", "dpm", "euler", "ancestral", "progdist"] = "heun"
    steps: int = Field(default=40, ge=1, description="noise levels before zero; progdist: steps")
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")
    clip: bool = Field(default=True, description="clip D to [-1, 1] at each call")
    churn: float = Field(default=0.0, ge=0, description="s_churn, of heun and dpm")
    noise_from: float = Field(default=0.0, ge=0, description="s_tmin")
    noise_to: float | None = Field(default=None, ge=0, description="s_tmax; none: no bound")
    noise_scale: float = Field(default=1.0, gt=0, description="s_noise")

    def nfe(self) -> int:
        """Heun: two a step, one in the last; DPM: two a step; otherwise one a step."""
        return {"heun": 2 * self.steps - 1, "dpm": 2 * self.steps}.get(self.method, self.steps)

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1]; draw i + 1 belongs to step i."""
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
        points = self.steps + 1 if self.method == "progdist" else self.steps
        grid = karras_grid(points, denoiser.sigma_min, denoiser.sigma_max, self.rho).tolist()
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
