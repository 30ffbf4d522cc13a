"""The one-shot generator: one evaluation, its optimiser against torch's, R1 in closed form."""

import pytest
import torch
from torch import nn

from cmbench.core.errors import UserError
from cmbench.core.images import to_images
from cmbench.core.loader import create
from cmbench.core.nfe import EvaluationCounter
from cmbench.core.random import Noise
from cmbench.denoise.oneshot import OneShot as OneShotModule
from cmbench.samplers.base import BoundGenerator
from cmbench.samplers.oneshot import OneShot
from cmbench.train.draws import Draws
from cmbench.train.loop import train
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.gan import GAN
from cmbench.train.recipe import Recipe

SHAPE, CPU = (1, 8, 8), torch.device("cpu")
MODEL = {"name": "gan", "shape": SHAPE, "classes": 3, "latent": 8, "channels": [16, 16]}


class Constant(OneShotModule):
    """Paints the image with its latent's first value."""

    def forward(self, z, labels=None):
        return z[:, :1, None, None].expand(-1, *self.shape)


def built(**more):
    torch.manual_seed(0)
    student = create("model", MODEL).build()
    spec = GAN(**{"channels": (8, 8), "r1_every": 1, **more})
    return spec.build(Setup(student, None, None, 10, CPU))


def batch(count=16):
    images = Noise(0, range(count), SHAPE).uniform(0) * 2 - 1
    return images, torch.arange(count) % 3


def step(loss, number):
    images, labels = batch()
    return loss(images, labels, number, Draws(0, number, 16, (0, 16), CPU))


def test_one_evaluation_an_image_whatever_the_batch():
    torch.manual_seed(0)
    generator = BoundGenerator(create("model", MODEL).build(), OneShot())
    noise = Noise(0, range(6), SHAPE)
    with EvaluationCounter(generator.networks()) as counter:
        made = generator.generate(noise, noise.labels(3))
    assert counter.per_image(6) == 1
    assert OneShot().nfe() == 1
    assert made.shape == (6, *SHAPE)
    assert made.abs().max() <= 1
    alone = Noise(0, [4], SHAPE)
    torch.testing.assert_close(
        made[4:5], generator.generate(alone, alone.labels(3)), atol=1e-6, rtol=0
    )
    other = generator.generate(noise, (noise.labels(3) + 1) % 3)
    assert (other - made).flatten(1).abs().max(1).values.min() > 1e-4


def test_a_wide_latent_takes_more_draws():
    class Kept(Constant):
        def forward(self, z, labels=None):
            self.z = z
            return super().forward(z)

    noise, module = Noise(0, range(3), SHAPE), Kept(SHAPE, 100)
    OneShot().sample(module, noise)
    expected = torch.cat([noise.normal(d).flatten(1) for d in range(2)], 1)[:, :100]
    assert torch.equal(module.z, expected)


