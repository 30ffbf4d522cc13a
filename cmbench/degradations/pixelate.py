"""The degradation of super-resolution: step by step coarser pixels.

Cold Diffusion (https://arxiv.org/abs/2208.09392), section 4.3; routines as in the released code.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as nnf

from cmbench.core.bounds import Steps
from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.degradations.base import Degradation

__all__ = ["Pixelate"]

Routine = Literal[
    "Incremental_factor_2",
    "Incremental_area_factor_2",
    "Incremental_bilinear",
    "Incremental_area",
    "Incremental_bicubic_with_blur",
]

_MODES = {
    "Incremental_factor_2": "bicubic",
    "Incremental_area_factor_2": "area",
    "Incremental_bilinear": "bilinear",
    "Incremental_area": "area",
    "Incremental_bicubic_with_blur": "bicubic",
}


class Pixelate(Degradation):
    """Downsamples to side // 2^(i+1) (factor_2 routines) or side - i (others) in step i.

    Downsampling has no antialiasing; upsampling takes the nearest pixel. `with_blur` smooths
    before and after with three taps of deviation 0.5.
    """

    levels: Steps = 3
    routine: Routine = "Incremental_factor_2"

    def degrade(self, x0: Tensor, severity: Tensor, noise: Noise | None = None) -> Tensor:
        """Pixelates x0 (B, C, H, W) to severity (B,) in 0..levels; deterministic.

        Raises:
            UserError: If the image is too small for the number of levels.
        """
        if self._side(self.levels - 1, min(x0.shape[-2:])) < 1:
            raise UserError(
                f"pixelate: {self.levels} levels leave no pixel of {x0.shape[-1]}",
                fix="fewer levels",
            )
        x = x0
        for step in range(int(severity.max())):
            x = torch.where((severity > step).reshape(-1, 1, 1, 1), self._once(x, step), x)
        return x

    def start(self, noise: Noise) -> Tensor:
        """Returns normal noise of deviation 0.5, pixelated to the last severity."""
        last = torch.full((len(noise),), self.levels, device=noise.device)
        return self.degrade(0.5 * noise.normal(0), last)

    def _once(self, x: Tensor, step: int) -> Tensor:
        soft = self.routine.endswith("with_blur")
        size = [self._side(step, side) for side in x.shape[-2:]]
        small = nnf.interpolate(_smooth(x) if soft else x, size=size, mode=_MODES[self.routine])
        large = nnf.interpolate(small, size=x.shape[-2:], mode="nearest-exact")
        return _smooth(large) if soft else large

    def _side(self, step: int, side: int) -> int:
        return side // 2 ** (step + 1) if self.routine.endswith("factor_2") else side - step


def _smooth(x: Tensor) -> Tensor:
    taps = torch.tensor([-1.0, 0.0, 1.0], dtype=x.dtype, device=x.device)
    taps = torch.exp(-(taps**2) / (2 * 0.5**2))
    taps = taps / taps.sum()
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 3, 3)
    return nnf.conv2d(nnf.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1])
