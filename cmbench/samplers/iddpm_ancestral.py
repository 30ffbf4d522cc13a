"""Improved DDPM's ancestral sampling, with respacing and learned variance.

iDDPM (https://arxiv.org/abs/2102.09672), sections 3.1 and 4. The estimate of x0 is clipped at
every step. NFE = number of kept steps.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers._ode import start
from cmbench.samplers._respacing import Process, discrete, kept_steps
from cmbench.samplers.base import Sampler

__all__ = ["IDDPMAncestral"]


class IDDPMAncestral(Sampler):
    """x_{t-1} ~ N(mean, variance), with variance beta~, beta, or learned between them."""

    accepts: ClassVar[str] = "discrete"
    steps: Steps | None = Field(
        default=None, description="steps to keep, evenly spaced; none: all"
    )
    respacing: str = Field(
        default="",
        pattern=r"^((ddim)?[0-9]{1,5}|[0-9]{1,5}(,[0-9]{1,5}){1,99})?$",
        description="in the authors' notation: '250', '6,3', 'ddim8'",
    )
    variance: Literal["learned", "small", "large"] = "learned"
    clip: bool = Field(default=True, description="clip the estimate of x0 to [-1, 1]")

    @model_validator(mode="after")
    def _one_of_both(self) -> "IDDPMAncestral":
        if self.steps is not None and self.respacing:
            raise ValueError("give steps or respacing, not both")
        return self

    def nfe(self) -> int | None:
        """One evaluation per kept step; None if the model decides the steps."""
        if self.steps is not None:
            return self.steps
        counts = self.respacing.removeprefix("ddim")
        return sum(map(int, counts.split(","))) if counts else None

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), float64; step k uses noise draw k + 1."""
        model = discrete(denoiser)
        kept = kept_steps(len(model.abar), str(self.steps or "") or self.respacing)
        process = Process.of(model.abar[kept])
        x = start(noise, 1.0)
        for k, i in enumerate(reversed(range(len(kept)))):
            at = torch.full((len(x),), i)
            posterior = process.posterior(
                model, x, at, labels, variance=self.variance, clip=self.clip
            )
            x = posterior.mean
            if i:
                x = x + (posterior.log_variance / 2).exp() * noise.normal(k + 1).to(x.dtype)
        return x