def test_the_discriminators_adam_is_torch_s():
    loss, peer = built(lr=2e-3, betas=(0.5, 0.9)), built()
    optimiser = torch.optim.Adam(peer.judge.parameters(), lr=2e-3, betas=(0.5, 0.9))
    weights = list(loss.judge.parameters())
    for number in range(4):
        grad = torch.randn(
            sum(p.numel() for p in weights), generator=torch.Generator().manual_seed(number)
        )
        loss._adam(weights, grad)
        parts = grad.split([p.numel() for p in weights])
        for weight, part in zip(peer.judge.parameters(), parts, strict=True):
            weight.grad = part.view_as(weight)
        optimiser.step()
    for ours, theirs in zip(weights, peer.judge.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_losses_and_penalty_of_a_linear_discriminator():
    """D(x) = a . x: |grad D|^2 = |a|^2 everywhere, and the logistic losses by hand."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.linspace(-0.2, 0.3, 64))

        def forward(self, x, labels=None):
            return x.flatten(1) @ self.a

    student = Constant(SHAPE, 4)
    loss = GAN(channels=(8,), r1_every=1, lr=1e-12).build(Setup(student, None, None, 1, CPU))
    loss.judge = Linear()
    loss.first, loss.second = torch.zeros(64), torch.zeros(64)
    a = loss.judge.a.detach().clone()
    images, _ = batch()
    draws = Draws(0, 0, 16, (0, 16), CPU)
    old, new = draws.normal(4)[:, 0], draws.normal(4)[:, 0]
    got = loss(images, None, 0, Draws(0, 0, 16, (0, 16), CPU))
    torch.testing.assert_close(got, torch.log1p(torch.exp(-new * a.sum())), atol=1e-5, rtol=0)
    real = torch.log1p(torch.exp(-(images.flatten(1) @ a))).mean()
    fake = torch.log1p(torch.exp(old * a.sum())).mean()
    told = loss.progress(0)
    assert told["discriminator"] == pytest.approx(float(real + fake), abs=1e-5)
    assert told["r1"] == pytest.approx(float(a.square().sum()), rel=1e-5)


def test_the_generator_s_gradient_is_its_own_and_r1_comes_every_nth_step():
    loss = built(r1_every=3, gamma=2.0)
    judge = [p.detach().clone() for p in loss.judge.parameters()]
    seen = []
    for number in range(4):
        losses = step(loss, number)
        seen.append(loss.progress(number)["r1"])
    losses.mean().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in loss.student.parameters())
    assert seen[0] == seen[1] == seen[2] != seen[3]
    changed = zip(judge, loss.judge.parameters(), strict=True)
    assert any(bool((old != new).any()) for old, new in changed)


def test_a_checkpointed_loss_goes_on_to_the_bit():
    whole = built()
    for number in range(3):
        step(whole, number)
    resumed = built(lr=1e-3)
    for number in range(2):
        step(resumed, number)
    fresh = built()
    fresh.load_state_dict(resumed.state_dict())
    step(fresh, 2)
    for ours, theirs in zip(fresh.judge.parameters(), whole.judge.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_errors_name_the_cure():
    with pytest.raises(UserError, match="one-shot generators, not a Linear"):
        OneShot().sample(nn.Linear(1, 1), Noise(0, [0], SHAPE))
    with pytest.raises(UserError, match="does not train a Linear"):
        GAN().build(Setup(nn.Linear(1, 1), None, None, 1, CPU))
    with pytest.raises(UserError, match="too many for 8 pixels"):
        built(channels=(8, 8, 8, 8))
    with pytest.raises(UserError, match="can't be halved"):
        create("model", {**MODEL, "channels": [8] * 5}).build()


@pytest.mark.slow
def test_trained_on_digits_it_comes_nearer_than_one_image_of_each_class(tmp_path):
    recipe = Recipe.model_validate(
        {
            "recipe": "gan/test",
            "model": {"name": "gan", "shape": SHAPE, "classes": 10, "channels": [48, 32]},
            "dataset": {"name": "digits"},
            "objective": {"name": "gan", "channels": [32, 48], "gamma": 1.0},
            "optimiser": {"name": "adam", "lr": 1e-3, "betas": [0.0, 0.99]},
            "ema": {"half_life_images": 5000},
            "batch": 64,
            "images": 40000,
            "clip": None,
        }
    )
    data = create("dataset", "digits").open()
    result = train(recipe, dataset_images=data, folder=tmp_path, device=CPU)
    model = create("model", recipe.model)
    module = model.build()
    model.load(module, result.weights)
    noise = Noise(0, range(500), SHAPE)
    labels = noise.labels(10)
    made = BoundGenerator(module.eval(), OneShot()).generate(noise, labels)
    test = create("dataset", {"name": "digits", "split": "test"}).open()
    truth, classes = to_images(torch.from_numpy(test.pixels(range(len(test))))), test.labels()
    means = torch.stack([truth[classes == c].mean(0) for c in range(10)])
    # Nearest class mean: right for 90% of test digits, and near it for what was made to order.
    nearest = (made[:, None] - means).square().flatten(2).sum(2).argmin(1)
    assert float((nearest == labels).float().mean()) > 0.7
    spread = torch.stack([made[labels == c].std(0).mean() for c in range(10)])
    real = torch.stack([truth[classes == c].std(0).mean() for c in range(10)])
    assert float((spread / real).min()) > 0.4
