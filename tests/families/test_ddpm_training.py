"""DDPM's and improved DDPM's objectives in closed form, and their recipes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.denoise.bits_per_dim import variational_bound
from cmbench.denoise.ddpm import DDPMDenoiser
from cmbench.denoise.released_denoisers import DiscreteVPDenoiser
from cmbench.run.train import run_recipes
from cmbench.samplers.heun import Heun
from cmbench.samplers.iddpm_ancestral import IDDPMAncestral
from cmbench.testing.oracles import GaussianDenoiser
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.ddpm import DDPM
from cmbench.train.objectives.iddpm import IDDPM
from cmbench.train.recipe import read_recipe

CPU = torch.device("cpu")
ABAR = torch.cumprod(1 - torch.linspace(1e-3, 0.2, 50, dtype=torch.float64), 0)
V = 0.3


class Told(nn.Module):
    """A network that is a formula of (x, t); the parameter tells its type alone."""

    def __init__(self, formula):
        super().__init__()
        self.formula, self.kind = formula, nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x, t, labels=None):
        return self.formula(x, ABAR[t.long()].reshape(-1, 1, 1, 1))


FORMULAS = {
    "epsilon": lambda x, a: x * (1 - a).sqrt() / (V * a + 1 - a),
    "sample": lambda x, a: x * a.sqrt() * V / (V * a + 1 - a),
    "v_prediction": lambda x, a: x * ((1 - a) * a).sqrt() * (1 - V) / (V * a + 1 - a),
}
"""The ideal predictions for N(0, V) data: each E[target | x_t], a Gaussian regression."""


def terms(loss, *given):
    return loss.terms(*given).detach()


@pytest.mark.parametrize("prediction", FORMULAS)
def test_the_simple_loss_of_a_perfect_network(prediction):
    """What is left of the noise when x_t is known, at every step; the mean over x0 and noise is
    exact by quadrature. The same for whatever the network predicts.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weight = torch.from_numpy(np.outer(weights, weights).reshape(-1) / weights.sum() ** 2)
    x0, eps = (torch.from_numpy(g.reshape(-1, 1, 1, 1)) for g in np.meshgrid(nodes, nodes))
    student = DDPMDenoiser(Told(FORMULAS[prediction]), (1, 1, 1), ABAR, prediction=prediction)
    loss = DDPM().build(Setup(student, None, None, 1, CPU))
    for t in (0, 7, 49):
        found = terms(loss, x0 * math.sqrt(V), torch.full((16,), t), eps, None)
        a = float(ABAR[t])
        assert float(weight @ found) == pytest.approx(V * a / (V * a + 1 - a), abs=1e-10)


def test_the_noises_square_is_the_loss_of_a_network_that_says_nothing():
    student = DDPMDenoiser(Told(lambda x, a: 0 * x), (1, 2, 2), ABAR)
    loss = DDPM().build(Setup(student, None, None, 1, CPU))
    images, draws = torch.randn(6, 1, 2, 2), Draws(0, 3, 6, (0, 6), CPU)
    found = loss(images, None, 3, draws)
    again = Draws(0, 3, 6, (0, 6), CPU)
    again.integers(len(ABAR))
    noise = again.normal(1, 2, 2)
    assert torch.allclose(found, noise.square().flatten(1).mean(1), atol=1e-4)


def test_hybrid_loss_is_simple_plus_a_thousandth_of_the_bound():
    """iDDPM's eq. 16: over all steps the vb terms sum to T / 1000 times the bound's, by steps."""
    torch.manual_seed(0)
    net = nn.Conv2d(1, 2, 1).double()

    class Spread(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net

        def forward(self, x, t, labels=None):
            return self.inner(x).tanh()

    student = DiscreteVPDenoiser(Spread(), (1, 2, 2), ABAR)
    images = (torch.randint(0, 256, (1, 1, 2, 2)) / 127.5 - 1).double()
    noise = Noise(0, [0], (1, 2, 2), dtype=torch.float64)
    bound = variational_bound(student, images, noise, variance="learned", clip=False)
    hybrid = IDDPM().build(Setup(student, None, None, 1, CPU))
    simple = DDPM().build(Setup(student, None, None, 1, CPU))
    for t in range(len(ABAR)):
        found = hybrid.terms(images, torch.tensor([t]), noise.normal(t), None)
        vb = float(found.vb.detach())
        assert vb == pytest.approx(float(bound.steps[0, t]) * len(ABAR) / 1000, rel=1e-6)
        plain = float(terms(simple, images, torch.tensor([t]), noise.normal(t), None))
        assert float(found.mse.detach()) == pytest.approx(plain, rel=1e-6)


def test_the_bounds_term_trains_the_variance_alone():
    """The mean is held fixed in it: the noise channels get no gradient from vb."""
    net = nn.Conv2d(1, 2, 1).double()

    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net

        def forward(self, x, t, labels=None):
            return self.inner(x)

    student = DiscreteVPDenoiser(Raw(), (1, 2, 2), ABAR)
    loss = IDDPM().build(Setup(student, None, None, 1, CPU))
    images, noise = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    loss.terms(images, torch.tensor([0, 9, 30]), noise, None).vb.sum().backward()
    assert float(net.weight.grad[0].abs().sum()) == 0
    assert float(net.weight.grad[1].abs().sum()) > 0


@pytest.mark.parametrize("objective", [DDPM(), IDDPM()])
def test_other_students_are_refused(objective):
    with pytest.raises(UserError, match="discrete VP process"):
        objective.build(Setup(GaussianDenoiser((1, 2, 2)), None, None, 1, CPU))


def recipe_of(family):
    return Path(__file__).parents[2] / "models" / family / "recipes" / "digits.yaml"


@pytest.mark.parametrize("family", ["ddpm", "iddpm"])
def test_recipes_build_what_their_objective_trains(family):
    recipe = read_recipe(recipe_of(family))
    student = create("model", recipe.model).build()
    loss = recipe.built_objective().build(Setup(student, None, None, 1, CPU))
    found = loss(torch.rand(8, 1, 8, 8), None, 0, Draws(0, 0, 8, (0, 8), CPU))
    assert found.shape == (8,) and torch.isfinite(found).all()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ddpm", "iddpm"])
def test_recipes_make_digits(family, tmp_path):
    """Half of the images lie no farther from a digit than 95 in 100 digits do. Trains for minutes."""
    recipe = read_recipe(recipe_of(family))
    (result,) = run_recipes([recipe_of(family)], out=tmp_path)
    model = create("model", recipe.model)
    denoiser = model.build()
    model.load(denoiser, result.weights)
    noise = Noise(0, range(64), (1, 8, 8))
    images = create("dataset", "digits").open()
    digits = torch.from_numpy(images.pixels(range(len(images)))).double().flatten(1) / 127.5 - 1
    among = torch.cdist(digits, digits).fill_diagonal_(9).min(1).values
    samplers = [Heun(steps=12)] + [IDDPMAncestral(steps=40)] * (family == "iddpm")
    for sampler in samplers:
        with torch.inference_mode():
            made = sampler.sample(denoiser, noise).clamp(-1, 1)
        near = torch.cdist(made.flatten(1), digits).min(1).values
        # Pixels of different digits put together are 4.3 from the nearest digit, the mean 3.1.
        assert float(near.median()) < float(among.quantile(0.95)) < 3
