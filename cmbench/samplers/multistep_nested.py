"""Multi-step consistency sampling whose shorter chains are beginnings of the longer ones.

Consistency Models (https://arxiv.org/abs/2303.01469), Algorithm 1, on one descending list of
levels of which k evaluations take the first k - 1: NFE 1, 2, ..., K of a suite then cost K
evaluations an image, not K (K + 1) / 2. NFE = steps.
"""

from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers.base import Sampler
from cmbench.samplers.multistep import MultiStep
from cmbench.samplers.onestep import OneStep

__all__ = ["MultiStepNested"]

_LEVELS = (1.923340, 1.088171, 0.5853481, 0.2964423, 0.1395165)
"""Neighbouring points of the 18-point Karras grid from 0.002 to 80."""


class MultiStepNested(Sampler):
    """Not to be confused with `multistep`, which chooses its points anew for every length: a
    better choice for one number of evaluations, but of those only some begin alike.
    """

    steps: int = Field(default=2, ge=1, description="evaluations")
    sigmas: tuple[float, ...] = Field(
        default=_LEVELS, min_length=1, description="levels after sigma_max, the last repeated"
    )

    @model_validator(mode="after")
    def _levels(self) -> "MultiStepNested":
        if any(s <= 0 for s in self.sigmas):
            raise ValueError("sigmas must be positive")
        return self

    def nfe(self) -> int:
        """One evaluation a time point."""
        return self.steps

    def prefixes(self) -> tuple[Sampler, ...]:
        """All shorter chains."""
        return (OneStep(), *(self._chain(n) for n in range(2, self.steps + 1)))

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1]; draw j belongs to point j."""
        return self._chain(self.steps).sample(denoiser, noise, labels)

    def _chain(self, points: int) -> MultiStep:
        again = (self.sigmas[-1],) * (points - 1 - len(self.sigmas))
        return MultiStep(sigmas=(*self.sigmas, *again)[: points - 1])
