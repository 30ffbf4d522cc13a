"""Sohl-Dickstein 2015: posteriors by Bayes, bounds of perfect models, the denoiser, training."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cmbench.core.errors import UserError
from cmbench.core.images import to_images
from cmbench.core.loader import create
from cmbench.core.nfe import EvaluationCounter
from cmbench.core.random import Noise
from cmbench.denoise.binomial import BinomialDiffusion
from cmbench.denoise.sohl_dickstein import ReverseGaussian
from cmbench.run.train import run_recipes
from cmbench.samplers.base import BoundGenerator
from cmbench.samplers.binomial import Binomial
from cmbench.samplers.heun import Heun
from cmbench.samplers.sohl_dickstein import SohlDickstein
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.binomial import Binomial as BinomialObjective
from cmbench.train.objectives.sohl_dickstein import SohlDickstein as SohlDicksteinObjective
from cmbench.train.recipe import read_recipe

SHAPE = (1, 4, 4)
CPU = torch.device("cpu")


class Zero(nn.Module):
    """Outputs zero: the exact reverse kernel of standard normal data, and of fair bits."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def forward(self, x, c_noise, labels=None):
        return torch.zeros_like(x).repeat(1, self.times, 1, 1)


def gaussian(levels=20, **more):
    return ReverseGaussian(Zero(2), SHAPE, levels=levels, **more).double()


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_fixed_betas_are_the_released_code_s():
    betas = gaussian(20).betas()
    assert [float(b) for b in betas[[0, 19]]] == pytest.approx([1 / 20, 1 / 2], abs=1e-6)
    falling = (1 / betas).diff()
    torch.testing.assert_close(falling, torch.full_like(falling, -18 / 19), atol=1e-4, rtol=0)


@pytest.mark.parametrize("index", [1, 2, 7, 20])
def test_gaussian_posterior_is_bayes_rule(index):
    """The product of q(x_t | x_{t-1}) and q(x_{t-1} | x_0), summed on a fine line."""
    model = gaussian(20)
    beta, before = float(model.betas()[index - 1]), float(model.signal()[index - 1])
    x, x0 = 0.7, -0.4
    line = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    logs = -((x - math.sqrt(1 - beta) * line) ** 2) / (2 * beta)
    if before < 1:
        logs = logs - (line - math.sqrt(before) * x0) ** 2 / (2 * (1 - before))
        weights = torch.softmax(logs, 0)
        mean = float((weights * line).sum())
        variance = float((weights * (line - mean) ** 2).sum())
    else:
        mean, variance = x0, 0.0
    at = torch.tensor([index])
    full = [torch.full((1, *SHAPE), v, dtype=torch.float64) for v in (x, x0)]
    got_mean, got_variance = model.posterior(*full, at)
    assert float(got_mean[0, 0, 0, 0]) == pytest.approx(mean, abs=1e-6)
    assert float(got_variance) == pytest.approx(variance, abs=1e-6)


@pytest.mark.parametrize("more", [{}, {"first_beta": 1e-4}, {"learn_beta": True}])
def test_bound_of_a_perfect_gaussian_model_is_the_entropy(more):
    """E log p of N(0, 1) data is -log2(2 pi e) / 2 bits a value, whatever the betas."""
    model = gaussian(20, **more)
    x0 = normal(0, 4000, *SHAPE)
    bits = model.bound(x0, normal(1, 19, 4000, *SHAPE)).detach() / 16
    error = float(bits.std() / math.sqrt(len(bits)))
    assert float(bits.mean()) == pytest.approx(
        -0.5 * math.log2(2 * math.pi * math.e), abs=4 * error
    )
    assert error < 0.02


