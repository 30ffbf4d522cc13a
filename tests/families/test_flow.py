"""Flows in closed form: Gaussian data has a known velocity, ODE and rectified second flow."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.denoise.flow import FlowDenoiser
from cmbench.samplers.euler import Euler
from cmbench.samplers.flow_euler import FlowEuler
from cmbench.samplers.heun import Heun
from cmbench.testing.oracles import GaussianDenoiser
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.flow_matching import FlowMatching
from cmbench.train.objectives.reflow import Reflow
from cmbench.train.recipe import read_recipe

CPU = torch.device("cpu")
V = 0.3
RECIPES = Path(__file__).parents[2] / "models" / "flow" / "recipes"


def wide(t):
    return t.reshape(-1, 1, 1, 1)


class Best(torch.nn.Module):
    """E[n - x0 | x_t] for data N(0, V), times a gain to be learnt."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain, dtype=torch.float64))

    def forward(self, x, t, labels=None):
        t = wide(t)
        return self.gain * x * (t - (1 - t) * V) / ((1 - t) ** 2 * V + t**2)


def flow(net=None, **more):
    return FlowDenoiser(net or Best(), (1, 2, 2), **more)


def quadrature():
    """Data, noise and weights: means over both are exact for polynomials."""
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(6))
    x0, noise = torch.meshgrid(nodes * V**0.5, nodes, indexing="ij")
    chance = torch.outer(weights, weights).reshape(-1) / weights.sum() ** 2
    return x0.reshape(-1, 1, 1, 1), noise.reshape(-1, 1, 1, 1), chance


@torch.no_grad()
@pytest.mark.parametrize("sigma", [0.002, 0.4, 3.0, 80.0])
def test_a_flow_is_the_denoiser_of_the_same_data(sigma):
    x = sigma * torch.randn(3, 1, 2, 2, dtype=torch.float64)
    levels = torch.full((3,), sigma, dtype=torch.float64)
    known = GaussianDenoiser((1, 2, 2), spread=V**0.5)
    assert torch.allclose(flow()(x, levels), known(x, levels), atol=1e-12)


@torch.no_grad()
def test_samplers_of_sigma_space_run_on_it():
    noise = Noise(0, range(3), (1, 2, 2), dtype=torch.float64)
    known = GaussianDenoiser((1, 2, 2), spread=V**0.5)
    for sampler in (Euler(steps=5), Heun(steps=5)):
        found = sampler.sample(flow(), noise)
        assert torch.allclose(found, sampler.sample(known, noise), atol=1e-9)


@torch.no_grad()
def test_a_step_of_euler_in_t_is_one_in_sigma():
    """x_t' / (1 - t') against D + sigma' (x - D) / sigma: the path of DDIM."""
    model, x = flow(), torch.randn(4, 1, 2, 2, dtype=torch.float64)
    t = torch.full((4,), 0.7, dtype=torch.float64)
    in_t = (x - 0.4 * model.velocity(x, t)) / 0.7
    start, sigma, after = x / 0.3, 0.7 / 0.3, 0.3 / 0.7
    clean = model(start, torch.full((4,), sigma, dtype=torch.float64))
    assert torch.allclose(in_t, clean + after * (start - clean) / sigma, atol=1e-12)


@torch.no_grad()
def test_its_own_sampler_reaches_the_exact_image_at_first_order():
    noise = Noise(2, range(3), (1, 2, 2), dtype=torch.float64)
    exact = noise.normal(0) * V**0.5
    errors = [
        float((FlowEuler(steps=n).sample(flow(), noise) - exact).abs().max()) for n in (200, 400)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.05)
    assert errors[1] < 0.01


def test_loss_of_the_best_velocity_is_what_the_state_leaves_unknown():
    loss = FlowMatching().build(Setup(flow(), None, None, 1, CPU))
    x0, noise, chance = quadrature()
    for t in (0.05, 0.5, 0.95):
        place = torch.full((len(x0),), t, dtype=torch.float64)
        found = float((chance * loss.match(x0, noise, place, None)).sum().detach())
        assert found == pytest.approx(V / ((1 - t) ** 2 * V + t**2), rel=1e-12)


