"""Improved consistency training: the paper's numbers, and oracles that its loss leaves alone."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from cmbench.core.loader import create
from cmbench.denoise.precondition import ConsistencyFunction
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.ict import ImprovedConsistencyTraining
from cmbench.train.recipe import read_recipe

CPU = torch.device("cpu")
RECIPE = Path(__file__).parents[2] / "models" / "ict" / "recipes" / "digits.yaml"


class Scaled(torch.nn.Module):
    """F(x, c) of the exact consistency function of N(0, v) data, times a gain to be learnt."""

    def __init__(self, v, gain=1.0, eps=0.002):
        super().__init__()
        self.v, self.eps = v, eps
        self.gain = torch.nn.Parameter(torch.tensor(gain, dtype=torch.float64))

    def forward(self, scaled, c_noise, labels=None):
        sigma = (4 * c_noise.double()).exp().reshape(-1, 1, 1, 1)
        x = scaled * (sigma**2 + 0.25).sqrt()
        factor = ((self.v + self.eps**2) / (self.v + sigma**2)).sqrt()
        skip = 0.25 / ((sigma - self.eps) ** 2 + 0.25)
        out = (sigma - self.eps) * 0.5 / (sigma**2 + 0.25).sqrt()
        return self.gain * x * (factor - skip) / out


def loss_of(student=None, total=400_000, **spec):
    student = student or ConsistencyFunction(Scaled(0.3), (1, 1, 1))
    return ImprovedConsistencyTraining(**spec).build(Setup(student, None, None, total, CPU))


def test_curriculum_of_the_paper():
    """11 levels to 1281, doubling every 50,000 of 400,000 steps."""
    loss = loss_of()
    levels = [loss.points(50_000 * i) for i in range(8)]
    assert levels == [11, 21, 41, 81, 161, 321, 641, 1281]
    assert loss.points(49_999) == 11
    assert loss.points(399_999) == 1281


def test_a_short_training_has_as_many_stages():
    loss = loss_of(total=1000, s1=160)
    assert [loss.points(s) for s in (0, 200, 400, 600, 800, 999)] == [11, 21, 41, 81, 161, 161]
    assert loss_of(total=3, s0=10, s1=10).points(2) == 11


def test_pairs_are_drawn_with_the_log_normals_mass_between_their_levels():
    loss = loss_of()
    grid = loss.grid(0)
    share = loss.shares(grid)
    cdf = stats.norm(-1.1, 2.0).cdf(grid.log().numpy())
    assert share.numpy() == pytest.approx((cdf[:-1] - cdf[1:]) / (cdf[0] - cdf[-1]), rel=1e-9)


def test_drawn_pairs_are_neighbours_of_the_grid_in_those_shares():
    loss, count = loss_of(), 20_000
    seen = {}
    loss.loss = lambda images, t, u, noise, labels: seen.update(t=t, u=u)
    loss(torch.zeros(count, 1, 1, 1), None, 0, Draws(0, 0, count, (0, count), CPU))
    grid = loss.grid(0).float()
    place = (grid[:, None] == seen["t"]).float().argmax(0)
    assert torch.equal(grid[place + 1], seen["u"])
    found = torch.bincount(place, minlength=10) / count
    error = (loss.shares(loss.grid(0)) * (1 - loss.shares(loss.grid(0))) / count).sqrt()
    assert bool(((found - loss.shares(loss.grid(0))).abs() < 4 * error + 1e-9).all())


def test_loss_is_pseudo_huber_over_the_gap():
    """c = 0.00054 sqrt(d): 0.02993 for 3x32x32, as the paper prints."""

    class Zero(torch.nn.Module):
        def forward(self, x, c_noise, labels=None):
            return 0 * x

    student = ConsistencyFunction(Zero(), (3, 32, 32))
    loss = loss_of(student)
    x, noise = torch.zeros(1, 3, 32, 32).double(), torch.ones(1, 3, 32, 32).double()
    t, u = torch.tensor([2.0]).double(), torch.tensor([1.0]).double()
    skip = [0.25 / ((s - 0.002) ** 2 + 0.25) * s for s in (2.0, 1.0)]
    c, d = 0.02993, 3072
    wanted = math.sqrt(d * (skip[0] - skip[1]) ** 2 + c**2) - c
    assert float(loss.loss(x, t, u, noise, None)) == pytest.approx(wanted, rel=1e-6)


class Square(torch.nn.Module):
    def forward(self, x, y):
        return (x - y).square().flatten(1).sum(1)


def gradient(v, gain, points):
    """Expected d loss / d gain for data N(0, v), exact over x0 and noise, squared distance."""
    student = ConsistencyFunction(Scaled(v, gain), (1, 1, 1))
    loss = ImprovedConsistencyTraining().build(Setup(student, None, Square(), 1, CPU))
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(6))
    grid = karras_grid(points)
    pair, x0, noise = torch.meshgrid(
        torch.arange(points - 1.0).double(), nodes, nodes, indexing="ij"
    )
    chance = torch.outer(weights, weights).expand(pair.shape) / weights.sum() ** 2
    x0, noise = (a.reshape(-1, 1, 1, 1) for a in (x0 * math.sqrt(v), noise))
    place = pair.reshape(-1).long()
    t, u = grid[place], grid[place + 1]
    (chance.reshape(-1) * (t - u) * loss.loss(x0, t, u, noise, None)).sum().backward()
    return float(student.net.gain.grad)


def test_the_exact_consistency_function_is_where_the_gradient_vanishes():
    """Stop-gradient on the target: no minimum of the loss, but a rest point, as N grows."""
    coarse, fine = (abs(gradient(0.3, 1.0, n)) for n in (41, 321))
    off = abs(gradient(0.3, 1.1, 321)), abs(gradient(0.3, 0.9, 321))
    assert fine < coarse / 4
    assert fine < min(off) / 10


def test_the_recipe_trains_its_model_without_a_teacher():
    recipe = read_recipe(RECIPE)
    assert recipe.teacher is None
    student = create("model", recipe.model).build()
    loss = recipe.built_objective().build(Setup(student, None, None, recipe.steps, CPU))
    found = loss(torch.rand(8, 1, 8, 8), None, 0, Draws(0, 0, 8, (0, 8), CPU))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert student.net.last.weight.grad.abs().sum() > 0