def test_bound_is_lower_for_a_wrong_model_and_by_the_divergence():
    """A mean that is off by d sigma costs d^2 / 2 nats at each of the T - 1 steps."""

    class Off(Zero):
        def forward(self, x, c_noise, labels=None):
            return torch.cat([0.3 * torch.ones_like(x), torch.zeros_like(x)], 1)

    right = gaussian(20)
    wrong = ReverseGaussian(Off(2), SHAPE, levels=20).double()
    x0, noises = normal(0, 4000, *SHAPE), normal(1, 19, 4000, *SHAPE)
    lost = (right.bound(x0, noises) - wrong.bound(x0, noises)) / 16
    expected = 19 * 0.3**2 / 2 / math.log(2)
    assert float(lost.mean()) == pytest.approx(expected, abs=4 * float(lost.std()) / 4000**0.5)


def test_objective_is_the_bound_estimated_at_one_time():
    model = gaussian(10, mean=0.1, std=0.5)
    loss = SohlDicksteinObjective(dequantise=0).build(Setup(model, None, None, 1, CPU))
    draws = Draws(0, 0, 20_000, (0, 20_000), CPU)
    images = 0.1 + 0.5 * normal(0, 20_000, *SHAPE)
    bits = loss(images, None, 0, draws)
    # Data of its own variance under the perfect model: K = L_null, so the loss is zero.
    assert float(bits.mean()) == pytest.approx(0, abs=4 * float(bits.std()) / 20_000**0.5)
    with pytest.raises(UserError, match="does not train a Linear"):
        SohlDicksteinObjective().build(Setup(nn.Linear(1, 1), None, None, 1, CPU))


def test_the_denoiser_that_the_means_imply():
    """Of N(m, s^2) data: E[x0 | x] = m + (x - m) s^2 / (s^2 + sigma^2)."""
    model = gaussian(20, mean=0.2, std=0.5)
    x = normal(0, 8, *SHAPE)
    known = model.round_sigma(torch.linspace(0.2, 2, 8, dtype=torch.float64))
    torch.testing.assert_close(model.round_sigma(known), known)
    level = known[:, None, None, None]
    expected = 0.2 + (x - 0.2) * 0.25 / (0.25 + level**2)
    torch.testing.assert_close(model(x, known), expected, atol=1e-5, rtol=0)
    assert model.sigma_min == pytest.approx(float(model.round_sigma(torch.zeros(1).double())))


def test_samples_have_the_data_s_moments_and_cost_one_less_than_the_levels():
    model = gaussian(12, mean=0.1, std=0.2).float()
    generator = BoundGenerator(model, SohlDickstein())
    with EvaluationCounter(generator.networks()) as counter:
        made = generator.generate(Noise(0, range(500), SHAPE))
    assert counter.per_image(500) == 11
    assert float(made.mean()) == pytest.approx(0.1, abs=0.01)
    assert float(made.std()) == pytest.approx(0.2, abs=0.01)
    alone = generator.generate(Noise(0, [3], SHAPE))
    torch.testing.assert_close(made[3:4], alone, atol=1e-6, rtol=0)
    other = BoundGenerator(model, Heun(steps=6)).generate(Noise(0, range(500), SHAPE))
    assert float(other.std()) == pytest.approx(0.2, abs=0.03)


def test_trained_betas_get_gradients_and_move_the_range():
    model = gaussian(10, learn_beta=True)
    loss = SohlDicksteinObjective().build(Setup(model, None, None, 1, CPU))
    # Not the perfect model's data: there the bound does not depend on the betas.
    loss(0.3 * normal(0, 64, *SHAPE), None, 0, Draws(0, 0, 64, (0, 64), CPU)).mean().backward()
    assert bool((model.beta_logits.grad != 0).all())
    state = {**model.state_dict(), "beta_logits": model.beta_logits.detach() - 3}
    before = model.sigma_max
    model.load_state_dict(state)
    assert model.sigma_max < before
    assert "beta_logits" in dict(gaussian(10).named_buffers())


def bits(seed, *shape):
    return torch.where(normal(seed, *shape) > 0, 1.0, -1.0).double()


