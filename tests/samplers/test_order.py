"""Orders of the deterministic samplers, and where the stochastic ones go as steps grow."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from cmbench.core.loader import create
from cmbench.core.random import ReplayNoise
from cmbench.denoise.ddpm import DDPMDenoiser
from cmbench.testing.oracles import GaussianDenoiser, PointsDenoiser

SHAPE = (1, 1, 2)
POINTS = torch.tensor([[-0.9, 0.4], [0.2, -0.5], [0.8, 0.9]], dtype=torch.float64)
FIRST = torch.tensor([[0.7, -1.1], [-0.4, 0.6], [1.6, 0.2]], dtype=torch.float64)

ORDERS = [
    ("euler", {}, 1),
    ("ddim", {}, 1),
    ("heun", {}, 2),
    ("dpmpp_2m", {}, 2),
    ("unipc", {"solver_order": 1, "corrector": False}, 1),
    ("unipc", {"solver_order": 1}, 2),
    ("unipc", {"solver_order": 2, "variant": "bh2", "corrector": False}, 2),
    ("unipc", {"solver_order": 2}, 3),
    ("unipc", {"solver_order": 3}, 3),
]


def at_sigma_min(spec, denoiser, first):
    """The state of the last evaluation: the ODE's solution at sigma_min, before the step to 0."""
    seen = []
    handle = denoiser.net.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    create("sampler", spec).sample(denoiser, ReplayNoise([first], torch.float64))
    handle.remove()
    return seen[-1]


def slope(name, more, denoiser, first, exact):
    counts, errors = (80, 160, 320), []
    for steps in counts:
        found = at_sigma_min({"name": name, "steps": steps, **more}, denoiser, first)
        errors.append(float((found - exact).abs().max()))
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


@pytest.mark.parametrize(("name", "more", "order"), ORDERS, ids=str)
def test_order_on_gaussian_data(name, more, order):
    denoiser = GaussianDenoiser(SHAPE, mean=0.2, spread=0.5, sigma_min=0.5, sigma_max=5.0)
    first = FIRST.reshape(3, *SHAPE)
    exact = denoiser.carried(first * 5.0, 5.0, 0.5)
    assert slope(name, more, denoiser, first, exact) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(("name", "more", "order"), ORDERS, ids=str)
def test_order_where_the_ode_is_not_linear(name, more, order):
    """Three images as data; the truth is scipy's eighth-order method at 1e-12."""
    denoiser = PointsDenoiser(POINTS.reshape(3, *SHAPE), sigma_min=0.5, sigma_max=5.0)
    first = FIRST.reshape(3, *SHAPE)

    def slopes(sigma, flat):
        x = torch.from_numpy(flat).reshape(3, *SHAPE)
        level = torch.full((3,), sigma, dtype=torch.float64)
        return ((x - denoiser(x, level)) / sigma).flatten().numpy()

    start = (5.0 * first).flatten().numpy()
    solved = solve_ivp(slopes, (5.0, 0.5), start, method="DOP853", rtol=1e-12, atol=1e-12)
    exact = torch.from_numpy(solved.y[:, -1]).reshape(3, *SHAPE)
    assert slope(name, more, denoiser, first, exact) == pytest.approx(order, abs=0.35)


def moments(spec, denoiser, draws):
    """Mean and variance of the images, exactly: on Gaussian data a sampler is affine in its draws,
    so its answers to one draw of 1 at a time tell the factor of each. Image 0 draws zeros alone.
    """
    ones = torch.eye(draws + 1, dtype=torch.float64)[1:]
    noise = ReplayNoise([row.reshape(-1, 1, 1, 1).expand(-1, *SHAPE) for row in ones], ones.dtype)
    found = create("sampler", spec).sample(denoiser, noise)[:, 0, 0, 0].detach()
    return float(found[0]), float((found[1:] - found[0]).square().sum())


STOCHASTIC = [
    {"name": "ddpm_ancestral", "variance": "small"},
    {"name": "ddpm_ancestral", "variance": "large"},
    {"name": "ddim", "eta": 1.0},
    {"name": "ddim", "eta": 0.5},
]


