"""One distribution, told as DDPM, NCSN and EDM tell it: the same images under every sampler.

The networks here are written in each family's own units from the data's log density, not from a
common denoiser; the wrappers of `cmbench/denoise/` make denoisers of them.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cmbench.core.loader import available, create
from cmbench.core.random import Noise
from cmbench.denoise.base import expand
from cmbench.denoise.convert import clean_from, convert, predicted_from, vp_scales
from cmbench.denoise.ddpm import DDPMDenoiser
from cmbench.denoise.precondition import EDMDenoiser
from cmbench.denoise.released_denoisers import VEDenoiser
from cmbench.samplers._respacing import Process
from cmbench.samplers.ddim import DDIM
from cmbench.samplers.ddpm_ancestral import DDPMAncestral
from cmbench.samplers.iddpm_ancestral import IDDPMAncestral
from cmbench.samplers.iddpm_ddim import IDDPMDDIM

SHAPE = (1, 2, 2)
LEVELS = {"sigma_min": 0.02, "sigma_max": 50.0}
ABAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
POINTS = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(5)).double() / 2


class Points:
    """Score of a x0 + s eps where x0 is one of four images: from the log density, by autograd."""

    def score(self, x, a, s):
        x = x.detach().clone().requires_grad_(True)
        apart = (x[:, None] - expand(a, x)[:, None] * POINTS).flatten(2).square().sum(2)
        log_density = torch.logsumexp(-apart / (2 * s[:, None] ** 2), dim=1).sum()
        return torch.autograd.grad(log_density, x)[0]


class Gaussian:
    """The same for independent values N(0.3, 0.4^2): its convolution is a Gaussian again."""

    def score(self, x, a, s):
        return -(x - 0.3 * expand(a, x)) / (0.16 * expand(a, x) ** 2 + expand(s, x) ** 2)


class Told(nn.Module):
    """A network in a family's own units; the parameter tells its type alone."""

    def __init__(self, tells):
        super().__init__()
        self.tells, self.kind = tells, nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x, time, labels=None):
        with torch.enable_grad():
            return self.tells(x, time).detach()


def as_ddpm(data, prediction="epsilon"):
    """Noise (or x0, or v) of x_t = sqrt(abar) x0 + sqrt(1 - abar) eps, at the step t."""
    known = (0.5 * torch.log((1 - ABAR) / ABAR)).numpy()
    words = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}

    def tells(x, t):
        sigma = torch.from_numpy(np.exp(np.interp(t.numpy(), np.arange(1000.0), known)))
        a, s = vp_scales(sigma)
        eps = -expand(s, x) * data.score(x, a, s)
        return convert(eps, x, a, s, "eps", words[prediction])

    return DDPMDenoiser(Told(tells), SHAPE, ABAR, prediction=prediction, **LEVELS)


def as_ncsn(data):
    """Sigma times the score of x0 + sigma eps, told sigma by the logarithm of its half."""

    def tells(x, c_noise):
        sigma = 2 * c_noise.exp()
        return expand(sigma, x) * data.score(x, torch.ones_like(sigma), sigma)

    return VEDenoiser(Told(tells), SHAPE, **LEVELS)


def as_edm(data):
    """F of D = c_skip x + c_out F(c_in x, ln(sigma) / 4)."""

    def tells(scaled, c_noise):
        sigma = (4 * c_noise).exp()
        total = expand(sigma, scaled) ** 2 + 0.25
        x = scaled * total.sqrt()
        clean = x + expand(sigma, x) ** 2 * data.score(x, torch.ones_like(sigma), sigma)
        return (clean - 0.25 / total * x) / (expand(sigma, x) * 0.5 / total.sqrt())

    return EDMDenoiser(Told(tells), SHAPE, **LEVELS)


DETERMINISTIC = [
    item.name
    for item in available("sampler")
    if (made := create("sampler", item.name)).accepts == "denoiser" and made.order is not None
]


