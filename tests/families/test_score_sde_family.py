"""Score SDEs against closed forms and SciPy: processes, samplers, likelihood, files, training."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from cmbench.core.errors import UserError
from cmbench.core.loader import create, load
from cmbench.core.nfe import EvaluationCounter
from cmbench.core.random import Noise
from cmbench.denoise._rk45 import integrate
from cmbench.denoise.likelihood import bits_per_dimension, dequantised, log_likelihood
from cmbench.denoise.sde import VE, VP, SubVP
from cmbench.denoise.sde_denoiser import Labels, Scores, SDEDenoiser
from cmbench.nets.score_sde_unet import ScoreSDEUNet
from cmbench.released.score_sde_names import _leaves
from cmbench.samplers.base import BoundGenerator
from cmbench.samplers.predictor_corrector import PredictorCorrector
from cmbench.samplers.probability_flow_rk45 import ProbabilityFlowRK45
from cmbench.testing.oracles import GaussianDenoiser
from cmbench.train.objectives.base import Setup

SHAPE = (1, 3, 3)
PROCESSES = {"ve": VE(0.01, 50.0), "vp": VP(), "subvp": SubVP()}
SPREAD = 0.5


class Ideal(torch.nn.Module):
    """What a perfect network of a process says of images N(0, SPREAD^2)."""

    def __init__(self, sde, unit, fourier):
        super().__init__()
        self.sde, self.unit, self.fourier = sde, unit, fourier
        self.none = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, inner, c_noise, labels=None):
        label = c_noise.exp() if self.fourier else c_noise
        if isinstance(self.sde, VE):
            level = self.unit * label[:, None, None, None]
            return -inner * level / (SPREAD**2 + level**2)
        t = label / 999
        alpha, std = (f(t)[:, None, None, None] for f in (self.sde.alpha, self.sde.std))
        return inner * std / (alpha**2 * SPREAD**2 + std**2)


def ideal(name, unit=1.0, shape=SHAPE):
    sde = PROCESSES[name]
    exploding = name == "ve"
    labels = Labels(fourier=exploding, divides=exploding)
    net = Ideal(sde, unit, exploding)
    return SDEDenoiser(net, shape, sde, labels, unit=unit).eval()


@pytest.mark.parametrize("name", PROCESSES)
def test_drift_and_diffusion_make_the_marginals(name):
    """d alpha / dt = f alpha and d std^2 / dt = 2 f std^2 + g^2, by central differences."""
    sde, t, h = PROCESSES[name], torch.linspace(0.05, 0.95, 7).double(), 1e-5
    pull = sde.drift(torch.ones(7, 1, 1, 1).double(), t).flatten()
    rise = (sde.alpha(t + h) - sde.alpha(t - h)) / (2 * h)
    assert torch.allclose(rise, pull * sde.alpha(t), rtol=1e-6, atol=1e-9)
    spread = (sde.std(t + h) ** 2 - sde.std(t - h) ** 2) / (2 * h)
    want = 2 * pull * sde.std(t) ** 2 + sde.diffusion(t) ** 2
    assert torch.allclose(spread, want, rtol=1e-6)


def test_known_levels():
    """Values of the processes computed by hand from their formulas."""
    t = torch.tensor([1e-5, 1e-3, 0.5, 1.0]).double()
    want = {
        "vp": [0.0010004976, 0.010485993, 3.4129183, 152.16697],
        "ve": [0.010000852, 0.010085536, 0.70710678, 50.0],
    }
    for name, levels in want.items():
        assert PROCESSES[name].sigma(t).tolist() == pytest.approx(levels, rel=1e-6)
    assert PROCESSES["subvp"].std(t[1:]).tolist() == pytest.approx(
        [1.0994e-4, 0.92093619, 0.99995681], rel=1e-4
    )


@pytest.mark.parametrize("name", PROCESSES)
def test_time_inverts_sigma_over_the_whole_range(name):
    sde, t = PROCESSES[name], torch.logspace(-5, 0, 40).double()
    assert torch.allclose(sde.time(sde.sigma(t)), t, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("unit", [1.0, 2.0])
@pytest.mark.parametrize("name", PROCESSES)
def test_an_ideal_network_is_the_ideal_denoiser(name, unit):
    if unit == 2 and name != "ve":
        return  # VP on [0, 1] images: below, by its own test.
    denoiser, truth = ideal(name, unit), GaussianDenoiser(SHAPE, spread=SPREAD)
    sigma = torch.tensor([0.05, 0.7, 3.0, 40.0]).double()
    x = sigma[:, None, None, None] * Noise(0, range(4), SHAPE).normal(0).double()
    assert torch.allclose(denoiser(x, sigma), truth(x, sigma), atol=1e-9)


def test_a_vp_process_on_images_from_0_to_1_sees_them_mapped_to_our_range():
    seen = []

    class Keep(torch.nn.Module):
        def forward(self, inner, c_noise, labels=None):
            seen.append(inner)
            return torch.zeros_like(inner)

    denoiser = SDEDenoiser(Keep(), SHAPE, VP(), unit=2.0)
    x, sigma = torch.full((1, *SHAPE), 0.5).double(), torch.tensor([2.0]).double()
    denoiser(x, sigma)
    alpha = 1 / math.sqrt(1 + 1.0**2)
    assert torch.allclose(seen[0], torch.full_like(x, 2 * (alpha * 0.75) - 1))


def test_integration_takes_scipys_steps_for_each_row():
    def slope(y, t, rows):
        return torch.stack([y[:, 1], -(1 + 9 * rows) * y[:, 0] * (1 + t)], dim=1)

    first = torch.tensor([[1.0, 0.0], [0.3, 2.0], [5.0, -1.0]]).double()
    together = integrate(slope, first, 1.0, 1e-3, rtol=1e-5, atol=1e-6)
    for i in range(3):
        found = solve_ivp(
            lambda t, y, i=i: [y[1], -(1 + 9 * i) * y[0] * (1 + t)],
            (1.0, 1e-3), first[i].numpy(), method="RK45", rtol=1e-5, atol=1e-6,
        )  # fmt: skip
        assert int(together.evaluations[i]) == found.nfev
        assert np.allclose(together.y[i].numpy(), found.y[:, -1], rtol=0, atol=1e-9)


def test_shared_steps_are_scipys_for_the_whole_vector():
    def slope(y, t, rows):
        return -torch.stack([1.0 + rows, 2.0 + rows], dim=1) * y * 3

    first = torch.tensor([[1.0, 0.5], [0.3, 2.0]]).double()
    ours = integrate(slope, first, 0.0, 1.0, rtol=1e-4, atol=1e-6, shared=True)
    rates = np.array([1.0, 2.0, 2.0, 3.0]) * 3
    found = solve_ivp(
        lambda t, y: -rates * y, (0, 1), first.flatten().numpy(), rtol=1e-4, atol=1e-6
    )
    assert set(ours.evaluations.tolist()) == {found.nfev}
    assert np.allclose(ours.y.flatten().numpy(), found.y[:, -1], atol=1e-12)


def test_integration_that_cannot_end_says_so():
    with pytest.raises(UserError, match=r"RK45 (needs a step|spent)"):
        integrate(
            lambda y, t, rows: 1 / (0.5 - t)[:, None].abs() ** 3 * torch.sign(y),
            torch.ones(1, 1).double(), 0.0, 1.0, rtol=1e-9, atol=1e-9, limit=3_000,
        )  # fmt: skip


@pytest.mark.parametrize("name", PROCESSES)
def test_the_flow_carries_each_image_as_the_exact_solution(name):
    denoiser = ideal(name)
    noise = Noise(2, range(3), SHAPE)
    with EvaluationCounter([denoiser.net]) as counter:
        made = ProbabilityFlowRK45(rtol=1e-8, atol=1e-8).sample(denoiser, noise)
    sde = denoiser.sde
    ends = torch.tensor([1.0, sde.end]).double()
    alpha, std = sde.alpha(ends), sde.std(ends)
    spread = (alpha**2 * SPREAD**2 + std**2).sqrt()
    want = noise.normal(0).double() * sde.prior_std() * spread[1] / spread[0]
    assert torch.allclose(made, want, atol=1e-6)
    alone = ProbabilityFlowRK45(rtol=1e-8, atol=1e-8).sample(denoiser, Noise(2, [1], SHAPE))
    assert torch.equal(alone[0], made[1])
    assert counter.per_image(3) > 2


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("ve", {"steps": 150, "snr": 0.05}),
        ("ve", {"steps": 150, "predictor": "ancestral", "corrector": "none"}),
        ("ve", {"steps": 150, "predictor": "euler_maruyama", "corrector": "ald", "snr": 0.1}),
        ("vp", {"steps": 150, "predictor": "euler_maruyama", "corrector": "none"}),
        ("vp", {"steps": 150, "predictor": "ancestral", "corrector": "langevin", "snr": 0.05}),
        ("vp", {"steps": 150, "predictor": "reverse_diffusion", "corrector": "none"}),
        ("subvp", {"steps": 150, "predictor": "euler_maruyama", "corrector": "none"}),
        ("vp", {"steps": 1000, "corrector": "none", "probability_flow": True}),
    ],
    ids=str,
)
def test_samples_have_the_datas_distribution(name, spec):
    sampler, shape = PredictorCorrector(**spec), (3, 16, 16)
    generator = BoundGenerator(ideal(name, shape=shape), sampler)
    with EvaluationCounter(generator.networks()) as counter:
        made = generator.generate(Noise(1, range(4), shape)).flatten()
    assert counter.per_image(4) == sampler.nfe()
    # 3,072 values of N(0, 0.25): z = 4, and 2 % for the steps.
    assert abs(float(made.mean())) < 4 * SPREAD / math.sqrt(len(made))
    assert float(made.std()) == pytest.approx(SPREAD, rel=4 / math.sqrt(2 * len(made)) + 0.02)


def test_the_authors_corrector_depends_on_the_batch_and_ours_does_not():
    denoiser = ideal("ve")
    for norms, same in (("image", True), ("batch", False)):
        sampler = PredictorCorrector(steps=20, norms=norms)
        whole = sampler.sample(denoiser, Noise(3, range(4), SHAPE))
        assert torch.equal(sampler.sample(denoiser, Noise(3, [2], SHAPE))[0], whole[2]) is same


def test_steps_that_a_process_cannot_take_are_refused():
    with pytest.raises(UserError, match="more than beta_max = 20"):
        PredictorCorrector(steps=20).sample(ideal("vp"), Noise(0, [0], SHAPE))
    with pytest.raises(UserError, match="no ancestral step"):
        PredictorCorrector(predictor="ancestral").sample(ideal("subvp"), Noise(0, [0], SHAPE))
    with pytest.raises(UserError, match="no probability flow"):
        create(
            "sampler",
            {"name": "predictor_corrector", "predictor": "ancestral", "probability_flow": True},
        )


@pytest.mark.parametrize("name", [*PROCESSES, "any denoiser"])
def test_likelihood_of_gaussian_images_is_exact(name):
    """The flow scales by a known factor, so that the model's density is Gaussian."""
    denoiser = GaussianDenoiser(SHAPE, spread=SPREAD) if name == "any denoiser" else ideal(name)
    images = SPREAD * Noise(4, range(5), SHAPE).normal(0).double()
    found = log_likelihood(denoiser, images, Noise(5, range(5), SHAPE), rtol=1e-8, atol=1e-8)
    sde = Scores(denoiser).sde
    ends = torch.tensor([1.0, 1e-5]).double()
    variance = sde.alpha(ends) ** 2 * SPREAD**2 + sde.std(ends) ** 2
    deviation = float((variance[1] / variance[0]).sqrt()) * sde.prior_std()
    want = torch.distributions.Normal(0.0, deviation).log_prob(images).flatten(1).sum(1)
    assert torch.allclose(found.log_density, want, atol=1e-5)
    # And that is the data's own density, but for the prior's and the least level's part.
    truth = torch.distributions.Normal(0.0, SPREAD).log_prob(images).flatten(1).sum(1)
    assert torch.allclose(found.log_density, truth, atol=0.02)
    assert (found.evaluations > 8).all()


