"""Sohl-Dickstein's reverse process: x_{t-1} ~ N(mu(x_t, t), Sigma(x_t, t)), t = T..2.

Sohl-Dickstein et al. 2015 (https://arxiv.org/abs/1503.03585). As in the released code, the chain
ends at x_1, without a last step: NFE = T - 1.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.sohl_dickstein import ReverseGaussian
from cmbench.samplers.base import Sampler

__all__ = ["SohlDickstein"]


class SohlDickstein(Sampler):
    """Ancestral sampling with the network's own means and variances."""

    accepts: ClassVar[str] = "reverse_gaussian"

    def nfe(self) -> None:
        """Returns None: the model decides the number of steps."""

    def sample(self, denoiser: nn.Module, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) clipped to [-1, 1].

        Raises:
            UserError: If the model has no learned reverse kernels.
        """
        if not isinstance(denoiser, ReverseGaussian):
            raise UserError(
                f"sampler '{self.name}' needs learned reverse kernels, not a "
                f"{type(denoiser).__name__}",
                fix="name heun, ddim or another sampler for denoisers",
            )
        x = noise.normal(0)
        for index in range(denoiser.levels, 1, -1):
            at = torch.full((len(x),), index, device=x.device)
            mean, variance = denoiser.reverse(x, at, labels)
            x = mean + variance.sqrt() * noise.normal(denoiser.levels - index + 1)
        return denoiser.restore_range(x).clamp(-1, 1)
