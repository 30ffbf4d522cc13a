"""The variational bound against closed forms, true entropy, and the authors' training terms."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cmbench.core.errors import UserError
from cmbench.core.loader import load
from cmbench.core.random import Noise, ReplayNoise
from cmbench.denoise.bits_per_dim import _step, pixel_bits, variational_bound
from cmbench.denoise.ddpm import DDPMDenoiser

sys.path.append(str(Path(__file__).parents[1] / "parity"))
from authors_vectors import Vectors


class GaussianNoise(nn.Module):
    """The ideal noise prediction of N(0, v) data in a DDPM's own units."""

    def __init__(self, abar, v):
        super().__init__()
        self.abar, self.v = nn.Parameter(abar.double(), requires_grad=False), v

    def forward(self, x, t, labels=None):
        abar = self.abar[t.long()].reshape(-1, 1, 1, 1)
        return x * (1 - abar).sqrt() / (self.v * abar + 1 - abar)


def gaussian_model(steps, v, last=0.02):
    betas = torch.linspace(1e-4 * 1000 / steps, last * 1000 / steps, steps, dtype=torch.float64)
    abar = torch.cumprod(1 - betas, 0)
    return DDPMDenoiser(GaussianNoise(abar, v), (1, 1, 1), abar)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_every_term_in_closed_form_on_gaussian_data(variance):
    """Expectations over x0 and noise by Gauss-Hermite quadrature, exact for squares."""
    v, steps = 0.09, 25
    model = gaussian_model(steps, v)
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    weights = weights / weights.sum()
    x0, eps = (torch.from_numpy(g.reshape(-1, 1, 1, 1)) for g in np.meshgrid(nodes, nodes))
    weight = torch.from_numpy(np.outer(weights, weights).reshape(-1))
    noise = ReplayNoise([eps] * steps, torch.float64)
    bound = variational_bound(model, x0 * math.sqrt(v), noise, variance=variance, clip=False)

    abar, levels = model.abar, model.levels
    last = float(abar[-1])
    prior = 0.5 * (last * v + 1 - last - 1 - math.log(1 - last)) / math.log(2)
    assert float(weight @ bound.prior) == pytest.approx(prior, abs=1e-12)
    for t in range(1, steps):
        s2, t2 = float(levels[t - 1]) ** 2, float(levels[t]) ** 2
        small = s2 * (t2 - s2) / t2
        large = (t2 - s2) * (1 + s2) / (1 + t2)
        own = large if variance == "large" else small
        # What is left of x0 when x is known, as the posterior's mean feels it.
        apart = (1 - s2 / t2) ** 2 * v * t2 / (v + t2)
        kl = 0.5 * (math.log(own / small) - 1 + (small + apart) / own) / math.log(2)
        assert float(weight @ bound.steps[:, t]) == pytest.approx(kl, abs=1e-10)
    assert torch.allclose(bound.total, bound.prior + bound.steps.sum(1))


def test_a_perfect_models_bound_is_near_the_datas_entropy():
    """8-bit images of N(0, 0.04): their entropy is known, and no bound lies below it.

    With the large variance, right for data as broad as these against the first levels.
    """
    v, rows = 0.04, 2000
    generator = torch.Generator().manual_seed(0)
    # Values and noise are the Gaussian's quantiles, shuffled: means have little error.
    even = torch.special.ndtri((torch.arange(rows, dtype=torch.float64) + 0.5) / rows)
    images = (even.reshape(-1, 1, 1, 1) * math.sqrt(v) + 1) * 127.5
    images = images.round().clamp(0, 255) / 127.5 - 1
    entropy = 0.5 * math.log2(2 * math.pi * math.e * v) + math.log2(127.5)
    surprise = float(pixel_bits_exact(images, math.sqrt(v)).mean())
    assert surprise == pytest.approx(entropy, abs=0.005)
    model, draws = gaussian_model(1000, v), []
    for _ in range(1000):
        order = torch.randperm(rows, generator=generator)
        draws.append(even[order].reshape(-1, 1, 1, 1))
    bound = variational_bound(model, images, ReplayNoise(draws, torch.float64), variance="large")
    # Step 0's variance is the posterior's of step 1, not what is left of x0 at sigma 0.01: that
    # alone costs half of (r - 1 - ln r) / ln 2 bits, r their ratio.
    levels = model.levels.square()
    ratio = float(levels[1] / (levels[1] - levels[0]) * (1 + levels[0]))
    cost = (ratio - 1 - math.log(ratio)) / (2 * math.log(2))
    assert surprise < float(bound.total.mean()) < surprise + cost + 0.03


def pixel_bits_exact(images, spread):
    normal = torch.distributions.Normal(0.0, spread)
    return -(normal.cdf(images + 1 / 255) - normal.cdf(images - 1 / 255)).log2()


def test_pixels_probabilities_sum_to_one():
    """Over all 256 values, open bins included; the tanh is within 3e-4 of the normal's own."""
    values = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).reshape(-1, 1, 1, 1)
    for mean, spread in ((0.3, 0.05), (-1.0, 0.02), (1.4, 0.3)):
        bits = pixel_bits(values, torch.tensor(mean), torch.tensor(spread).log())
        chance = 0.5**bits
        assert float(chance.sum()) == pytest.approx(1, abs=1e-6)
        normal = torch.distributions.Normal(mean, spread)
        exact = normal.cdf(values + 1 / 255) - normal.cdf(values - 1 / 255)
        assert torch.allclose(chance[1:-1], exact[1:-1].clamp(min=1e-12), atol=3.5e-4)


def test_an_image_does_not_depend_on_its_batch():
    model = gaussian_model(25, 0.04)
    images = torch.tensor([-0.5, 0.0, 0.25]).reshape(-1, 1, 1, 1)
    whole = variational_bound(model, images, Noise(3, range(3), (1, 1, 1)))
    alone = variational_bound(model, images[2:], Noise(3, [2], (1, 1, 1)))
    assert torch.allclose(whole.total[2:], alone.total, atol=1e-12)


def test_a_network_without_learned_variance_says_so():
    noise = Noise(0, [0], (1, 1, 1))
    with pytest.raises(UserError, match="no learned variance"):
        variational_bound(gaussian_model(25, 0.1), torch.zeros(1, 1, 1, 1), noise,
                          variance="learned")  # fmt: skip


@pytest.mark.parity
@torch.no_grad()
def test_terms_are_the_authors():
    """The bound's term in improved-diffusion's training loss is weighed by T / 1000, unclipped."""
    z = Vectors("iddpm")
    side = z["x_start"].shape[-1]
    family = load("model", "iddpm_official")
    model = family.of_unet(z.meta["constructor"], side, z.meta["diffusion"])
    denoiser = model.build()
    model.load(denoiser, z.folder / "model.pt")
    found = []
    for i, t in enumerate(z["t"].tolist()):
        image = z["x_start"][i : i + 1].double()
        state = image + float(denoiser.levels[t]) * z["noise"][i : i + 1].double()
        labels = z["y"][i : i + 1]
        found.append(_step(denoiser, image, state, t, labels, "learned", clip=False))
    weighed = torch.cat(found) * len(denoiser.levels) / 1000
    z.agree("loss/vb", weighed)
