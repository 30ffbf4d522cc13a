"""Noise-conditional score networks against closed forms, published constants and SciPy."""

import itertools
import math

import numpy as np
import pytest
import torch

from cmbench.cards.cards import find_card
from cmbench.core.errors import UserError
from cmbench.core.images import to_images
from cmbench.core.loader import create, find, load
from cmbench.core.nfe import EvaluationCounter
from cmbench.core.random import Noise
from cmbench.denoise.ncsn import (
    NCSNDenoiser,
    ladder,
    ladder_count,
    ladder_ratio,
    langevin_drift,
    langevin_rate,
    largest_distance,
)
from cmbench.nets._ncsn_blocks import NormPlus
from cmbench.nets.ncsn_refine_net import NCSNRefineNet
from cmbench.nets.ncsnv2_refine_net import NCSNv2RefineNet
from cmbench.released.ncsn_names import _names
from cmbench.samplers.annealed_langevin import AnnealedLangevin
from cmbench.samplers.base import BoundGenerator
from cmbench.testing.oracles import GaussianDenoiser
from cmbench.train.objectives.base import Setup
from cmbench.train.recipe import read_recipe

SHAPE = (1, 4, 4)
PUBLISHED = {
    "CIFAR-10": (3072, 50, 232, 5, 6.2e-6),
    "CelebA 64": (12288, 90, 500, 5, 3.3e-6),
    "LSUN church 96": (27648, 140, 788, 4, 4.9e-6),
    "LSUN bedroom 128": (49152, 190, 1086, 3, 1.8e-6),
    "FFHQ 256": (196608, 348, 2311, 3, 9e-7),
}
"""Values an image, sigma_1, L, T and step of NCSNv2's configurations; sigma_L is 0.01."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_technique_2_gives_the_published_ladders(name):
    """At the overlap that the published ladders have, 0.566 to 0.567, not at 0.5."""
    dimension, begin, levels, _, _ = PUBLISHED[name]
    ratio = (begin / 0.01) ** (1 / (levels - 1))
    assert ladder_ratio(dimension, 0.5665) == pytest.approx(ratio, abs=3e-5)
    assert ladder_ratio(dimension) > ratio
    assert abs(ladder_count(begin, 0.01, ladder_ratio(dimension, 0.5665)) - levels) <= 1


@pytest.mark.parametrize("name", [n for n in PUBLISHED if "church" not in n])
def test_technique_4_gives_the_published_steps(name):
    _, begin, levels, steps, step = PUBLISHED[name]
    ratio = (begin / 0.01) ** (1 / (levels - 1))
    assert langevin_rate(ratio, steps) * 0.01**2 == pytest.approx(step, rel=0.02)


def test_technique_4_of_church_is_better_than_the_published_step():
    """Its published step is no minimum of the published formula; the other four are."""
    _, begin, levels, steps, step = PUBLISHED["LSUN church 96"]
    ratio = (begin / 0.01) ** (1 / (levels - 1))
    best = langevin_drift(langevin_rate(ratio, steps), ratio, steps)
    assert (
        1 < best < langevin_drift(step / 0.01**2, ratio, steps) == pytest.approx(1.025, abs=5e-4)
    )


def test_ladder_of_ncsn():
    want = [1, 0.59948425, 0.35938137, 0.21544347, 0.12915497, 0.07742637, 0.04641589, 0.02782559,
            0.01668101, 0.01]  # fmt: skip
    assert ladder(1, 0.01, 10).tolist() == pytest.approx(want, rel=1e-6)
    assert ladder(1, 0.1, 10, uniform=True).tolist() == pytest.approx(np.linspace(1, 0.1, 10))


def test_the_largest_distance_is_that_of_all_pairs():
    images = torch.rand(30, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    pairs = itertools.combinations(images.double(), 2)
    assert largest_distance(images) == pytest.approx(max(float((a - b).norm()) for a, b in pairs))


@pytest.mark.parametrize("levels", [0, 3])
def test_instance_norm_plus(levels):
    torch.manual_seed(0)
    norm = NormPlus(4, levels).double()
    x, level = torch.randn(2, 4, 5, 5).double() * 2 + 1, torch.tensor([2, 0])
    with torch.no_grad():
        for value in norm.parameters():
            value.normal_()
        got = norm(x, level).numpy()
    images = x.numpy()
    for i in range(2):
        rows = norm.embed.weight[level[i]].detach().numpy() if levels else None
        gamma, alpha, beta = (
            np.split(rows, 3) if levels
            else (p.detach().numpy() for p in (norm.gamma, norm.alpha, norm.beta))
        )  # fmt: skip
        means = images[i].mean((1, 2))
        m = (means - means.mean()) / np.sqrt(means.var(ddof=1) + 1e-5)
        normed = (images[i] - means[:, None, None]) / np.sqrt(images[i].var((1, 2)) + 1e-5)[
            :, None, None
        ]
        want = gamma[:, None, None] * (normed + (alpha * m)[:, None, None]) + beta[:, None, None]
        assert np.allclose(got[i], want, atol=1e-10)


class IdealScore(torch.nn.Module):
    """What a perfect network says of images N(0, spread^2) in [-1, 1]."""

    def __init__(self, levels, spread, conditional):
        super().__init__()
        self.levels, self.spread, self.conditional = levels, spread, conditional
        self.kind = torch.nn.Parameter(torch.zeros(1).double())

    def forward(self, x, told, labels=None):
        assert self.conditional
        level = self.levels[told.long()][:, None, None, None]
        # The score in [0, 1]: twice that in [-1, 1].
        return -2 * x / (self.spread**2 + (2 * level) ** 2)


def test_a_conditional_network_is_right_at_its_levels_and_rounds_to_them():
    levels = ladder(1.0, 0.01, 10)
    denoiser = NCSNDenoiser(IdealScore(levels, 0.5, True), SHAPE, levels, conditional=True)
    truth = GaussianDenoiser(SHAPE, spread=0.5)
    x = Noise(0, range(10), SHAPE).normal(0).double()
    assert torch.allclose(denoiser(x, denoiser.levels), truth(x, denoiser.levels), atol=1e-12)
    near = denoiser.levels * 1.2
    assert torch.equal(denoiser.round_sigma(near), denoiser.levels)
    assert denoiser.sigma_max == pytest.approx(2.0)
    assert denoiser.sigma_min == pytest.approx(0.02)


def test_an_unconditional_network_takes_any_sigma():
    class Toward(torch.nn.Module):
        def forward(self, x, told, labels=None):
            assert not told.any()
            return -x / 3

    denoiser = NCSNDenoiser(Toward(), SHAPE, ladder(50, 0.01, 20), conditional=False)
    sigma = torch.tensor([0.33, 7.0]).double()
    x = Noise(0, range(2), SHAPE).normal(0).double()
    assert torch.equal(denoiser.round_sigma(sigma), sigma)
    assert torch.allclose(denoiser(x, sigma), x * (1 - sigma[:, None, None, None] / 3))


@pytest.mark.parametrize("steps", [1, 4])
def test_the_chains_variance_is_technique_4s(steps):
    """On images that are all zero the chain's variance has the paper's closed form."""
    shape = (3, 16, 16)
    denoiser = GaussianDenoiser(shape, spread=1e-9, sigma_min=0.4, sigma_max=2.0)
    sampler = AnnealedLangevin(
        levels=2, steps_each=steps, step_lr=0.3 * 0.2**2, start="gaussian", ends="last"
    )
    made = sampler.sample(denoiser, Noise(1, range(8), shape))
    first = langevin_drift(0.3, 1.0, steps) * 25
    want = langevin_drift(0.3, math.sqrt(first), steps) * 0.4**2
    assert float(made.var()) == pytest.approx(want, rel=4 * math.sqrt(2 / made.numel()))


def test_samples_of_gaussian_data_have_the_chains_own_variance():
    """Score by score in the authors' units: x + a s + sqrt(2 a) z with s = -x / variance."""
    shape, spread = (3, 16, 16), 0.5
    denoiser = GaussianDenoiser(shape, spread=spread, sigma_min=0.02, sigma_max=10.0)
    sampler = AnnealedLangevin(levels=40, steps_each=5, step_lr=1e-5)
    generator = BoundGenerator(denoiser, sampler)
    with EvaluationCounter(generator.networks()) as counter:
        made = generator.generate(Noise(0, range(8), shape)).flatten()
    assert counter.per_image(8) == sampler.nfe() == 201
    variance = 1 / 12
    for level in np.geomspace(5.0, 0.01, 40):
        step, whole = 1e-5 * (level / 0.01) ** 2, (spread / 2) ** 2 + level**2
        for _ in range(5):
            variance = (1 - step / whole) ** 2 * variance + 2 * step
    shrunk = spread**2 / (spread**2 + 0.02**2)
    want = 2 * math.sqrt(variance) * shrunk
    assert abs(float(made.mean())) < 4 * want / math.sqrt(len(made))
    assert float(made.std()) == pytest.approx(want, rel=4 / math.sqrt(2 * len(made)))
    assert want == pytest.approx(spread, rel=0.3)