def test_binomial_forward_is_the_steps_in_turn():
    model = BinomialDiffusion(Zero(1), SHAPE, levels=8)
    x0, rate = torch.ones(1, *SHAPE).double(), torch.ones(1, *SHAPE).double()
    for step in range(1, 9):
        beta = 1 / (8 - step + 1)
        rate = rate * (1 - beta) + 0.5 * beta
        torch.testing.assert_close(model.rate(x0, torch.tensor([step])), rate)


@pytest.mark.parametrize("index", [2, 5, 8])
def test_binomial_posterior_is_bayes_rule(index):
    model = BinomialDiffusion(Zero(1), SHAPE, levels=8)
    beta, before = 1 / (8 - index + 1), (8 - index + 1) / 8
    for x in (-1, 1):
        for x0 in (-1, 1):
            joint = {}
            for middle in (-1, 1):
                prior = (1 + before * x0 * middle) / 2
                stays = (1 - beta) * (x == middle) + beta / 2
                joint[middle] = prior * stays
            expected = joint[1] / (joint[1] + joint[-1])
            full = [torch.full((1, *SHAPE), v, dtype=torch.float64) for v in (x, x0)]
            got = model.posterior(*full, torch.tensor([index]))
            torch.testing.assert_close(got, torch.full_like(got, expected))


class Fair(nn.Module):
    """Logits of a fair bit seen at time t = (c + 1) 15 of 30: log((1 + abar x) / (1 - abar x))."""

    def forward(self, x, c_noise, labels=None):
        kept = 1 - (c_noise[:, None, None, None] + 1) / 2
        return x * ((1 + kept) / (1 - kept)).log()


@pytest.mark.parametrize(("predicts", "net"), [("rate", Zero(1)), ("x0", Fair())])
def test_bound_of_a_perfect_binomial_model_is_the_entropy(predicts, net):
    """Fair bits: log p = -1 bit each, and the entropy terms of the edges cancel."""
    model = BinomialDiffusion(net, SHAPE, levels=30, predicts=predicts)
    uniforms = torch.rand(29, 3000, *SHAPE, dtype=torch.float64)
    bound = model.bound(bits(0, 3000, *SHAPE), uniforms) / 16
    error = float(bound.std() / math.sqrt(len(bound)))
    assert float(bound.mean()) == pytest.approx(-1, abs=4 * error + 1e-6)
    with pytest.raises(UserError, match="does not train a Linear"):
        BinomialObjective().build(Setup(nn.Linear(1, 1), None, None, 1, CPU))


@pytest.mark.parametrize("predicts", ["rate", "x0"])
def test_binomial_objective_is_the_bound_estimated_at_one_time(predicts):
    torch.manual_seed(0)
    net = create("network", {"name": "readout_mlp", "hidden": [8]}).build(SHAPE)
    nn.init.normal_(net.readout.weight, std=0.3)
    model = BinomialDiffusion(net, SHAPE, levels=6, predicts=predicts)
    x0 = bits(0, 1, *SHAPE).float().expand(20_000, -1, -1, -1)
    loss = BinomialObjective().build(Setup(model, None, None, 1, CPU))
    with torch.no_grad():
        one = loss(x0, None, 0, Draws(0, 0, 20_000, (0, 20_000), CPU))
        whole = model.bound(x0, torch.rand(5, 20_000, *SHAPE))
    error = math.hypot(float(one.std()), float(whole.std())) / math.sqrt(20_000)
    assert float(one.mean()) == pytest.approx(-float(whole.mean()), abs=4 * error)


