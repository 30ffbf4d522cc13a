"""Ancestral sampling of improved DDPM, with respacing and learned variance.

iDDPM (https://arxiv.org/abs/2102.09672), sections 3.1 and 4. The estimate of x0 is clipped at
every step. NFE = steps kept.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers._ode import start
from cmbench.samplers._respacing import Process, discrete, kept_steps
from cmbench.samplers.base import Sampler

__all__ = ["IDDPMAncestral"]


class IDDPMAncestral(Sampler):
    """x_{t-1} ~ N(mean, variance): learned between beta~ and beta, or either of them."""

    accepts: ClassVar[str] = "discrete"
    steps: int | None = Field(default=None, ge=1, description="steps kept, evenly; all if none")
    respacing: str = Field(
        default="", description="as the authors write it: '250', '6,3', 'ddim8'"
    )
    variance: Literal["learned", "small", "large"] = "learned"
    clip: bool = Field(default=True, description="clip the estimate of x0 to [-1, 1]")

    @model_validator(mode="after")
    def _one_of_both(self) -> "IDDPMAncestral":
        if self.steps is not None and self.respacing:
            raise ValueError("give steps or respacing, not both")
        return self

    def nfe(self) -> int | None:
        """The steps kept, where they are given."""
        if self.steps is not None:
            return self.steps
        counts = self.respacing.removeprefix("ddim")
        return sum(map(int, counts.split(","))) if counts else None

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), float64; draw k + 1 belongs to step k."""
        model = discrete(denoiser)
        kept = kept_steps(len(model.abar), str(self.steps or "") or self.respacing)
        process = Process.of(model.abar[kept])
        x = start(noise, 1.0)
        for k, i in enumerate(reversed(range(len(kept)))):
            at = torch.full((len(x),), i)
            found = process.posterior(model, x, at, labels, variance=self.variance, clip=self.clip)
            x = found.mean
            if i:
                x = x + (found.log_variance / 2).exp() * noise.normal(k + 1).to(x.dtype)
        return x
