"""Euler's method in a flow's own time: even steps from t = 1, pure noise, to t = 0.

Rectified flow (https://arxiv.org/abs/2209.03003, section 2.1): x <- x - v(x, t) / N. The
straighter the paths, the fewer steps are needed; one is exact on straight paths. NFE = steps.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.flow import FlowDenoiser
from cmbench.samplers._ode import start
from cmbench.samplers.base import Sampler

__all__ = ["FlowEuler"]


class FlowEuler(Sampler):
    """Euler's method in t; `euler` instead starts at sigma_max and steps on Karras levels."""

    order: ClassVar[int | None] = 1
    accepts: ClassVar[str] = "flow"

    steps: Steps = Field(default=16, description="even steps of t")

    def nfe(self) -> int:
        """One evaluation per step."""
        return self.steps

    def prefixes(self) -> tuple[Sampler, ...]:
        """Returns the sampler of one step, whose call is at t = 1."""
        return (FlowEuler(steps=1),)

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), nominally in [-1, 1].

        Raises:
            UserError: If the model is not a flow.
        """
        if not isinstance(denoiser, FlowDenoiser):
            raise UserError(f"sampler flow_euler can't sample a {type(denoiser).__name__}")
        x = start(noise, 1.0)
        for i in range(self.steps):
            t = x.new_full((len(x),), 1 - i / self.steps)
            x = x - denoiser.velocity(x, t, labels) / self.steps
        return x
