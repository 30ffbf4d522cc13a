"""Noise levels of discrete VP processes: iDDPM's schedules, the cosine one also in EDM's form.

iDDPM (https://arxiv.org/abs/2102.09672, section 3.2), EDM (https://arxiv.org/abs/2206.00364,
Table 1).
"""

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["iddpm_levels", "noise_schedule"]


def iddpm_levels(steps: int = 1000, c_1: float = 0.001, c_2: float = 0.008) -> Tensor:
    r"""u_0 > ... > u_steps = 0, float64: u_{j-1}^2 = (u_j^2 + 1) / max(r_j, c_1) - 1.

    r_j = abar(j - 1) / abar(j) with abar(j) = sin^2(pi/2 j / (steps (1 + c_2))) (EDM, Table 1).
    """

    def abar(j: int) -> float:
        return math.sin(math.pi / 2 * j / steps / (c_2 + 1)) ** 2

    levels = [0.0]
    for j in range(steps, 0, -1):
        ratio = max(abar(j - 1) / abar(j), c_1)
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / ratio - 1))
    return torch.tensor(levels[::-1], dtype=torch.float64, device="cpu")


def noise_schedule(name: str, steps: int) -> Tensor:
    """Returns abar (T,), float64, of improved-diffusion's `linear` or `cosine` schedule.

    Linear: beta from 1e-4 to 0.02, times 1000 / T. Cosine: 1 - beta_i = f(i+1) / f(i), beta at
    most 0.999, f(u) = cos^2((u / T + 0.008) / 1.008 pi / 2) (iDDPM, eq. 17).
    """
    if name == "linear":
        scale = 1000 / steps
        betas = np.linspace(scale * 1e-4, scale * 0.02, steps, dtype=np.float64)
    elif name == "cosine":
        edges = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
    else:
        raise ValueError(f"no noise schedule named {name!r}: linear or cosine")
    return torch.from_numpy(np.cumprod(1 - betas))
