"""Steps by mean velocities: x_{t - h} = x_t - h u(x_t, t, h), h = 1 / steps, from noise at t = 1.

Shortcut models (https://arxiv.org/abs/2410.12557, Algorithm 2) and MeanFlow
(https://arxiv.org/abs/2505.13447, Algorithm 2 and eq. 12). NFE = steps.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.flow import JumpDenoiser
from cmbench.samplers._ode import start
from cmbench.samplers.base import Sampler

__all__ = ["FlowJump"]


class FlowJump(Sampler):
    """Each step moves by the network's mean velocity; one step leads from noise to image."""

    accepts: ClassVar[str] = "jump"

    steps: Steps = Field(default=1, description="even steps; powers of 2 for shortcut models")

    def nfe(self) -> int:
        """One evaluation per step."""
        return self.steps

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), nominally in [-1, 1].

        Raises:
            UserError: If the model has no mean velocities.
        """
        if not isinstance(denoiser, JumpDenoiser):
            raise UserError(f"sampler flow_jump can't sample a {type(denoiser).__name__}")
        x = start(noise, 1.0)
        h = x.new_full((len(x),), 1 / self.steps)
        for i in range(self.steps):
            t = x.new_full((len(x),), 1 - i / self.steps)
            x = x - denoiser.mean_velocity(x, t, h, labels) / self.steps
        return x