def test_evaluations_of_each_ending_and_ladders_that_spend_exactly():
    counts = [AnnealedLangevin(levels=10, steps_each=100, ends=e).nfe()
              for e in ("before_last", "last", "denoised")]  # fmt: skip
    assert counts == [1000, 1000, 1001]
    assert AnnealedLangevin().nfe() is None
    assert AnnealedLangevin(steps_each=5).with_nfe(1161).levels == 232
    with pytest.raises(UserError, match=r"(?s)exactly 1160.*1156 or 1161"):
        AnnealedLangevin(steps_each=5).with_nfe(1160)


DEPTHS = {
    "base": {"res4.1.conv2.weight": (16, 16, 3, 3), "refine3.msf.convs.1.weight": (8, 16, 3, 3)},
    "deeper": {
        "res3.0.conv2.conv.weight": (16, 16, 3, 3), "res4.0.shortcut.weight": (32, 16, 3, 3),
        "res5.1.conv1.weight": (32, 32, 3, 3), "refine1.crp.convs.0.weight": (32, 32, 3, 3),
        "refine2.msf.convs.0.weight": (16, 32, 3, 3), "refine4.msf.convs.1.bias": (8,),
        "refine5.output_convs.3_2_conv.weight": (8, 8, 3, 3),
    },
    "deepest": {
        "res31.0.shortcut.conv.weight": (16, 16, 1, 1), "res4.0.conv2.weight": (32, 16, 3, 3),
        "refine2.msf.convs.0.weight": (16, 32, 3, 3), "refine31.msf.convs.0.weight": (16, 16, 3, 3),
        "refine5.adapt_convs.1.2_2_conv.weight": (8, 8, 3, 3), "normalizer.alpha": (8,),
    },
}  # fmt: skip


