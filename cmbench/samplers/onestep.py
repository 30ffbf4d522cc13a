"""One-step sampling: f(sigma_max z, sigma_max). A denoiser that is no consistency function
returns the mean of the data.

Consistency Models (https://arxiv.org/abs/2303.01469), section 3. NFE = 1.
"""

from typing import ClassVar

from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers._ode import denoise, start
from cmbench.samplers.base import Sampler

__all__ = ["OneStep"]


class OneStep(Sampler):
    """Calls the network once, at sigma_max, and clips to [-1, 1]."""

    order: ClassVar[int | None] = None

    def nfe(self) -> int:
        """Returns 1."""
        return 1

    def prefixes(self) -> tuple[Sampler, ...]:
        """Returns the sampler itself, the shortest chain of every multi-step sampler."""
        return (self,)

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) in [-1, 1]."""
        x = start(noise, denoiser.sigma_max)
        return denoise(denoiser, x, denoiser.sigma_max, labels).clamp(-1, 1)