@pytest.mark.parametrize("data", [Points(), Gaussian()], ids=["points", "gaussian"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_every_deterministic_sampler_gives_the_same_images(name, data):
    sampler = create("sampler", {"name": name, "steps": 8} if _has_steps(name) else name)
    noise = Noise(0, range(5), SHAPE)
    want = sampler.sample(as_edm(data), noise)
    others = {
        "ncsn": as_ncsn(data),
        **{p: as_ddpm(data, p) for p in ("epsilon", "sample", "v_prediction")},
    }
    for told, denoiser in others.items():
        found = sampler.sample(denoiser, noise)
        # Adaptive solvers choose steps by errors that rounding moves: their own tolerance.
        bound = 1e-10 if _has_steps(name) else 1e-6
        assert float((found - want).abs().max()) < bound, told


def _has_steps(name):
    return "steps" in type(create("sampler", name)).model_fields


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_on_kept_steps_is_the_same_in_both_units(eta):
    """Sigma-space against the process's own units, noise included."""
    denoiser, noise = as_ddpm(Points()), Noise(1, range(3), SHAPE)
    ours = DDIM(steps=9, eta=eta, grid="even").sample(denoiser, noise)
    theirs = IDDPMDDIM(steps=9, eta=eta, clip=False).sample(denoiser, noise)
    assert torch.allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("clip", [True, False])
def test_ancestral_sampling_is_the_same_in_both_units(variance, clip):
    denoiser, noise = as_ddpm(Points()), Noise(1, range(3), SHAPE)
    ours = DDPMAncestral(steps=9, grid="even", variance=variance, clip=clip)
    theirs = IDDPMAncestral(steps=9, variance=variance, clip=clip)
    assert torch.allclose(ours.sample(denoiser, noise), theirs.sample(denoiser, noise), atol=1e-10)


def test_eta_one_is_ancestral_sampling_with_the_small_variance():
    for denoiser, grid in ((as_edm(Points()), "karras"), (as_ddpm(Points()), "trailing")):
        noise = Noise(2, range(3), SHAPE)
        one = DDIM(steps=12, eta=1.0, grid=grid).sample(denoiser, noise)
        other = DDPMAncestral(steps=12, variance="small", clip=False, grid=grid)
        if grid == "karras":
            assert torch.allclose(one, other.sample(denoiser, noise), atol=1e-12)
        else:
            # Diffusers' DDIM ends a whole stride below, DDPM where the next step starts.
            assert not torch.allclose(one, other.sample(denoiser, noise), atol=1e-3)


def test_the_posterior_in_sigma_space_is_the_processs():
    """Mean and both variances of the step 700 -> 500, against DDPM's eq. 6 and 7."""
    kept = torch.tensor([500, 700])
    process = Process.of(ABAR[kept])
    s, t = (((1 - ABAR[k]) / ABAR[k]).sqrt() for k in (500, 700))
    small = s**2 * (t**2 - s**2) / t**2 * ABAR[500]
    large = (t**2 - s**2) * (1 + s**2) / (1 + t**2) * ABAR[500]
    assert float(small) == pytest.approx(float(process.variance[1]), rel=1e-12)
    assert float(large) == pytest.approx(float(process.betas[1]), rel=1e-12)
    x, clean = torch.randn(1, *SHAPE).double(), torch.randn(1, *SHAPE).double()
    mean = process.mean(clean, x, torch.tensor([1]))
    ratio = s**2 / t**2
    ours = (ratio * x / ABAR[700].sqrt() + (1 - ratio) * clean) * ABAR[500].sqrt()
    assert torch.allclose(mean, ours, atol=1e-12)


KINDS = ("eps", "x0", "v", "score")


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("scales", ["vp", "ve", "neither"])
def test_conversions_agree_with_the_state_they_come_from(source, target, scales):
    """x0 and eps are drawn, so that every prediction is known without a formula for another."""
    generator = torch.Generator().manual_seed(0)
    clean, eps = torch.randn(2, 3, *SHAPE, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.05, 1.0, 30.0], dtype=torch.float64)
    a, s = {
        "vp": vp_scales(sigma), "ve": (torch.ones(3).double(), sigma), "neither": (sigma / 2, sigma)
    }[scales]  # fmt: skip
    x = expand(a, clean) * clean + expand(s, clean) * eps
    truth = {
        "eps": eps,
        "x0": clean,
        "v": expand(a, x) * eps - expand(s, x) * clean,
        "score": -eps / expand(s, x),
    }
    assert torch.allclose(convert(truth[source], x, a, s, source, target), truth[target])
    assert torch.allclose(clean_from(truth[source], x, a, s, source), clean)
    assert torch.allclose(predicted_from(clean, x, a, s, target), truth[target])


def test_vp_scales_are_the_processs():
    sigma = ((1 - ABAR) / ABAR).sqrt()
    a, s = vp_scales(sigma)
    assert torch.allclose(a, ABAR.sqrt()) and torch.allclose(s, (1 - ABAR).sqrt())
    assert math.isclose(float(sigma[-1]), 157.4073, rel_tol=1e-6)
