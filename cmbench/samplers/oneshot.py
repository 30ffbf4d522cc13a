"""One call of a one-shot generator, such as a GAN's: G(z) with z standard normal. NFE = 1."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.oneshot import OneShot as OneShotModule
from cmbench.samplers.base import Sampler

__all__ = ["OneShot"]


class OneShot(Sampler):
    """Draws the latent from the image's noise, over several draws if needed, and calls G once.

    Not to be confused with `onestep`, which calls a denoiser at sigma_max.
    """

    accepts: ClassVar[str] = "oneshot"

    def nfe(self) -> int:
        """Returns 1."""
        return 1

    def sample(self, denoiser: nn.Module, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) clipped to [-1, 1].

        Raises:
            UserError: If the model is not a one-shot generator.
        """
        if not isinstance(denoiser, OneShotModule):
            raise UserError(
                f"sampler '{self.name}' samples one-shot generators, not a "
                f"{type(denoiser).__name__}",
                fix="name a sampler for this kind of model",
            )
        first = noise.normal(0).flatten(1)
        draws = -(-denoiser.latent // first.shape[1])
        more = [noise.normal(draw).flatten(1) for draw in range(1, draws)]
        z = torch.cat([first, *more], 1)[:, : denoiser.latent]
        images: Tensor = denoiser(z, labels)
        return images.clamp(-1, 1)
