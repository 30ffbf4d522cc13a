r"""Inpainting: growing Gaussian holes, x_s = x * m_1 * ... * m_s, filled with mid-grey (0).

m_i = 1 - G_i / max G_i with a Gaussian G_i of deviation kernel_std (i + initial_mask). Cold
Diffusion (https://arxiv.org/abs/2208.09392), section 4.2; routines as in the released code.
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
"""Index of the noise draw that the holes' centres are taken from."""


class Inpainting(Degradation):
    """Masks out a hole. Incremental: growing deviations, a hole in the middle.

    Constant: a constant deviation. Random_Incremental: growing, with a random centre per image.
    """

    levels: Steps = 50
    routine: Literal["Incremental", "Constant", "Random_Incremental"] = "Random_Incremental"
    kernel_std: float = Field(default=0.1, gt=0, description="deviation, in pixels")
    initial_mask: int = Field(
        default=1, ge=0, le=10_000, description="offset of the first hole, in steps"
    )

    def degrade(self, x0: Tensor, severity: Tensor, noise: Noise | None = None) -> Tensor:
        """Masks holes of severity (B,) in 0..levels out of x0 (B, C, H, W).

        Raises:
            UserError: If the centre is random and `noise` is None.
        """
        return x0 * self.masks(severity, x0.shape[-1], noise).to(x0)

    def start(self, noise: Noise) -> Tensor:
        """Returns white images masked at the last severity."""
        last = torch.full((len(noise),), self.levels, device=noise.device)
        return self.degrade(torch.ones(len(noise), *noise.shape, device=noise.device), last, noise)

    def masks(self, severity: Tensor, side: int, noise: Noise | None = None) -> Tensor:
        """Returns the product of the first s masks, (B, 1, side, side) in [0, 1], float64."""
        if self.routine != "Random_Incremental":
            return _products(self, side, side // 2 - 1)[severity.cpu()][:, None]
        if noise is None:
            raise UserError("inpainting with a random centre needs noise", fix="pass noise=")
        uniform = noise.uniform(CENTRE_DRAW).flatten(1)[:, :2].cpu().double()
        top, left = (uniform * (side + 1)).long().clamp(max=side).unbind(1)
        # A window of a mask twice as large puts the hole's centre anywhere in the image.
        large = _products(self, 2 * side, side - 1)
        window = torch.arange(side)
        rows, columns = top[:, None] + window, left[:, None] + window
        levels = severity.cpu()[:, None, None]
        return large[levels, rows[:, :, None], columns[:, None, :]][:, None]


@lru_cache(maxsize=16)
def _products(spec: Inpainting, side: int, centre: int) -> Tensor:
    """Returns the cumulative masks (levels + 1, side, side); severity 0 is all ones."""
    squares = (torch.arange(side, dtype=torch.float64) - centre) ** 2
    now = torch.ones(side, side, dtype=torch.float64)
    masks = [now]
    for step in range(spec.levels):
        size = 1 if spec.routine == "Constant" else step + spec.initial_mask
        variance = max(spec.kernel_std * size, 1e-12) ** 2
        bell = torch.exp(-(squares[:, None] + squares) / (2 * variance))
        now = now * (1 - bell / bell.max())
        masks.append(now)
    return torch.stack(masks)
