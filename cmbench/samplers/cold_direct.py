"""Cold diffusion's direct restoration: R(x_T, T) in one call.

Cold Diffusion (https://arxiv.org/abs/2208.09392), section 4: of lower RMSE, and blurrier. NFE = 1.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.cold import Restorer
from cmbench.samplers._cold import SYMMETRY_DRAW
from cmbench.samplers.base import Sampler

__all__ = ["ColdDirect"]


class ColdDirect(Sampler):
    """Calls the restorer once, at the greatest severity."""

    accepts: ClassVar[str] = "restorer"

    noise_level: float = Field(
        default=0.0, ge=0, description="deviation of noise added to the start"
    )

    def nfe(self) -> int:
        """Returns 1."""
        return 1

    def sample(self, denoiser: nn.Module, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) clipped to [-1, 1].

        Raises:
            UserError: If the model is not a restorer.
        """
        if not isinstance(denoiser, Restorer):
            raise UserError(
                f"sampler '{self.name}' samples cold diffusion's restorers, not a "
                f"{type(denoiser).__name__}",
                fix="name a sampler for this kind of model",
            )
        x = denoiser.start(noise)
        if self.noise_level:
            x = x + self.noise_level * noise.normal(SYMMETRY_DRAW)
        return self.restore(denoiser, x, noise, labels).clamp(-1, 1)

    def restore(
        self,
        restorer: Restorer,
        x: Tensor,
        noise: Noise | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Restores x (B, C, H, W) from the greatest severity, without clipping."""
        last = torch.full((len(x),), restorer.levels, device=x.device)
        restored: Tensor = restorer(x, last, labels)
        return restored
