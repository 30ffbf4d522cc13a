"""Shared loop of the samplers of the probability-flow ODE; each method defines its step.

dx/dsigma = (x - D(x; sigma)) / sigma, from sigma_max to zero (EDM,
https://arxiv.org/abs/2206.00364, eq. 1 with sigma(t) = t).
"""

import itertools
from abc import abstractmethod
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.samplers.base import Sampler

__all__ = ["Evaluate", "GridSampler", "Known", "denoise", "heun_step", "sigma_steps", "start"]

Evaluate = Callable[[Tensor, float], Tensor]
"""D(x; sigma) for states x (B, C, H, W) at one noise level."""

Known = tuple[float, Tensor]
"""A noise level of an earlier step, and D at that level."""


class GridSampler(Sampler):
    """A sampler that steps down a grid of noise levels, by default Karras', and ends at zero."""

    steps: Steps = Field(default=18, description="noise levels before zero")
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")

    @abstractmethod
    def step(
        self, evaluate: Evaluate, x: Tensor, now: float, then: float, past: list[Known]
    ) -> Tensor:
        """Returns the state at level `then` from x (B, C, H, W) at level `now`.

        Args:
            evaluate: D(x; sigma); every call is a network evaluation.
            x: The state, float64.
            now: Its noise level.
            then: The next level, below `now`; zero in the last step.
            past: Evaluations that a multi-step method keeps for later steps; empty at first.
        """

    def nfe(self) -> int:
        """One evaluation per step."""
        return self.steps

    def levels(self, denoiser: Denoiser) -> list[float]:
        """Returns the noise levels, from that of the first state to zero."""
        return sigma_steps(denoiser, self.steps, self.rho)

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), float64."""

        def evaluate(x: Tensor, sigma: float) -> Tensor:
            return denoise(denoiser, x, sigma, labels)

        levels = self.levels(denoiser)
        x = start(noise, levels[0])
        past: list[Known] = []
        for now, then in itertools.pairwise(levels):
            x = self.step(evaluate, x, now, then, past)
        return x


def heun_step(evaluate: Evaluate, x: Tensor, now: float, then: float) -> Tensor:
    """Heun's step (EDM, Algorithm 1, lines 4 to 8); Euler's step if it ends at zero."""
    slope = (x - evaluate(x, now)) / now  # line 4: d = (x - D) / t
    ahead = x + (then - now) * slope  # line 5: Euler's step
    if then == 0:
        return ahead
    corrected = (ahead - evaluate(ahead, then)) / then  # line 7
    return x + (then - now) * (slope + corrected) / 2  # line 8: the trapezoidal rule


def sigma_steps(denoiser: Denoiser, steps: int, rho: float) -> list[float]:
    """Returns `steps` noise levels of the Karras grid in the denoiser's range, then zero."""
    grid = karras_grid(steps, denoiser.sigma_min, denoiser.sigma_max, rho)
    return [*denoiser.round_sigma(grid).tolist(), 0.0]


def start(noise: Noise, sigma: float) -> Tensor:
    """Returns the first state, sigma times draw 0, in float64 (float32 if the device has none)."""
    wide = torch.float32 if noise.device.type == "mps" else torch.float64
    return noise.normal(0).to(wide) * sigma


def denoise(denoiser: Denoiser, x: Tensor, sigma: float, labels: Tensor | None) -> Tensor:
    """Returns D(x; sigma) with one noise level for the batch, in the type of x."""
    levels = torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)
    return denoiser(x, levels, labels).to(x.dtype)