def test_binomial_samples_are_bits_at_one_less_than_the_levels():
    generator = BoundGenerator(BinomialDiffusion(Zero(1), SHAPE, levels=9), Binomial())
    with EvaluationCounter(generator.networks()) as counter:
        made = generator.generate(Noise(0, range(40), SHAPE))
    assert counter.per_image(40) == 8
    assert set(made.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(made[5:6], generator.generate(Noise(0, [5], SHAPE)))


@pytest.mark.parametrize("sampler", [SohlDickstein(), Binomial()])
def test_samplers_refuse_other_models(sampler):
    with pytest.raises(UserError, match="not a Linear"):
        sampler.sample(nn.Linear(1, 1), Noise(0, [0], SHAPE))


def test_heartbeat_has_a_one_at_every_fifth_bit():
    data = create("dataset", "heartbeat").open()
    pixels = data.pixels(range(len(data)))
    assert pixels.shape == (5, 1, 1, 20)
    assert (pixels.reshape(5, 4, 5).sum(2) == 255).all()
    assert (pixels[..., 5:] == pixels[..., :-5]).all()
    assert len({p.tobytes() for p in pixels}) == 5


def test_readout_is_the_bump_s_own_where_it_stands():
    torch.manual_seed(0)
    net = create("network", {"name": "readout_mlp", "hidden": [8], "readouts": 5}).build(SHAPE)
    nn.init.normal_(net.readout.weight)
    x = torch.randn(2, *SHAPE)
    parts = net.readout(torch.nn.functional.silu(net.layers[0](x.flatten(1)))).reshape(2, 5, -1)
    # Neighbours stand one bump apart: soft-max weights exp(-2 d^2) of the distance d in bumps.
    weights = torch.softmax(-2.0 * (torch.arange(5) - 3.0) ** 2, 0)
    expected = (parts * weights[:, None]).sum(1).reshape(2, *SHAPE)
    torch.testing.assert_close(net(x, torch.full((2,), 0.5)), expected)


@pytest.mark.slow
def test_heartbeat_is_learned_within_a_seventh_of_a_bit(tmp_path):
    """The truth is log2(1/5) = -2.322 bits a sequence; the paper reached -2.414."""
    path = Path(__file__).parents[2] / "models" / "sohl_dickstein" / "recipes" / "heartbeat.yaml"
    (result,) = run_recipes([path], out=tmp_path)
    model = create("model", read_recipe(path).model)
    module = model.build()
    model.load(module, result.weights)
    data = create("dataset", "heartbeat").open()
    known = to_images(torch.from_numpy(data.pixels(range(5))))
    x0 = known.repeat(40, 1, 1, 1)
    uniforms = torch.rand(module.levels - 1, *x0.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bound = float(module.bound(x0, uniforms).mean())
    assert math.log2(1 / 5) - 0.15 < bound < math.log2(1 / 5)
    made = BoundGenerator(module, Binomial()).generate(Noise(0, range(100), (1, 1, 20)))
    periodic = (made[:, None] == known[None]).flatten(2).all(2).any(1)
    # x_1 keeps one flip in 4,000 bits: 0.5% of the sequences hold one.
    assert float(periodic.float().mean()) >= 0.97


@pytest.mark.slow
def test_swiss_roll_bound():
    """Gains over the null model in bits; docs/families-sohl-dickstein.md has a longer training."""
    from sklearn.datasets import make_swiss_roll

    points = make_swiss_roll(20_000, noise=0.0, random_state=0)[0][:, [0, 2]]
    points = (points - points.mean(0)) / points.std(0)
    data = torch.from_numpy(np.ascontiguousarray(points)).float()[:, :, None, None]
    torch.manual_seed(0)
    spec = {"name": "readout_mlp", "hidden": [128, 128], "readouts": 20, "outputs": 4}
    net = create("network", spec).build((2, 1, 1))
    model = ReverseGaussian(net, (2, 1, 1), levels=40, learn_beta=True, first_beta=1e-5)
    loss = SohlDicksteinObjective(dequantise=0).build(Setup(model, None, None, 1, CPU))
    optimiser = torch.optim.Adam(model.parameters(), lr=6e-3)
    steps = 8000
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 6e-3 * min(1, (steps - step) / (0.6 * steps))
        draws = Draws(0, step, 512, (0, 512), CPU)
        value = loss(data[2000:][draws.integers(18_000)], None, step, draws).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        bound = model.bound(data[:2000], torch.randn(39, 2000, 2, 1, 1, generator=generator))
    assert float(bound.mean()) - 2 * model.null() / math.log(2) > 4.5