def test_a_gaussian_probe_is_right_on_average():
    denoiser = ideal("vp")
    images = (SPREAD * Noise(4, [0], SHAPE).normal(0)).double().expand(400, *SHAPE)
    found = log_likelihood(
        denoiser, images, Noise(5, range(400), SHAPE), probe="gaussian", rtol=1e-4, atol=1e-4
    )
    truth = torch.distributions.Normal(0.0, SPREAD).log_prob(images[0]).sum()
    error = float(found.log_density.std()) / math.sqrt(400)
    assert error > 0.01
    assert abs(float(found.log_density.mean() - truth)) < 4 * error + 0.02


def test_bits_of_images_that_nothing_is_known_of():
    noise = Noise(0, range(2), SHAPE)
    pixels = torch.arange(18, dtype=torch.uint8).reshape(2, *SHAPE) * 14
    images = dequantised(pixels, noise)
    assert torch.equal(((images + 1) * 128).floor().to(torch.uint8), pixels)
    uniform = torch.full((2,), -math.log(2) * 9)
    assert bits_per_dimension(uniform, SHAPE).tolist() == pytest.approx([8.0, 8.0])


COUNTS = {
    "ncsnpp continuous": (
        {"fir": True, "progressive_input": "residual", "embedding_type": "fourier"},
        62_758_787, 59, 570,
    ),
    "ncsnpp": ({"fir": True, "progressive_input": "residual"}, None, 58, 570),
    "ddpmpp": ({}, None, 55, 564),
    "ddpm": ({"family": "ddpm", "num_res_blocks": 2}, 35_218_947, 37, 308),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_published_networks_have_the_published_sizes(name):
    fields, parameters, modules, tensors = COUNTS[name]
    with torch.device("meta"), torch.no_grad():
        net = _without_initialisation(ScoreSDEUNet(**fields))
    theirs = [leaf.theirs for leaf in _leaves(net)]
    trained = [t for t in theirs if not t.endswith(".0.W")]
    assert len({t.split(".")[1] for t in theirs}) == modules
    assert len(trained) == tensors
    if parameters is not None:
        assert sum(p.numel() for p in net.parameters()) == parameters


def _without_initialisation(spec):
    from cmbench.nets._unet import UNet

    return UNet(spec.plan((3, 32, 32)))


def official(model, denoiser, *, seed=0):
    """A checkpoint in the authors' layout for this network, with averaged and raw weights."""
    net, generator = denoiser.net, torch.Generator().manual_seed(seed)
    own = net.state_dict()
    states = {}
    for leaf in _leaves(net):
        value = torch.empty(own[leaf.ours].shape)
        if leaf.third is not None:
            value = value[: len(value) // 3]
        value = value[:, :, 0, 0].T.contiguous() if leaf.turned else value
        states[leaf.theirs] = torch.randn(value.shape, generator=generator) * 0.1
    trained = [n for n in states if not n.endswith(".0.W")]
    shadow = [torch.randn(states[n].shape, generator=generator) * 0.1 for n in trained]
    raw = {
        "module.sigmas": torch.ones(3).double(),
        **{f"module.{k}": v for k, v in states.items()},
    }
    ema = {"decay": 0.999, "num_updates": 1, "shadow_params": shadow}
    return {"optimizer": {}, "model": raw, "ema": ema, "step": 1}, dict(
        zip(trained, shadow, strict=True)
    )


VARIANTS = {
    "256 pixels": {
        "fir": True, "progressive": "output_skip", "progressive_input": "input_skip",
        "embedding_type": "fourier", "ch_mult": (1, 1, 2),
    },
    "ddpm blocks": {"resblock_type": "ddpm", "embedding_type": "positional"},
    "ddpm": {"family": "ddpm"},
    "no convolution": {"family": "ddpm", "resamp_with_conv": False},
}  # fmt: skip


@pytest.mark.parametrize("kind", VARIANTS)
def test_checkpoints_of_every_variant_load_whole(kind, tmp_path):
    network = {"name": "score_sde_unet", "nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1,
               "attn_resolutions": (4,), **VARIANTS[kind]}  # fmt: skip
    fourier = network.get("embedding_type") == "fourier"
    model = create("model", {"name": "score_sde", "network": network, "shape": (3, 8, 8),
                             "sde": "ve" if fourier else "vp", "fourier": fourier})  # fmt: skip
    denoiser = model.build()
    held, averaged = official(model, denoiser)
    torch.save(held, tmp_path / "checkpoint.pth")
    model.load(denoiser, tmp_path / "checkpoint.pth")
    place = "all_modules.3.weight" if fourier else "all_modules.2.weight"
    assert torch.equal(denoiser.net.enc["8x8_conv"].weight, averaged[place])
    held["ema"]["shadow_params"].pop()
    torch.save(held, tmp_path / "short.pth")
    with pytest.raises(UserError, match=r"average has \d+ tensors"):
        model.load(denoiser, tmp_path / "short.pth")


def test_what_the_authors_offer_and_did_not_publish_is_refused_by_name():
    config = {
        "data": {"image_size": 8, "num_channels": 3, "centered": True},
        "model": {"name": "ncsnpp", "nf": 8, "progressive_combine": "cat"},
        "training": {"sde": "vpsde"},
    }
    kind = load("model", "score_sde")
    with pytest.raises(UserError, match="progressive_combine: cat"):
        kind.of_config(config)
    with pytest.raises(UserError, match="network 'ncsnv2' is not supported"):
        kind.of_config({**config, "model": {"name": "ncsnv2"}})


def test_discrete_labels():
    """Their own levels give their own indices; VE rounds to them, VP reads between."""
    ve = SDEDenoiser(
        torch.nn.Identity(), SHAPE, VE(0.01, 50.0), Labels(continuous=False, count=11)
    )
    levels = torch.linspace(math.log(50), math.log(0.01), 11).double().exp()
    assert ve.label(levels).tolist() == list(range(11))
    near = levels * 1.1
    assert torch.allclose(ve.round_sigma(near), levels)
    vp = SDEDenoiser(torch.nn.Identity(), SHAPE, VP(), Labels(continuous=False))
    betas = torch.linspace(1e-4, 0.02, 1000).double()
    abar = torch.cumprod(1 - betas, 0)
    index = torch.tensor([0, 1, 499, 998, 999])
    sigma = ((1 - abar) / abar).sqrt()[index]
    assert torch.allclose(vp.label(sigma), index.double(), atol=1e-6)


def test_the_objective_wants_a_process():
    objective = create("objective", "score_sde")
    with pytest.raises(UserError, match="can't train a GaussianDenoiser"):
        objective.build(Setup(GaussianDenoiser(SHAPE), None, None, 1, torch.device("cpu")))