@pytest.mark.parametrize("spec", STOCHASTIC, ids=str)
def test_moments_converge_to_the_datas(spec):
    """Their error falls with the first power of the steps, to the data's mean and variance."""
    denoiser = GaussianDenoiser(SHAPE, mean=0.3, spread=0.5)
    errors = []
    for steps in (40, 80, 160):
        mean, variance = moments({**spec, "steps": steps}, denoiser, steps + 1)
        # The start forgets the data's mean: 0.3 / 80 of it is left in sigma-space.
        assert mean == pytest.approx(0.3, abs=0.3 * 0.5 / 80 + 1e-6)
        errors.append(abs(variance - 0.25))
    falls = np.array(errors[:-1]) / np.array(errors[1:])
    assert errors[-1] < 0.02
    assert ((falls > 1.6) & (falls < 2.6)).all(), errors


@pytest.mark.parametrize("predictor", ["reverse_diffusion", "ancestral", "euler_maruyama"])
def test_moments_of_predictors_converge_to_the_datas(predictor):
    denoiser = GaussianDenoiser(SHAPE, mean=0.3, spread=0.5)
    spec = {"name": "predictor_corrector", "predictor": predictor, "corrector": "none"}
    errors = []
    for steps in (80, 160, 320):
        mean, variance = moments({**spec, "steps": steps}, denoiser, steps + 1)
        assert mean == pytest.approx(0.3, abs=0.3 * 0.5 / 80 + 0.01)
        errors.append(abs(variance - 0.25))
    falls = np.array(errors[:-1]) / np.array(errors[1:])
    assert ((falls > 1.6) & (falls < 2.6)).all(), errors


def test_moments_of_annealed_langevin_converge_to_the_datas():
    """Half the step in twice the time: both the discretisation's error and what the levels leave
    behind, since a level of variance s^2 has time r T s^2 to forget the one before, are halved.
    """
    denoiser = GaussianDenoiser(SHAPE, mean=0.3, spread=0.5, sigma_min=0.02, sigma_max=2.0)
    errors = []
    for updates, rate in ((20, 0.4), (80, 0.2), (320, 0.1)):
        spec = {"name": "annealed_langevin", "levels": 8, "steps_each": updates,
                "step_lr": rate * 0.01**2, "start": "gaussian", "ends": "last"}  # fmt: skip
        mean, variance = moments(spec, denoiser, 8 * updates + 1)
        assert mean == pytest.approx(0.3, abs=0.01)
        errors.append(abs(variance - 0.25))
    falls = np.array(errors[:-1]) / np.array(errors[1:])
    assert ((falls > 1.6) & (falls < 2.6)).all(), errors


def test_rk45_comes_as_near_as_its_tolerance_asks():
    denoiser = GaussianDenoiser(SHAPE, mean=0.2, spread=0.5)
    first = FIRST.reshape(3, *SHAPE)
    exact = denoiser.carried(first * denoiser.sigma_max, denoiser.sigma_max, denoiser.sigma_min)
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        spec = {"name": "probability_flow_rk45", "rtol": tolerance, "atol": tolerance}
        found = create("sampler", spec).sample(denoiser, ReplayNoise([first], torch.float64))
        errors.append(float((found - exact).abs().max()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4


class GaussianNoise(torch.nn.Module):
    """The ideal noise prediction of N(0, 0.25) data in a DDPM's own units."""

    def __init__(self, abar):
        super().__init__()
        self.abar = torch.nn.Parameter(abar.double(), requires_grad=False)

    def forward(self, x, t, labels=None):
        abar = self.abar[t.long()].reshape(-1, 1, 1, 1)
        return x * (1 - abar).sqrt() / (0.25 * abar + 1 - abar)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("grid", ["leading", "even", "trailing"])
def test_ancestral_moments_on_kept_steps(variance, grid):
    """A process of 120 steps kept by 30, 60 and all: nearer to the data each time."""
    abar = torch.cumprod(1 - torch.linspace(1e-3, 0.16, 120, dtype=torch.float64), 0)
    denoiser = DDPMDenoiser(GaussianNoise(abar), SHAPE, abar)
    spec = {"name": "ddpm_ancestral", "variance": variance, "grid": grid, "clip": False}
    errors = []
    for steps in (30, 60, 120):
        mean, spread = moments({**spec, "steps": steps}, denoiser, steps + 1)
        assert mean == 0
        errors.append(abs(spread - 0.25))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03
