r"""Beta schedules of discrete VP processes by diffusers' names, which hub files carry.

DDPM (https://arxiv.org/abs/2006.11239, section 4): linear, 1e-4 to 0.02 in 1000 steps. In float32
as diffusers holds them: at the first steps 1 - abar has three digits left, and its files'
numbers rest on those.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["BetaSchedule", "products"]

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]


def products(
    schedule: BetaSchedule = "linear",
    steps: int = 1000,
    *,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    trained_betas: Sequence[float] | None = None,
) -> Tensor:
    """Products of 1 - beta, (steps,), float64 values of float32 arithmetic.

    `scaled_linear` is linear in sqrt(beta), `squaredcos_cap_v2` improved DDPM's cosine
    (https://arxiv.org/abs/2102.09672, eq. 17), `sigmoid` GeoDiff's; `trained_betas` stand for all
    of these.
    """
    if trained_betas is not None:
        betas = _single(list(trained_betas))
    elif schedule == "linear":
        betas = _ramp(beta_start, beta_end, steps)
    elif schedule == "scaled_linear":
        betas = _ramp(beta_start**0.5, beta_end**0.5, steps) ** 2
    elif schedule == "sigmoid":
        betas = torch.sigmoid(_ramp(-6, 6, steps)) * (beta_end - beta_start) + beta_start
    else:
        betas = _single(_cosine(steps))
    return torch.cumprod(1 - betas, dim=0).double()


def _single(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device="cpu")


def _ramp(first: float, last: float, steps: int) -> Tensor:
    return torch.linspace(first, last, steps, dtype=torch.float32, device="cpu")


def _cosine(steps: int) -> list[float]:
    def kept(share: float) -> float:
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - kept((i + 1) / steps) / kept(i / steps), 0.999) for i in range(steps)]
