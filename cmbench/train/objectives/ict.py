r"""Improved consistency training: no target EMA, pseudo-Huber, log-normal levels, doublings.

Song and Dhariwal (https://arxiv.org/abs/2310.14189), Table 1 and section 3: the target is the
network itself (stop-gradient), the weight is 1 / (t - u) for the pair t > u, a pair is drawn with
the log-normal's mass between its levels, and the number of levels doubles at equal intervals:
N(k) = min(s0 2^floor(k / K'), s1) + 1, K' = floor(K / (log2 floor(s1 / s0) + 1)).
"""

import dataclasses
import math

import torch
from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Levels
from cmbench.denoise.base import expand
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.distances.pseudo_huber import PseudoHuber
from cmbench.train.draws import Draws
from cmbench.train.objectives._consistency import PairLoss
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["ImprovedConsistencyTraining"]


class ImprovedConsistencyTraining(Objective):
    """Improved consistency training, by default with pseudo-Huber and c = 0.00054 sqrt(d)."""

    s0: Levels = Field(default=10, description="first number of steps")
    s1: Levels = Field(default=1280, description="last number of steps")
    p_mean: float = Field(default=-1.1, description="mean of ln sigma")
    p_std: float = Field(default=2.0, gt=0, description="standard deviation of ln sigma")
    rho: float = Field(default=7.0, gt=0)

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student."""
        distance = setup.distance or PseudoHuber().build(setup.device)
        return _Improved(self, dataclasses.replace(setup, distance=distance))

    def forward_equivalents(self) -> float:
        """Counts student 3 (forward and backward) and target 1."""
        return 4.0


class _Improved(PairLoss):
    def __init__(self, spec: ImprovedConsistencyTraining, setup: Setup) -> None:
        super().__init__(setup, keeps_target=False)
        self.spec, self.total = spec, setup.total_steps

    def points(self, step: int) -> int:
        """N(k), the number of levels at a step."""
        doublings = math.log2(max(self.spec.s1 // self.spec.s0, 1))
        every = max(math.floor(self.total / (doublings + 1)), 1)
        return int(min(self.spec.s0 * 2 ** min(step // every, 60), self.spec.s1)) + 1

    def grid(self, step: int) -> Tensor:
        """Returns the levels of a step, descending, float64."""
        low, high = self.student.sigma_min, self.student.sigma_max
        return karras_grid(self.points(step), low, high, self.spec.rho)

    def shares(self, grid: Tensor) -> Tensor:
        """Returns the probability of each pair of neighbours of the grid, (N - 1,) float64."""
        normal = (grid.log() - self.spec.p_mean) / (math.sqrt(2) * self.spec.p_std)
        mass = torch.erf(normal[:-1]) - torch.erf(normal[1:])
        return mass / mass.sum()

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        grid = self.grid(step)
        # On the CPU, where draws are computed: a device without float64 would draw other pairs.
        heap = self.shares(grid).cumsum(0)
        index = torch.searchsorted(heap, draws.uniform().cpu().double()).clamp(max=len(heap) - 1)
        t, u = (grid[i].float().to(images.device) for i in (index, index + 1))
        return self.loss(images, t, u, draws.normal(*images.shape[1:]), labels)

    def loss(
        self, images: Tensor, t: Tensor, u: Tensor, noise: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Computes the loss per image (B,) for the pairs t > u (B,), for the given noise."""
        x_t, x_u = images + expand(t, images) * noise, images + expand(u, images) * noise
        return self.pair_loss(x_t, t, x_u, u, labels) / (t - u)

    def progress(self, step: int) -> dict[str, float]:
        return {"N": float(self.points(step))}
