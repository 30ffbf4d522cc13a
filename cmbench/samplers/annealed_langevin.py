r"""Annealed Langevin dynamics, the sampler of NCSN and NCSNv2.

NCSN (https://arxiv.org/abs/1907.05600, Algorithm 1) and NCSNv2 (https://arxiv.org/abs/2006.09011,
Algorithm 1). At each level, `steps_each` times: x <- x + a score(x) + sqrt(2 a) z with
a = step_lr (sigma_i / sigma_L)^2. In sigma-space that is x + r (D - x) + sigma_i sqrt(2 r) z with
r = step_lr / sigma_L^2, whatever the units. NFE = levels * steps_each, one more with the last
denoising.
"""

import math
from typing import Literal

from pydantic import Field
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.ncsn import NCSNDenoiser, ladder, langevin_rate
from cmbench.samplers._ode import denoise, start
from cmbench.samplers.base import Sampler

__all__ = ["AnnealedLangevin"]

_LEVELS = 232
"""NCSNv2's for CIFAR-10: for denoisers that have no ladder of their own."""


class AnnealedLangevin(Sampler):
    """A denoiser of any family has a geometric ladder over its own range of noise.

    `ends: denoised` returns D of the last state, as NCSNv2; `last` the last state; `before_last`
    the state before the last update, whose evaluation is spent in vain, as NCSN's authors do.
    """

    levels: int | None = Field(default=None, ge=1, description="the model's ladder, or 232")
    steps_each: int = Field(default=5, ge=1, description="T, updates a level")
    step_lr: float | None = Field(
        default=None,
        gt=0,
        description="step at the last level, for images in [0, 1] as the authors write it; "
        "none: NCSNv2's technique 4",
    )
    start: Literal["uniform", "gaussian"] = Field(
        default="uniform", description="uniform in [-1, 1], or normal of the greatest sigma"
    )
    ends: Literal["denoised", "last", "before_last"] = "denoised"

    def nfe(self) -> int | None:
        """Updates, and one evaluation where the end is denoised; None for the model's ladder."""
        if self.levels is None:
            return None
        return self.levels * self.steps_each + int(self.ends == "denoised")

    def possible_nfe(self, around: int) -> dict[int, "AnnealedLangevin"]:
        """Ladders of every length near `around` evaluations."""
        found = {}
        for count in range(1, around // self.steps_each + 2):
            made = self.model_copy(update={"levels": count})
            found[made.nfe() or 0] = made
        return found

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), float64; draw k + 1 belongs to update k, uniform draw 0 or draw 0
        starts.
        """
        sigmas = self._ladder(denoiser)
        rate = self._rate(denoiser, sigmas)
        x = start(noise, sigmas[0])
        if self.start == "uniform":
            x = 2 * noise.uniform(0).to(x.dtype) - 1
        before = x
        for draw, sigma in enumerate(s for s in sigmas for _ in range(self.steps_each)):
            before = x
            fresh = noise.normal(draw + 1).to(x.dtype)
            drift = rate * (denoise(denoiser, x, sigma, labels) - x)
            x = x + drift + sigma * math.sqrt(2 * rate) * fresh
        if self.ends == "denoised":
            return denoise(denoiser, x, sigmas[-1], labels)
        return before if self.ends == "before_last" else x

    def _ladder(self, denoiser: Denoiser) -> list[float]:
        if isinstance(denoiser, NCSNDenoiser) and self.levels in (None, len(denoiser.levels)):
            return [float(s) for s in denoiser.levels]
        levels = ladder(denoiser.sigma_max, denoiser.sigma_min, self.levels or _LEVELS)
        return [float(s) for s in denoiser.round_sigma(levels)]

    def _rate(self, denoiser: Denoiser, sigmas: list[float]) -> float:
        if self.step_lr is not None:
            unit = denoiser.unit if isinstance(denoiser, NCSNDenoiser) else 2.0
            return self.step_lr * (unit / sigmas[-1]) ** 2
        count = len(sigmas)
        ratio = (sigmas[0] / sigmas[-1]) ** (1 / (count - 1)) if count > 1 else 1.0
        return langevin_rate(ratio, self.steps_each)
