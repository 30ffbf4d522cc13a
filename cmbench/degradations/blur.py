r"""Gaussian blur: x_s = G_s * ... * G_1 * x, the severities of cold diffusion's deblurring.

Every kernel is separable and its padding linear, so the first s kernels are one matrix per side:
D(x, s) = A_s x B_s^T. Cold Diffusion (https://arxiv.org/abs/2208.09392), section 4.1 and
appendix; the routines' names and constants are those of the released deblurring code.
"""

import math
from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.degradations.base import Degradation

__all__ = ["Blur"]

Routine = Literal[
    "Incremental",
    "Constant",
    "Constant_reflect",
    "Exponential",
    "Exponential_reflect",
    "Individual_Incremental",
    "Special_6_routine",
]


class Blur(Degradation):
    """Step i = 0..levels-1 blurs with a kernel of standard deviation std_i, in pixels.

    Incremental: kernel_std (i + 1). Constant: kernel_std. Exponential: exp(kernel_std i).
    Special_6_routine: 11 taps, i / 100 + 0.35. Individual_Incremental: 2 i + 1 taps of deviation
    2 (2 i + 1), where a single kernel is applied to the clean image, not all up to s in turn.
    Borders reflect in the routines named so and in Special_6_routine; otherwise they wrap around.
    """

    levels: Steps = 50
    routine: Routine = "Special_6_routine"
    kernel_size: int = Field(default=11, ge=1, le=1023, description="number of taps, odd")
    kernel_std: float = Field(default=0.1, gt=0)
    discrete: bool = Field(
        default=False, description="the last severity is the mean of each channel"
    )

    @model_validator(mode="after")
    def _odd(self) -> "Blur":
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        return self

    def degrade(self, x0: Tensor, severity: Tensor, noise: Noise | None = None) -> Tensor:
        """Blurs x0 (B, C, H, W) to severity (B,) in 0..levels; deterministic."""
        rows = _operators(self, x0.shape[-2]).to(x0)[severity]
        columns = _operators(self, x0.shape[-1]).to(x0)[severity]
        blurred = rows[:, None] @ x0 @ columns[:, None].transpose(-1, -2)
        if not self.discrete:
            return blurred
        last = (severity == self.levels).reshape(-1, 1, 1, 1)
        return torch.where(last, blurred.mean((2, 3), keepdim=True), blurred)

    def start(self, noise: Noise) -> Tensor:
        """Returns one constant per channel of each image, normal with mean 0 and deviation 0.3.

        A trained model instead starts from the channel means of its data
        (`cmbench.denoise.cold.Restorer`).
        """
        colour = noise.normal(0)[:, :, :1, :1]
        return 0.3 * colour.expand(-1, -1, *noise.shape[1:])

    def kernel(self, step: int) -> Tensor:
        """Returns the taps of step `step` (from 0) along one side, float64, with sum 1."""
        taps, deviation = self._taps(step)
        offsets = torch.arange(taps, dtype=torch.float64) - taps // 2
        weights = torch.exp(-(offsets**2) / (2 * deviation**2))
        return weights / weights.sum()

    @property
    def reflects(self) -> bool:
        """True if borders reflect; otherwise they wrap around."""
        return self.routine.endswith("_reflect") or self.routine == "Special_6_routine"

    def _taps(self, step: int) -> tuple[int, float]:
        match self.routine:
            case "Incremental":
                return self.kernel_size, self.kernel_std * (step + 1)
            case "Constant" | "Constant_reflect":
                return self.kernel_size, self.kernel_std
            case "Exponential" | "Exponential_reflect":
                return self.kernel_size, math.exp(self.kernel_std * step)
            case "Special_6_routine":
                return 11, step / 100 + 0.35
            case "Individual_Incremental":
                return 2 * step + 1, 2.0 * (2 * step + 1)


@lru_cache(maxsize=16)
def _operators(blur: Blur, side: int) -> Tensor:
    """Returns the blur of one side at every severity, (levels + 1, side, side), float64."""
    now = torch.eye(side, dtype=torch.float64)
    matrices = [now]
    for step in range(blur.levels):
        one = _operator(blur.kernel(step), side, blur.reflects)
        now = one if blur.routine == "Individual_Incremental" else one @ now
        matrices.append(now)
    return torch.stack(matrices)


def _operator(taps: Tensor, side: int, reflect: bool) -> Tensor:
    matrix = torch.zeros(side, side, dtype=torch.float64)
    index = torch.arange(side)
    for offset, weight in enumerate(taps.tolist(), start=-(len(taps) // 2)):
        source = _reflected(index + offset, side) if reflect else (index + offset) % side
        matrix[index, source] += weight
    return matrix


def _reflected(index: Tensor, side: int) -> Tensor:
    period = max(1, 2 * (side - 1))
    folded = index % period
    return torch.minimum(folded, period - folded)
