"""What samplers of the probability-flow ODE share: their grid, their start, one evaluation."""

import torch
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.sigma_grids import karras_grid

__all__ = ["denoise", "sigma_steps", "start"]


def sigma_steps(denoiser: Denoiser, steps: int, rho: float) -> list[float]:
    """`steps` noise levels of the Karras grid within the denoiser's range, then zero."""
    grid = karras_grid(steps, denoiser.sigma_min, denoiser.sigma_max, rho)
    return [*denoiser.round_sigma(grid).tolist(), 0.0]


def start(noise: Noise, sigma: float) -> Tensor:
    """The first state, sigma times draw 0, in float64 (float32 where a device has no float64)."""
    wide = torch.float32 if noise.device.type == "mps" else torch.float64
    return noise.normal(0).to(wide) * sigma


def denoise(denoiser: Denoiser, x: Tensor, sigma: float, labels: Tensor | None) -> Tensor:
    """D(x; sigma) at one level for the whole batch; the state's type is kept."""
    levels = torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)
    return denoiser(x, levels, labels).to(x.dtype)
