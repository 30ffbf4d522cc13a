"""Mean velocities in closed form: what shortcut models and MeanFlow must learn of Gaussian data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.denoise.flow import FlowDenoiser, JumpDenoiser
from cmbench.nets.compact_unet import CompactUNet
from cmbench.samplers.flow_jump import FlowJump
from cmbench.testing.oracles import GaussianDenoiser
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.meanflow import MeanFlow
from cmbench.train.objectives.shortcut import Shortcut
from cmbench.train.recipe import read_recipe

CPU = torch.device("cpu")
V = 0.3
MODELS = Path(__file__).parents[2] / "models"


def wide(t):
    return t.reshape(-1, 1, 1, 1)


def spread(t):
    """Standard deviation of x_t for data N(0, V): the ODE carries x_t in proportion to it."""
    return ((1 - t) ** 2 * V + t**2).sqrt()


class Exact(torch.nn.Module):
    """u(x_t, t, h) = (x_t - x_{t-h}) / h, and the velocity at h = 0; times a gain to be learnt."""

    def __init__(self, exponents=None, gain=1.0):
        super().__init__()
        self.exponents = exponents
        self.gain = torch.nn.Parameter(torch.tensor(gain, dtype=torch.float64))

    def forward(self, x, times, labels=None):
        t, h = (wide(c) for c in times.unbind(1))
        if self.exponents is not None:
            h = 2.0 ** (-h * self.exponents)
        slope = (t - (1 - t) * V) / spread(t) ** 2
        safe = torch.where(h > 0, h, 1.0)
        mean = (1 - spread(t - safe) / spread(t)) / safe
        return self.gain * x * torch.where(h > 0, mean, slope)


def shortcut(gain=1.0, exponents=7):
    return JumpDenoiser(Exact(exponents, gain), (1, 2, 2), shortest=2.0**-exponents)


def meanflow(gain=1.0):
    return JumpDenoiser(Exact(None, gain), (1, 2, 2))


@torch.no_grad()
@pytest.mark.parametrize("model", [shortcut, meanflow])
@pytest.mark.parametrize("steps", [1, 2, 8])
def test_exact_mean_velocities_give_the_exact_image_in_any_steps(model, steps):
    noise = Noise(0, range(3), (1, 2, 2), dtype=torch.float64)
    made = FlowJump(steps=steps).sample(model(), noise)
    assert torch.allclose(made, noise.normal(0) * V**0.5, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize(("model", "error"), [(shortcut, 0.02), (meanflow, 1e-12)])
def test_both_are_denoisers_of_the_same_data(model, error):
    """A shortcut model's velocity is that of its shortest step, so nearly."""
    known = GaussianDenoiser((1, 2, 2), spread=V**0.5)
    for sigma in (0.1, 1.0, 20.0):
        x = sigma * torch.randn(3, 1, 2, 2).double()
        levels = torch.full((3,), sigma).double()
        assert torch.allclose(model()(x, levels), known(x, levels), atol=error)


def setup(student, **more):
    return Setup(student, None, None, more.get("total", 1), CPU)


def states(count=64):
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, count, 1, 2, 2, generator=generator).double()
    return images * V**0.5, noise


@torch.no_grad()
def test_long_steps_of_the_exact_model_are_consistent():
    loss = Shortcut(mu=0.0).build(setup(shortcut()))
    images, noise = states()
    h = 2.0 ** -torch.arange(6).double().repeat(11)[:64]
    found = loss.loss(images, torch.ones(64).double(), h, noise, None)
    assert float(found.max()) < 1e-20
    off = Shortcut(mu=0.0).build(setup(shortcut(gain=1.1)))
    assert float(off.loss(images, torch.ones(64).double(), h, noise, None).mean()) > 1e-5


@torch.no_grad()
def test_the_shortest_step_matches_the_velocity():
    student = shortcut()
    loss = Shortcut(mu=0.0).build(setup(student))
    images, noise = states()
    t, h = torch.full((64,), 0.5).double(), torch.full((64,), 1 / 128).double()
    x = (images + noise) / 2
    wanted = (student.mean_velocity(x, t, h) - (noise - images)).square().flatten(1).mean(1)
    assert torch.allclose(loss.loss(images, t, h, noise, None), wanted)


def test_steps_are_powers_of_two_on_their_own_grids():
    loss, count, seen = Shortcut(mu=0.0).build(setup(shortcut())), 8_000, {}
    loss.loss = lambda images, t, h, noise, labels: seen.update(t=t.double(), h=h.double())
    loss(torch.zeros(count, 1, 1, 1), None, 0, Draws(0, 0, count, (0, count), CPU))
    t, h = seen["t"], seen["h"]
    assert torch.equal(t / h, (t / h).round())
    assert float((t - h).min()) >= 0
    assert float(t.max()) == 1
    exponents = -h.log2()
    assert float((exponents == 7).double().mean()) == pytest.approx(7 / 8)
    long = torch.bincount(exponents[exponents < 7].long(), minlength=7) / (count / 8)
    assert long.tolist() == pytest.approx([1 / 7] * 7, abs=0.05)


