"""Multi-step consistency sampling: denoise, add noise again, denoise.

Consistency Models (https://arxiv.org/abs/2303.01469), Algorithm 1. NFE = number of time points.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.bounds import MOST_STEPS, Steps
from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.samplers._ode import denoise, start
from cmbench.samplers.base import Sampler
from cmbench.samplers.onestep import OneStep

__all__ = ["MultiStep", "require_falling"]

_FIRST_STOPS = (0.5853481, 3.256822, 1.923340)
"""Levels after sigma_max, from the 18-point Karras grid, in the order in which longer chains add
them; 0.585 is the second point of the authors' CIFAR-10 example."""


class MultiStep(Sampler):
    r"""x0 = f(x, s_j); x = x0 + sqrt(s_{j+1}^2 - sigma_min^2) z_{j+1}; the last x0 is the image.

    The first time point is sigma_max. The others are `sigmas`; or `indices` into the Karras grid
    of `grid` points, in the authors' notation (0, 22, 39: the last one only ends the chain); or,
    with `steps` alone, default points.
    """

    steps: Steps = Field(default=2, description="evaluations, if no points are given")
    sigmas: tuple[float, ...] | None = Field(
        default=None, max_length=500, description="points after sigma_max, falling"
    )
    indices: tuple[Annotated[int, Field(ge=0, lt=MOST_STEPS)], ...] | None = Field(
        default=None, min_length=2, max_length=501, description="0, ..., grid - 1"
    )
    grid: int = Field(
        default=40, ge=2, le=10_000, description="points of the grid that indices refer to"
    )

    @model_validator(mode="after")
    def _points(self) -> "MultiStep":
        if self.sigmas is not None and self.indices is not None:
            raise ValueError("give sigmas or indices, not both")
        if self.sigmas is not None:
            require_falling(self.sigmas)
        if self.indices is not None:
            ordered = list(self.indices) == sorted(set(self.indices))
            if not ordered or self.indices[0] != 0 or self.indices[-1] != self.grid - 1:
                raise ValueError(f"indices must rise from 0 to grid - 1 = {self.grid - 1}")
        return self

    def require_range(self, low: float, high: float) -> None:
        """Given points lie inside the denoiser's range of noise levels."""
        outside = [s for s in self.sigmas or () if not low < s < high]
        if outside:
            raise UserError(
                f"sampler '{self.name}': noise level {outside[0]:g} is outside the model's range",
                expected=f"sigmas below {high:g} and above {low:g}",
            )

    def nfe(self) -> int:
        """One evaluation per time point."""
        if self.sigmas is not None:
            return 1 + len(self.sigmas)
        return len(self.indices) - 1 if self.indices is not None else self.steps

    def possible_nfe(self, around: int) -> "dict[int, MultiStep]":
        """Any number of evaluations is possible, unless given points fix it."""
        if self.sigmas is not None or self.indices is not None:
            return {self.nfe(): self}
        return {n: self.model_copy(update={"steps": n}) for n in range(1, around + 2)}

    def prefixes(self) -> tuple[Sampler, ...]:
        """Returns the chain truncated after each point, for the points that other chains share."""
        return (OneStep(), *(self._truncated(n) for n in range(2, self._shared_points() + 1)))

    def _shared_points(self) -> int:
        """Returns how many leading points a shorter chain has too, for every denoiser."""
        stops = len(_FIRST_STOPS)
        given = self.sigmas is not None or self.indices is not None or self.steps <= 1 + stops
        # Default levels beyond the first stops are spread over ln sigma: only the first one does
        # not depend on their number.
        return self.nfe() if given else 2

    def _truncated(self, points: int) -> "MultiStep":
        if self.indices is not None:
            kept = (*self.indices[:points], self.grid - 1)
            return MultiStep(indices=kept, grid=self.grid)
        stops = self.points(0.0, 0.0)[1:points]
        return MultiStep(sigmas=tuple(stops))

    def points(self, sigma_min: float, sigma_max: float) -> list[float]:
        """Returns the noise levels at which the network is evaluated, the first sigma_max."""
        if self.sigmas is not None:
            return [sigma_max, *self.sigmas]
        if self.indices is not None:
            grid = karras_grid(self.grid, sigma_min, sigma_max).tolist()
            return [grid[i] for i in self.indices[:-1]]
        return [sigma_max, *sorted(_default_stops(self.steps - 1, sigma_min), reverse=True)]

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) in [-1, 1]; point j uses noise draw j."""
        self.require_range(denoiser.sigma_min, denoiser.sigma_max)
        points = self.points(denoiser.sigma_min, denoiser.sigma_max)
        x = start(noise, points[0])
        clean = denoise(denoiser, x, points[0], labels).clamp(-1, 1)
        for j, sigma in enumerate(points[1:], start=1):
            level = max(sigma, denoiser.sigma_min)
            # Algorithm 1: x = x0 + sqrt(tau^2 - eps^2) z.
            added = math.sqrt(level**2 - denoiser.sigma_min**2)
            x = clean + added * noise.normal(j).to(clean.dtype)
            clean = denoise(denoiser, x, level, labels).clamp(-1, 1)
        return clean


def require_falling(sigmas: Sequence[float]) -> None:
    """Refuses noise levels that are not positive, or don't fall from each to the next.

    Raises:
        ValueError: As a field's validator says it.
    """
    if any(s <= 0 for s in sigmas):
        raise ValueError("sigmas must be positive")
    if any(later >= earlier for earlier, later in pairwise(sigmas)):
        raise ValueError("sigmas must fall from each to the next")


def _default_stops(count: int, sigma_min: float) -> list[float]:
    """Returns `count` levels between about 10 and 0.1; more than three are even in ln sigma."""
    if count <= len(_FIRST_STOPS):
        return list(_FIRST_STOPS[:count])
    low, high = math.log(max(0.1, 2 * sigma_min)), math.log(10.0)
    return [math.exp(high + i / (count - 1) * (low - high)) for i in range(count)]
