"""DDIM as in improved-diffusion: on the process's own steps, with respacing and clipping.

DDIM (https://arxiv.org/abs/2010.02502, eq. 12); the noise is recomputed from the clipped estimate
of x0, unlike in other implementations. NFE = number of kept steps.
"""

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.released_denoisers import DiscreteVPDenoiser
from cmbench.samplers._ode import start
from cmbench.samplers._respacing import Process, discrete, kept_steps
from cmbench.samplers.base import Sampler

__all__ = ["IDDPMDDIM"]


class IDDPMDDIM(Sampler):
    """x_{t-1} = sqrt(abar') x0 + sqrt(1 - abar' - s^2) e + s z; eta 1 is DDPM's small variance."""

    accepts: ClassVar[str] = "discrete"

    order: ClassVar[int | None] = 1

    steps: Steps | None = Field(
        default=None, description="steps to keep, evenly spaced; none: all"
    )
    respacing: str = Field(
        default="",
        pattern=r"^((ddim)?[0-9]{1,5}|[0-9]{1,5}(,[0-9]{1,5}){1,99})?$",
        description="in the authors' notation: '250', '6,3', 'ddim8'",
    )
    eta: float = Field(default=0.0, ge=0, le=1, description="0 deterministic, 1 ancestral")
    clip: bool = Field(default=True, description="clip the estimate of x0 to [-1, 1]")

    @model_validator(mode="after")
    def _one_of_both(self) -> "IDDPMDDIM":
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
        process = self._process(model)
        x = start(noise, 1.0)
        for k, i in enumerate(reversed(range(len(process.abar)))):
            clean, eps = self._estimate(model, process, x, i, labels)
            abar, before = float(process.abar[i]), float(process.before[i])
            # Eq. 16 (the deviation s of the fresh noise) and eq. 12.
            spread = self.eta * ((1 - before) / (1 - abar) * (1 - abar / before)) ** 0.5
            x = before**0.5 * clean + max(1 - before - spread**2, 0.0) ** 0.5 * eps
            if i and spread > 0:
                x = x + spread * noise.normal(k + 1).to(x.dtype)
        return x

    def invert(self, denoiser: Denoiser, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the noise (B, C, H, W) that the deterministic sampler maps to about `images`."""
        model = discrete(denoiser)
        process = self._process(model)
        x = images.to(torch.float64)
        for i in range(len(process.abar) - 1):
            clean, eps = self._estimate(model, process, x, i, labels)
            after = float(process.abar[i + 1])
            x = after**0.5 * clean + (1 - after) ** 0.5 * eps
        return x

    def _process(self, model: DiscreteVPDenoiser) -> Process:
        kept = kept_steps(len(model.abar), str(self.steps or "") or self.respacing)
        return Process.of(model.abar[kept])

    def _estimate(
        self,
        model: DiscreteVPDenoiser,
        process: Process,
        x: Tensor,
        i: int,
        labels: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the estimates of x0 and of the noise eps."""
        clean, _ = process.denoised(model, x, torch.full((len(x),), i), labels)
        clean = clean.clamp(-1, 1) if self.clip else clean
        abar = float(process.abar[i])
        return clean, (x - abar**0.5 * clean) / (1 - abar) ** 0.5