@pytest.mark.parametrize("depth", DEPTHS)
@torch.no_grad()
def test_tensors_of_every_depth_have_the_authors_names(depth):
    net = NCSNv2RefineNet(ngf=8, depth=depth).build((3, 16, 16)).eval()
    own, names = net.state_dict(), dict(_names(net))
    assert set(names.values()) == set(own)
    found = {theirs: tuple(own[ours].shape) for theirs, ours in names.items()}
    for name, shape in DEPTHS[depth].items():
        assert found[name] == shape
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 3, 32, 32)


@torch.no_grad()
def test_ncsn_at_28_pixels_and_one_channel():
    net = NCSNRefineNet(ngf=4, levels=3).build((1, 28, 28)).eval()
    names = dict(_names(net))
    assert net.state_dict()[names["res4.0.conv2.weight"]].shape == (8, 8, 3, 3)
    assert names["refine1.adapt_convs.0.1_1_norm.embed.weight"]
    assert net(torch.randn(2, 1, 28, 28), torch.tensor([0, 2])).shape == (2, 1, 28, 28)


def config(side=8, **more):
    return {
        "data": {"image_size": side, "channels": 1, "logit_transform": False},
        "model": {"ngf": 4, "num_classes": 5, "sigma_begin": 2, "sigma_end": 0.01, **more},
    }