def test_the_targets_average_follows_the_weights():
    student = shortcut()
    loss = Shortcut(mu=0.9).build(setup(student))
    student.net.gain.data.fill_(2.0)
    loss.after_step(0)
    assert float(loss.target.net.gain) == pytest.approx(0.9 * 1 + 0.1 * 2)
    assert not loss.target.net.gain.requires_grad


@pytest.mark.parametrize("shortest", [0.0, 0.3])
def test_a_shortcut_models_shortest_step_is_a_power_of_two(shortest):
    student = JumpDenoiser(Exact(7), (1, 2, 2), shortest=shortest)
    with pytest.raises(UserError, match="power of two"):
        Shortcut().build(setup(student))


def meanflow_gradient(gain, t, h):
    """Gradient of the expected squared error, exact over data and noise."""
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(6))
    x0, noise = torch.meshgrid(nodes * V**0.5, nodes, indexing="ij")
    chance = torch.outer(weights, weights).reshape(-1) / weights.sum() ** 2
    student = JumpDenoiser(Exact(None, gain), (1, 1, 1))
    loss = MeanFlow().build(setup(student))
    x0, noise = x0.reshape(-1, 1, 1, 1), noise.reshape(-1, 1, 1, 1)
    t, h = (torch.full((len(x0),), value).double() for value in (t, h))
    error = loss.error(x0, t, h, noise, None).flatten()
    (chance * error.square()).sum().backward()
    return float(student.net.gain.grad)


@pytest.mark.parametrize(("t", "h"), [(1.0, 1.0), (0.7, 0.4), (0.3, 0.0)])
def test_meanflow_rests_at_the_exact_mean_velocity(t, h):
    """The identity u = v - h du/dt holds in the mean over what x_t leaves open, and only there."""
    assert abs(meanflow_gradient(1.0, t, h)) < 1e-10
    assert abs(meanflow_gradient(1.1, t, h)) > 1e-3


def test_meanflows_product_is_the_total_derivative_of_the_network():
    """Through every layer of a real network, against a difference at fixed r."""
    torch.manual_seed(0)
    net = CompactUNet(channels=(16,), embedding=16, times=2, attention=(0,)).build((1, 4, 4))
    student = JumpDenoiser(net.double(), (1, 4, 4))
    for parameter in student.parameters():
        parameter.data.add_(torch.randn(parameter.shape), alpha=0.1)
    loss = MeanFlow().build(setup(student))
    images, noise = torch.randn(2, 3, 1, 4, 4).double()
    t, h = torch.tensor([0.9, 0.5, 0.4]).double(), torch.tensor([0.9, 0.2, 0.0]).double()
    with torch.no_grad():
        x, v = (1 - wide(t)) * images + wide(t) * noise, noise - images
        ends = [student.mean_velocity(x + e * v, t + e, h + e) for e in (-1e-5, 1e-5)]
        aim = v - wide(h) * (ends[1] - ends[0]) / 2e-5
        wanted = student.mean_velocity(x, t, h) - aim
        found = loss.error(images, t, h, noise, None)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_meanflows_weight_and_times():
    loss, count, seen = MeanFlow().build(setup(meanflow())), 20_000, {}
    images, noise = states(8)
    t, h = torch.full((8,), 0.8).double(), torch.full((8,), 0.3).double()
    square = loss.error(images, t, h, noise, None).square().flatten(1).sum(1)
    found = loss.loss(images, t, h, noise, None)
    assert torch.allclose(found, square / (square + 1e-3) ** 0.75)
    loss.loss = lambda images, t, h, noise, labels: seen.update(t=t, h=h)
    loss(torch.zeros(count, 1, 1, 1), None, 0, Draws(0, 0, count, (0, count), CPU))
    assert bool(((seen["h"] >= 0) & (seen["h"] < seen["t"])).all())
    assert float((seen["h"] == 0).double().mean()) == pytest.approx(0.25, abs=0.015)
    both = torch.cat([seen["t"], seen["t"] - seen["h"]])[torch.cat([seen["h"]] * 2) > 0]
    assert float(both.double().logit().mean()) == pytest.approx(-2, abs=0.06)
    assert float(both.double().logit().std()) == pytest.approx(2, abs=0.06)


def test_other_students_and_samplers_are_refused():
    flow = FlowDenoiser(torch.nn.Identity(), (1, 2, 2))
    for objective in (Shortcut(), MeanFlow()):
        with pytest.raises(UserError, match="FlowDenoiser"):
            objective.build(setup(flow))
    with pytest.raises(UserError, match="flow_jump"):
        FlowJump().sample(flow, Noise(0, range(1), (1, 2, 2)))


@pytest.mark.parametrize("family", ["shortcut", "meanflow"])
def test_recipes_train_their_model(family):
    recipe = read_recipe(MODELS / family / "recipes" / "digits.yaml")
    torch.manual_seed(0)
    student = create("model", recipe.model).build()
    loss = recipe.built_objective().build(setup(student, total=recipe.steps))
    found = loss(torch.rand(8, 1, 8, 8), None, 0, Draws(0, 0, 8, (0, 8), CPU))
    found.sum().backward()
    assert found.shape == (8,)
    assert torch.isfinite(found).all()
    assert student.net.last.weight.grad.abs().sum() > 0
