r"""Inpainting: Gaussian holes that grow, x_s = x * m_1 * ... * m_s, with mid-grey (0) inside.

m_i = 1 - G_i / max G_i, G_i a Gaussian of deviation kernel_std (i + initial_mask). Cold Diffusion
(https://arxiv.org/abs/2208.09392), section 4.2; routines as in the released code.
"""

from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.degradations.base import Degradation

__all__ = ["Inpainting"]

CENTRE_DRAW = 5
"""The draw that the holes' centres are taken from."""


class Inpainting(Degradation):
    """Incremental: deviations grow, hole in the middle. Constant: one deviation.
    Random_Incremental: growing, with a centre for each image drawn from its noise.
    """

    levels: Steps = 50
    routine: Literal["Incremental", "Constant", "Random_Incremental"] = "Random_Incremental"
    kernel_std: float = Field(default=0.1, gt=0, description="pixels")
    initial_mask: int = Field(
        default=1, ge=0, le=10_000, description="steps the first hole is ahead"
    )

    def degrade(self, x0: Tensor, severity: Tensor, noise: Noise | None = None) -> Tensor:
        """Digs holes of severity (B,) in 0..levels into x0 (B, C, H, W).

        Raises:
            UserError: If the centre is random and no noise was given.
        """
        return x0 * self.masks(severity, x0.shape[-1], noise).to(x0)

    def start(self, noise: Noise) -> Tensor:
        """The masks at the last severity over white: mid-grey where there is nothing to see."""
        last = torch.full((len(noise),), self.levels, device=noise.device)
        return self.degrade(torch.ones(len(noise), *noise.shape, device=noise.device), last, noise)

    def masks(self, severity: Tensor, side: int, noise: Noise | None = None) -> Tensor:
        """The product of the first s masks, (B, 1, side, side) in [0, 1], float64."""
        if self.routine != "Random_Incremental":
            return _products(self, side, side // 2 - 1)[severity.cpu()][:, None]
        if noise is None:
            raise UserError("inpainting with a random centre needs noise", fix="pass noise=")
        drawn = noise.uniform(CENTRE_DRAW).flatten(1)[:, :2].cpu().double()
        top, left = (drawn * (side + 1)).long().clamp(max=side).unbind(1)
        whole = _products(self, 2 * side, side - 1)
        window = torch.arange(side)
        rows, columns = top[:, None] + window, left[:, None] + window
        levels = severity.cpu()[:, None, None]
        return whole[levels, rows[:, :, None], columns[:, None, :]][:, None]


@lru_cache(maxsize=16)
def _products(spec: Inpainting, side: int, centre: int) -> Tensor:
    """Cumulative masks (levels + 1, side, side): severity 0 is all ones."""
    squares = (torch.arange(side, dtype=torch.float64) - centre) ** 2
    now = torch.ones(side, side, dtype=torch.float64)
    found = [now]
    for step in range(spec.levels):
        grown = 1 if spec.routine == "Constant" else step + spec.initial_mask
        variance = max(spec.kernel_std * grown, 1e-12) ** 2
        bell = torch.exp(-(squares[:, None] + squares) / (2 * variance))
        now = now * (1 - bell / bell.max())
        found.append(now)
    return torch.stack(found)
