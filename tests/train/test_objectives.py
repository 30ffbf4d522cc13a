"""Consistency objectives against closed forms: schedules, and a teacher that is exact."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from cmbench.denoise.precondition import ConsistencyFunction
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.distances.l2 import L2
from cmbench.train.objectives._consistency import adaptive_points, adaptive_rate
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.cd import ConsistencyDistillation

SPREAD = 0.7


class _Zero(nn.Module):
    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x)


class _GaussianTeacher(nn.Module):
    """The ideal denoiser of N(0, SPREAD^2): D = x SPREAD^2 / (SPREAD^2 + sigma^2)."""

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return x * (SPREAD**2 / (SPREAD**2 + sigma**2)).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("step", "points", "rate"),
    [
        (0, 2, 0.81),
        (1, 3, 0.9),
        (1_000, 6, 0.95873),
        (10_000, 17, 0.98692),
        (100_000, 54, 0.99603),
        (400_000, 107, 0.99801),
        (740_000, 146, 0.99855),
        (800_000, 151, 0.99860),
    ],
)
def test_schedules_of_the_paper_on_cifar10(step: int, points: int, rate: float) -> None:
    assert adaptive_points(step, 800_000, 2, 150) == points
    assert adaptive_rate(points, 2, 0.9) == pytest.approx(rate, abs=6e-6)


def _trajectory_error(solver: str, points: int) -> float:
    student = ConsistencyFunction(_Zero(), (2, 1, 1))
    spec = ConsistencyDistillation.model_validate({"points": points, "solver": solver})
    device = torch.device("cpu")
    loss = spec.build(Setup(student, _GaussianTeacher(), L2().build(device), 1, device))
    grid = karras_grid(points)
    x = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    for t, u in itertools.pairwise(grid):
        x = loss.solve(x, t[None], u[None], None)  # type: ignore[operator]
    exact = math.sqrt((SPREAD**2 + 0.002**2) / (SPREAD**2 + 80.0**2))
    return abs(float(x[0, 0, 0, 0]) - exact) / exact


@pytest.mark.parametrize(("solver", "order"), [("heun", 2), ("euler", 1)])
def test_teacher_solver_reaches_the_exact_map_at_its_order(solver: str, order: int) -> None:
    coarse, fine = _trajectory_error(solver, 161), _trajectory_error(solver, 321)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)
