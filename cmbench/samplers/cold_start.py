"""Cold diffusion's start without any restoration: the baseline that restorations must beat."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.cold import Restorer
from cmbench.samplers.base import Sampler

__all__ = ["ColdStart"]


class ColdStart(Sampler):
    """Draws only x_T (https://arxiv.org/abs/2208.09392, section 5.2). NFE = 0."""

    accepts: ClassVar[str] = "restorer"

    def nfe(self) -> int:
        """Returns 0."""
        return 0

    def sample(self, denoiser: nn.Module, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) clipped to [-1, 1].

        Raises:
            UserError: If the model is not a restorer.
        """
        if not isinstance(denoiser, Restorer):
            raise UserError(
                f"sampler '{self.name}' draws the start of cold diffusion's restorers, not of a "
                f"{type(denoiser).__name__}",
                fix="name a sampler for this kind of model",
            )
        return torch.clamp(denoiser.start(noise), -1, 1)
