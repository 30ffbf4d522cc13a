r"""Beta schedules of discrete VP processes, under diffusers' names, which hub files use.

DDPM (https://arxiv.org/abs/2006.11239, section 4): linear, 1e-4 to 0.02 in 1000 steps. They are
computed in float32, as in diffusers: at the first steps only three digits of 1 - abar remain, and
results of its files depend on that rounding.
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
    """Returns the cumulative products of 1 - beta, (steps,), float32 values as float64.

    `scaled_linear` is linear in sqrt(beta), `squaredcos_cap_v2` improved DDPM's cosine
    (https://arxiv.org/abs/2102.09672, eq. 17), `sigmoid` GeoDiff's; `trained_betas` override the
    schedule.
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
    def abar(share: float) -> float:
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - abar((i + 1) / steps) / abar(i / steps), 0.999) for i in range(steps)]
