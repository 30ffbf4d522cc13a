"""Euler's method on a grid that is even in ln sigma."""

import itertools

import torch
from pydantic import Field
from torch import Tensor

from cmbench.api import Denoiser, Noise, Sampler

__all__ = ["LogEuler"]


class LogEuler(Sampler):
    """One evaluation a step, and a last one that goes to zero."""

    steps: int = Field(default=8, ge=1)

    def nfe(self) -> int:
        """One evaluation a step."""
        return self.steps

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), float64."""
        top, low = denoiser.sigma_max, denoiser.sigma_min
        ratio = (low / top) ** (1 / max(1, self.steps - 1))
        sigmas = [*(top * ratio**i for i in range(self.steps)), 0.0]
        x = noise.normal(0).double() * top
        for now, then in itertools.pairwise(sigmas):
            levels = torch.full((len(x),), now, dtype=x.dtype)
            x = x + (then - now) / now * (x - denoiser(x, levels, labels))
        return x