def test_configurations_name_their_network():
    kind = load("model", "ncsn")
    assert kind.of_config(config()).network["name"] == "ncsn_refine_net"
    for side, depth in ((64, "base"), (96, "deeper"), (128, "deeper"), (256, "deepest")):
        assert kind.of_config(config(side, ema=True)).network["depth"] == depth
    assert kind.of_config(config(), "NCSNv2Deepest").network["depth"] == "deepest"
    with pytest.raises(UserError, match="network 'NCSNv3' is not supported"):
        kind.of_config(config(), "NCSNv3")
    with pytest.raises(UserError, match="normalization: BatchNorm"):
        kind.of_config(config(normalization="BatchNorm"))


def test_files_of_another_ladder_or_width_are_refused(tmp_path):
    kind = load("model", "ncsn")
    model = kind.of_config(config(ema=True))
    denoiser = model.build()
    names, own = dict(_names(denoiser.net)), denoiser.net.state_dict()
    state = {f"module.{theirs}": own[ours] for theirs, ours in names.items()}
    averaged = {theirs: own[ours] + 1 for theirs, ours in names.items()}
    state["module.sigmas"] = ladder(2, 0.01, 5).float()
    path = tmp_path / "checkpoint.pth"
    torch.save([state, {}, 1, 2, averaged], path)
    model.load(denoiser, path)
    assert torch.equal(denoiser.net.state_dict()["begin.bias"], averaged["begin_conv.bias"])
    with pytest.raises(UserError, match="5 levels from 2 to 0.01"):
        kind.of_config(config(ema=True, sigma_begin=3)).load(denoiser, path)
    wide = kind.of_config(config(ema=True, ngf=8))
    with pytest.raises(UserError, match="another architecture"):
        wide.load(wide.build(), path)
    torch.save({"step": 3}, path)
    with pytest.raises(UserError, match="a checkpoint of NCSN or NCSNv2"):
        model.load(denoiser, path)


def test_the_objective_wants_a_ladder():
    objective = create("objective", "dsm")
    with pytest.raises(UserError, match="can't train a GaussianDenoiser"):
        objective.build(Setup(GaussianDenoiser(SHAPE), None, None, 1, torch.device("cpu")))


def test_the_digits_recipe_follows_the_techniques():
    recipe = read_recipe(find("model", "ncsn").parent / "recipes" / "digits.yaml")
    images = create("dataset", recipe.dataset).open()
    pixels = torch.from_numpy(images.pixels(range(len(images))))
    model = recipe.model
    greatest = largest_distance((to_images(pixels) + 1) / 2)
    assert model["sigma_begin"] == pytest.approx(greatest, rel=1e-4)
    ratio = ladder_ratio(64)
    assert model["levels"] == ladder_count(greatest, model["sigma_end"], ratio)


def test_the_recipe_of_the_first_ncsn_follows_the_paper():
    """Ten geometric levels from 1 to 0.01, the network told which, and steps of 2e-5."""
    family = find("model", "ncsn").parent
    recipe = read_recipe(family / "recipes" / "digits_v1.yaml")
    torch.manual_seed(0)
    student = create("model", recipe.model).build()
    assert student.conditional
    levels = student.levels / student.unit
    torch.testing.assert_close(
        levels[1:] / levels[:-1], torch.full((9,), 0.01 ** (1 / 9)).double()
    )
    assert float(levels[0]) == pytest.approx(1)
    sampler = create("sampler", find_card("ncsn/digits_v1").card.sampler)
    assert sampler.step_lr == 2e-5
    generator = BoundGenerator(student, sampler)
    with EvaluationCounter(generator.networks()) as counter:
        made = generator.generate(Noise(0, range(2), (1, 8, 8)))
    assert counter.per_image(2) == sampler.nfe() == 100
    assert torch.isfinite(made).all()
    loss = recipe.built_objective().build(Setup(student, None, None, 1, torch.device("cpu")))
    z = Noise(1, range(3), (1, 8, 8)).normal(0)
    # The last layer is zero at first: no score, so that the noise is all error at any level.
    found = loss.at(torch.rand_like(z), torch.tensor([0, 4, 9]), z, None)
    torch.testing.assert_close(found, z.square().flatten(1).sum(1) / 2, rtol=2e-4, atol=0)