@pytest.mark.parametrize(("gain", "rests"), [(1.0, True), (1.01, False)])
def test_gradient_vanishes_at_the_best_velocity_alone(gain, rests):
    student = flow(Best(gain))
    loss = FlowMatching().build(Setup(student, None, None, 1, CPU))
    x0, noise, chance = quadrature()
    place = torch.full((len(x0),), 0.8, dtype=torch.float64)
    (chance * loss.match(x0, noise, place, None)).sum().backward()
    assert (abs(float(student.net.gain.grad)) < 1e-12) == rests


def test_times_are_uniform_or_logit_normal():
    count, seen = 20_000, {}
    for times in ("uniform", "logit_normal"):
        spec = FlowMatching(times=times, t_mean=0.5, t_std=2.0)
        loss = spec.build(Setup(flow(), None, None, 1, CPU))
        loss.match = lambda images, noise, t, labels, times=times: seen.update({times: t})
        loss(torch.zeros(count, 1, 1, 1), None, 0, Draws(0, 0, count, (0, count), CPU))
    assert float(seen["uniform"].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(seen["uniform"].std()) == pytest.approx(12**-0.5, abs=0.01)
    logits = seen["logit_normal"].double().logit()
    assert float(logits.mean()) == pytest.approx(0.5, abs=0.07)
    assert float(logits.std()) == pytest.approx(2.0, abs=0.07)


class Straight(torch.nn.Module):
    """The velocity of the second flow: lines from n to sqrt(V) n do not cross."""

    def forward(self, x, t, labels=None):
        t, root = wide(t), V**0.5
        return x * (1 - root) / ((1 - t) * root + t)


@torch.no_grad()
def test_reflow_straightens_so_that_one_step_is_exact():
    second = flow(Straight())
    noise = Noise(2, range(3), (1, 2, 2), dtype=torch.float64)
    one = FlowEuler(steps=1)
    exact = noise.normal(0) * V**0.5
    assert torch.allclose(one.sample(second, noise), exact, atol=1e-12)
    assert not torch.allclose(one.sample(flow(), noise), exact, atol=0.1)
    draws = (torch.zeros(64, 1, 2, 2).double(), None, 0, Draws(0, 0, 64, (0, 64), CPU))
    losses = []
    for steps in (10, 20):
        spec = Reflow(solver_steps=steps)
        losses.append(float(spec.build(Setup(second, flow(), None, 1, CPU))(*draws).mean()))
    assert losses[0] < 1e-5
    assert losses[1] < losses[0] / 8, "the squared error of Heun's pairs falls by 2^4"


def test_other_students_and_samplers_are_refused():
    other = GaussianDenoiser((1, 2, 2))
    with pytest.raises(UserError, match="GaussianDenoiser"):
        FlowMatching().build(Setup(other, None, None, 1, CPU))
    with pytest.raises(UserError, match="flow as teacher"):
        Reflow().build(Setup(flow(), other, None, 1, CPU))
    with pytest.raises(UserError, match="flow_euler"):
        FlowEuler().sample(other, Noise(0, range(1), (1, 2, 2)))


@pytest.mark.parametrize("name", ["digits", "digits_reflow"])
def test_recipes_train_their_model(name):
    recipe = read_recipe(RECIPES / f"{name}.yaml")
    torch.manual_seed(0)
    student, teacher = (create("model", recipe.model).build() for _ in range(2))
    torch.nn.init.normal_(teacher.net.last.weight, std=0.1)
    loss = recipe.built_objective().build(Setup(student, teacher, None, recipe.steps, CPU))
    found = loss(torch.rand(4, 1, 8, 8), None, 0, Draws(0, 0, 4, (0, 4), CPU))
    found.sum().backward()
    assert found.shape == (4,)
    assert torch.isfinite(found).all()
    assert student.net.last.weight.grad.abs().sum() > 0
