r"""Annealed Langevin dynamics, the sampler of NCSN and NCSNv2.

NCSN (https://arxiv.org/abs/1907.05600, Algorithm 1) and NCSNv2 (https://arxiv.org/abs/2006.09011,
Algorithm 1). At each level, `steps_each` times: x <- x + a score(x) + sqrt(2 a) z with
a = step_lr (sigma_i / sigma_L)^2. In sigma-space that is x + r (D - x) + sigma_i sqrt(2 r) z with
r = step_lr / sigma_L^2, in any units. NFE = levels * steps_each, plus one for a final denoising.
"""

import math
from typing import Literal

from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.ncsn import NCSNDenoiser, ladder, langevin_rate
from cmbench.samplers._ode import denoise, start
from cmbench.samplers.base import Sampler

__all__ = ["AnnealedLangevin"]

_LEVELS = 232
"""Number of levels of NCSNv2 on CIFAR-10, the default for denoisers without a ladder."""


class AnnealedLangevin(Sampler):
    """Samples any denoiser, by default on a geometric ladder over its range of noise levels.

    `ends: denoised` returns D of the last state, as NCSNv2 does; `last` returns the last state;
    `before_last` returns the state before the last update, as NCSN's authors do, whose last
    evaluation has no effect.
    """

    levels: Steps | None = Field(
        default=None, description="noise levels; none: the model's, or 232"
    )
    steps_each: Steps = Field(default=5, description="T, updates per level")
    step_lr: float | None = Field(
        default=None,
        gt=0,
        description="step size at the last level, for images in [0, 1] as the authors state it; "
        "none: NCSNv2's technique 4",
    )
    start: Literal["uniform", "gaussian"] = Field(
        default="uniform", description="uniform in [-1, 1], or normal with the greatest sigma"
    )
    ends: Literal["denoised", "last", "before_last"] = "denoised"

    def nfe(self) -> int | None:
        """One evaluation per update and one for a final denoising; None for the model's ladder."""
        if self.levels is None:
            return None
        return self.levels * self.steps_each + int(self.ends == "denoised")

    def possible_nfe(self, around: int) -> dict[int, "AnnealedLangevin"]:
        """Maps evaluations to samplers, for ladders of every length up to `around` evaluations."""
        samplers = {}
        for count in range(1, around // self.steps_each + 2):
            sampler = self.model_copy(update={"levels": count})
            samplers[sampler.nfe() or 0] = sampler
        return samplers

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), float64.

        Update k uses noise draw k + 1; the start uses the uniform or the normal draw 0.
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
            # Algorithm 1, lines 5 and 6: score = (D - x) / sigma^2, so a score(x) = r (D - x).
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
