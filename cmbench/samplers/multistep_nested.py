"""Multi-step consistency sampling in which shorter chains are prefixes of longer ones.

Consistency Models (https://arxiv.org/abs/2303.01469), Algorithm 1, on one descending list of
levels, of which k evaluations use the first k - 1. NFE 1, 2, ..., K of a suite then cost K
evaluations per image instead of K (K + 1) / 2. NFE = steps.
"""

from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers.base import Sampler
from cmbench.samplers.multistep import MultiStep, require_falling
from cmbench.samplers.onestep import OneStep

__all__ = ["MultiStepNested"]

_LEVELS = (1.923340, 1.088171, 0.5853481, 0.2964423, 0.1395165)
"""Consecutive points of the 18-point Karras grid from 0.002 to 80."""


class MultiStepNested(Sampler):
    """Multi-step sampling with fixed points, so that chains of all lengths share their calls.

    `multistep` instead chooses points for each length: better at one given NFE, but few of its
    chains share calls.
    """

    steps: int = Field(default=2, ge=1, le=500, description="evaluations")
    sigmas: tuple[float, ...] = Field(
        default=_LEVELS,
        min_length=1,
        max_length=500,
        description="levels after sigma_max, falling, the last repeated",
    )

    @model_validator(mode="after")
    def _levels(self) -> "MultiStepNested":
        require_falling(self.sigmas)
        return self

    def nfe(self) -> int:
        """One evaluation per time point."""
        return self.steps

    def prefixes(self) -> tuple[Sampler, ...]:
        """Returns all shorter chains."""
        return (OneStep(), *(self._chain(n) for n in range(2, self.steps + 1)))

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) in [-1, 1]; point j uses noise draw j."""
        return self._chain(self.steps).sample(denoiser, noise, labels)

    def _chain(self, points: int) -> MultiStep:
        repeated = (self.sigmas[-1],) * (points - 1 - len(self.sigmas))
        # Copied, not made: only here may the last level stand more than once.
        return MultiStep().model_copy(update={"sigmas": (*self.sigmas, *repeated)[: points - 1]})
