"""Multi-step consistency sampling: denoise, add noise again, denoise.

Consistency Models (https://arxiv.org/abs/2303.01469), Algorithm 1. NFE = number of time points.
"""

import math

from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.samplers._ode import denoise, start
from cmbench.samplers.base import Sampler
from cmbench.samplers.onestep import OneStep

__all__ = ["MultiStep"]

_FIRST_STOPS = (0.5853481, 3.256822, 1.923340)
"""Levels after sigma_max, points of the 18-point grid; 0.585 is the second point that the authors'
CIFAR-10 example takes. Each further one is one more, so longer runs keep the earlier."""


class MultiStep(Sampler):
    r"""x0 = f(x, s_j); x = x0 + sqrt(s_{j+1}^2 - sigma_min^2) z_{j+1}; the last x0 is the image.

    The first point is sigma_max. Time points come from, in this order: `sigmas` (after the first);
    `indices` into the Karras grid of `grid` points, as the authors write them (0, 22, 39: the last
    only ends the chain); or `steps` alone, which takes default points.
    """

    steps: int = Field(default=2, ge=1, description="evaluations, where no points are given")
    sigmas: tuple[float, ...] | None = Field(default=None, description="points after sigma_max")
    indices: tuple[int, ...] | None = Field(default=None, description="0, ..., grid - 1")
    grid: int = Field(default=40, ge=2, description="points of the grid that indices refer to")

    @model_validator(mode="after")
    def _points(self) -> "MultiStep":
        if self.sigmas is not None and self.indices is not None:
            raise ValueError("give sigmas or indices, not both")
        if self.sigmas is not None and any(s <= 0 for s in self.sigmas):
            raise ValueError("sigmas must be positive")
        if self.indices is not None:
            ordered = list(self.indices) == sorted(set(self.indices))
            if not ordered or self.indices[0] != 0 or self.indices[-1] != self.grid - 1:
                raise ValueError(f"indices must rise from 0 to grid - 1 = {self.grid - 1}")
        return self

    def nfe(self) -> int:
        """One evaluation a time point."""
        if self.sigmas is not None:
            return 1 + len(self.sigmas)
        return len(self.indices) - 1 if self.indices is not None else self.steps

    def possible_nfe(self, around: int) -> "dict[int, MultiStep]":
        """Given points fix the evaluations; otherwise any number of steps can be spent."""
        if self.sigmas is not None or self.indices is not None:
            return {self.nfe(): self}
        return {n: self.model_copy(update={"steps": n}) for n in range(1, around + 2)}

    def prefixes(self) -> tuple[Sampler, ...]:
        """The chain cut short after each of its points, as far as it has a name of its own."""
        return (OneStep(), *(self._cut(n) for n in range(2, self._named() + 1)))

    def _named(self) -> int:
        """Points that are the same for all denoisers under another description of them."""
        stops = len(_FIRST_STOPS)
        given = self.sigmas is not None or self.indices is not None or self.steps <= 1 + stops
        # Of the levels spread over ln sigma the first alone doesn't depend on how many there are.
        return self.nfe() if given else 2

    def _cut(self, points: int) -> "MultiStep":
        if self.indices is not None:
            kept = (*self.indices[:points], self.grid - 1)
            return MultiStep(indices=kept, grid=self.grid)
        stops = self.points(0.0, 0.0)[1:points]
        return MultiStep(sigmas=tuple(stops))

    def points(self, sigma_min: float, sigma_max: float) -> list[float]:
        """The noise levels at which the network is asked, descending from sigma_max."""
        if self.sigmas is not None:
            return [sigma_max, *self.sigmas]
        if self.indices is not None:
            grid = karras_grid(self.grid, sigma_min, sigma_max).tolist()
            return [grid[i] for i in self.indices[:-1]]
        return [sigma_max, *sorted(_default_stops(self.steps - 1, sigma_min), reverse=True)]

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1]; draw j belongs to point j."""
        points = self.points(denoiser.sigma_min, denoiser.sigma_max)
        x = start(noise, points[0])
        clean = denoise(denoiser, x, points[0], labels).clamp(-1, 1)
        for j, sigma in enumerate(points[1:], start=1):
            level = max(sigma, denoiser.sigma_min)
            again = math.sqrt(level**2 - denoiser.sigma_min**2)
            x = clean + again * noise.normal(j).to(clean.dtype)
            clean = denoise(denoiser, x, level, labels).clamp(-1, 1)
        return clean


def _default_stops(count: int, sigma_min: float) -> list[float]:
    """`count` levels between about 10 and 0.1: spread evenly in ln sigma where more than three."""
    if count <= len(_FIRST_STOPS):
        return list(_FIRST_STOPS[:count])
    low, high = math.log(max(0.1, 2 * sigma_min)), math.log(10.0)
    return [math.exp(high + i / (count - 1) * (low - high)) for i in range(count)]
