"""Binomial diffusion's reverse process: bits are drawn with the network's rates, t = T..2.

Sohl-Dickstein et al. 2015 (https://arxiv.org/abs/1503.03585), section 2.2. It starts from B(0.5).
The chain ends at x_1, whose bits are wrong with probability 1 / (2 T): NFE = T - 1.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.binomial import BinomialDiffusion
from cmbench.samplers.base import Sampler

__all__ = ["Binomial"]


class Binomial(Sampler):
    """Draws each bit of x_{t-1} given x_t."""

    accepts: ClassVar[str] = "bits"

    def nfe(self) -> None:
        """Returns None: the model decides the number of steps."""

    def sample(self, denoiser: nn.Module, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) of -1 and 1.

        Raises:
            UserError: If the model is not a binomial diffusion.
        """
        if not isinstance(denoiser, BinomialDiffusion):
            raise UserError(
                f"sampler '{self.name}' samples binomial diffusions, not a "
                f"{type(denoiser).__name__}",
                fix="name a sampler for this kind of model",
            )
        x = _bits(noise.uniform(0), 0.5)
        for index in range(denoiser.levels, 1, -1):
            at = torch.full((len(x),), index, device=x.device)
            x = _bits(noise.uniform(denoiser.levels - index + 1), denoiser(x, at, labels))
        return x


def _bits(uniform: Tensor, rate: Tensor | float) -> Tensor:
    return torch.where(uniform < rate, 1.0, -1.0).to(uniform)
