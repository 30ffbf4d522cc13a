"""Sigma grids: the noise levels of a sampler's or a consistency objective's steps."""

import torch
from torch import Tensor

__all__ = ["karras_grid", "log_snr_grid"]


def karras_grid(
    points: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Tensor:
    r"""Returns N noise levels from sigma_max down to sigma_min, float64 (EDM, eq. 5).

    sigma_i = (max^(1/rho) + i / (N - 1) (min^(1/rho) - max^(1/rho)))^rho; N = 1: sigma_max.
    """
    steps = torch.arange(points, dtype=torch.float64) / max(points - 1, 1)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    grid: Tensor = (high + steps * (low - high)) ** rho
    grid[0] = sigma_max
    if points > 1:
        grid[-1] = sigma_min
    return grid


def log_snr_grid(points: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """Returns N noise levels spaced evenly in ln sigma, descending, float64."""
    high, low = torch.tensor([sigma_max, sigma_min], dtype=torch.float64).log().tolist()
    return torch.linspace(high, low, points, dtype=torch.float64).exp()
