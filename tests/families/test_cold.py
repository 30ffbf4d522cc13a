"""Cold diffusion: degradations in closed form, the algorithms' guarantees, training and errors."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from cmbench.core.errors import UserError
from cmbench.core.images import to_images
from cmbench.core.loader import available, create
from cmbench.core.nfe import EvaluationCounter
from cmbench.core.random import Noise, ReplayNoise
from cmbench.degradations._mixing import cosine_signal
from cmbench.degradations.blur import Blur
from cmbench.degradations.gaussian import Gaussian
from cmbench.denoise.cold import NetworkRestorer, Restorer
from cmbench.samplers.base import BoundGenerator
from cmbench.samplers.cold_algorithm1 import ColdAlgorithm1
from cmbench.samplers.cold_algorithm2 import ColdAlgorithm2
from cmbench.samplers.cold_direct import ColdDirect
from cmbench.samplers.cold_estimated import ColdEstimated
from cmbench.samplers.cold_start import ColdStart
from cmbench.train.draws import Draws
from cmbench.train.loop import train
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.cold import Cold
from cmbench.train.recipe import Recipe

SHAPE = (3, 16, 16)
NAMES = [item.name for item in available("degradation")]


def images(count=4, shape=SHAPE):
    return Noise(7, range(count), shape).uniform(0) * 2 - 1


def degradation(name):
    more = {"pixelate": {"levels": 3}, "inpainting": {"kernel_std": 1.0}}.get(name, {})
    return create("degradation", {"name": name, "levels": 5, **more})


@pytest.mark.parametrize("name", NAMES)
def test_severity_zero_is_the_image(name):
    x, noise = images(), Noise(0, range(4), SHAPE)
    got = degradation(name).degrade(x, torch.zeros(4, dtype=torch.int64), noise)
    torch.testing.assert_close(got, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(name):
    spec, x = degradation(name), images()
    severity = torch.tensor([1, 3, 2, spec.levels])
    whole = spec.degrade(x, severity, Noise(0, range(4), SHAPE))
    for i in range(4):
        alone = spec.degrade(x[i : i + 1], severity[i : i + 1], Noise(0, [i], SHAPE))
        torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_severity_takes_more_and_more(name):
    spec = degradation(name)
    x, noise = images(64), Noise(0, range(64), SHAPE)
    at = [spec.degrade(x, torch.full((64,), s), noise) for s in range(spec.levels + 1)]
    lost = [(y - x).square().mean().item() for y in at]
    assert all(b > a for a, b in pairwise(lost))
    assert spec.start(noise).shape == x.shape


@pytest.mark.parametrize("name", ["snow", "inpainting", "gaussian", "animorphosis"])
def test_random_degradations_ask_for_noise(name):
    with pytest.raises(UserError, match="needs noise"):
        degradation(name).degrade(images(), torch.ones(4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("spec", "total"),
    [
        (Blur(levels=20, routine="Constant", kernel_size=11, kernel_std=7), 13.6),
        (Blur(levels=50, routine="Special_6_routine"), 4.18),
        (Blur(levels=200, routine="Exponential_reflect", kernel_size=15, kernel_std=0.01), 39.3),
        (Blur(levels=300, routine="Exponential", kernel_size=27, kernel_std=0.01), 86.0),
    ],
)
def test_total_blur_of_the_papers_settings(spec, total):
    """Variances of convolved kernels add: the standard deviations in pixels, by the taps."""
    variance = 0.0
    for step in range(spec.levels):
        taps = spec.kernel(step)
        offsets = torch.arange(len(taps)) - len(taps) // 2
        variance += float((taps * offsets**2).sum())
    assert math.sqrt(variance) == pytest.approx(total, rel=0.005)


def test_blur_that_wraps_keeps_the_mean_and_multiplies_frequencies():
    spec = Blur(levels=4, routine="Constant", kernel_size=5, kernel_std=1.0)
    x = images().double()
    got = spec.degrade(x, torch.full((4,), 3))
    taps = torch.zeros(16, dtype=torch.float64)
    for offset, weight in zip(range(-2, 3), spec.kernel(0), strict=True):
        taps[offset % 16] = weight
    gain = torch.fft.fft(taps) ** 3
    spectrum = torch.fft.fft2(x) * gain[:, None] * gain
    torch.testing.assert_close(got, torch.fft.ifft2(spectrum).real, atol=1e-12, rtol=0)
    torch.testing.assert_close(got.mean((2, 3)), x.mean((2, 3)), atol=1e-12, rtol=0)


def test_cosine_schedule_of_the_released_code():
    signal = cosine_signal(200)
    assert signal[0] == 1
    for index, value in {0: 0.99974503, 100: 0.48605241, 198: 6.0718e-05, 199: 6.0718e-08}.items():
        assert float(signal[index + 1]) == pytest.approx(value, rel=1e-5)


class Shift:
    """D(x, s) = x + s e: linear in the severity."""

    levels = 7

    def __init__(self, e):
        self.e = e

    def degrade(self, x0, severity, noise=None):
        return x0 + severity.reshape(-1, 1, 1, 1) * self.e

    def start(self, noise):
        return noise.normal(0)


class Wrong(Restorer):
    """A restorer that is far off, each time in another way."""

    def forward(self, x, severity, labels=None):
        return torch.sin(5 * x) + severity.reshape(-1, 1, 1, 1)


class Perfect(Restorer):
    def forward(self, x, severity, labels=None):
        return self.truth


def test_algorithm_2_is_exact_for_linear_degradations_whatever_the_restorer():
    x, e = images().double(), torch.randn(SHAPE, dtype=torch.float64)
    restorer = Wrong(SHAPE, Shift(e))
    start = restorer.degradation.degrade(x, torch.full((4,), 7))
    torch.testing.assert_close(ColdAlgorithm2().restore(restorer, start), x, atol=1e-9, rtol=0)
    torch.testing.assert_close(
        ColdAlgorithm2(steps=3).restore(restorer, start), x, atol=1e-9, rtol=0
    )
    assert (ColdAlgorithm1().restore(restorer, start) - x).abs().max() > 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sampler", [ColdAlgorithm1(), ColdAlgorithm2(), ColdDirect()])
def test_a_perfect_restorer_restores(name, sampler):
    spec, x, noise = degradation(name), images(), Noise(0, range(4), SHAPE)
    restorer = Perfect(SHAPE, spec)
    restorer.truth = x
    start = spec.degrade(x, torch.full((4,), spec.levels), noise)
    torch.testing.assert_close(sampler.restore(restorer, start, noise), x, atol=1e-5, rtol=0)


def test_estimated_noise_is_ddim():
    """In sigma-space the step is Euler's: y' = y + (sigma' - sigma) (y - R) / sigma."""
    spec = Gaussian(levels=6)
    signal = cosine_signal(6)

    class Halved(Restorer):
        def forward(self, x, severity, labels=None):
            return 0.5 * x + 0.1 * severity.reshape(-1, 1, 1, 1)

    x = images().double()
    got = ColdEstimated().restore(Halved(SHAPE, spec), x)
    y = x / signal[6].sqrt()
    for s in range(6, 0, -1):
        now, lower = ((1 - signal[k]).sqrt() / signal[k].sqrt() for k in (s, s - 1))
        restored = 0.5 * y * signal[s].sqrt() + 0.1 * s
        y = y + (lower - now) * (y - restored) / now
    # Sigma falls from 4,000 to 0 here: y loses that many digits, the DDIM form does not.
    torch.testing.assert_close(got, y, atol=1e-7, rtol=0)
    with pytest.raises(UserError, match="mixes in an image"):
        ColdEstimated().restore(Halved(SHAPE, Blur(levels=6)), x)


def test_fixed_noise_recovers_with_the_noise_that_was_drawn():
    spec, x, noise = Gaussian(levels=6), images(), Noise(3, range(4), SHAPE)
    start = spec.degrade(x, torch.full((4,), 6), noise)
    z = noise.normal(0)
    expected = cosine_signal(6)[6].sqrt() * x + (1 - cosine_signal(6)[6]).sqrt() * z
    torch.testing.assert_close(start, expected.float())
    torch.testing.assert_close(spec.estimated(start, x, torch.full((4,), 6)), z, atol=1e-4, rtol=0)


def test_animorphosis_mixes_in_a_data_set():
    spec = create(
        "degradation", {"name": "animorphosis", "levels": 4, "dataset": {"name": "digits"}}
    )
    other = spec.start(Noise(0, range(8), (1, 8, 8)))
    data = create("dataset", "digits").open()
    known = to_images(torch.from_numpy(data.pixels(range(len(data)))))
    assert all(bool((known == one).flatten(1).all(1).any()) for one in other)
    with pytest.raises(UserError, match="animorphosis: images of digits"):
        spec.start(Noise(0, range(2), SHAPE))


def small(degradation, **more):
    torch.manual_seed(0)
    net = create("network", {"name": "compact_unet", "channels": [16], "embedding": 16})
    return NetworkRestorer(
        net.build((1, 8, 8)), (1, 8, 8), degradation, time="unit", residual=True, **more
    )


@pytest.mark.parametrize(
    ("sampler", "spent"),
    [
        (ColdAlgorithm1(), 6),
        (ColdAlgorithm2(), 6),
        (ColdAlgorithm2(steps=4), 4),
        (ColdDirect(), 1),
        (ColdStart(), 0),
        (ColdAlgorithm2().with_nfe(2), 2),
    ],
)
def test_evaluations_are_strides(sampler, spent):
    generator = BoundGenerator(small(Blur(levels=6)), sampler)
    with EvaluationCounter(generator.networks()) as counter:
        made = generator.generate(Noise(0, range(3), (1, 8, 8)))
    assert counter.per_image(3) == spent
    assert made.shape == (3, 1, 8, 8)
    assert made.abs().max() <= 1
    alone = generator.generate(Noise(0, [2], (1, 8, 8)))
    torch.testing.assert_close(made[2:], alone, atol=1e-5, rtol=0)


def test_errors_name_the_cure():
    with pytest.raises(UserError, match="9 steps, but the model has 6 severities"):
        ColdAlgorithm2(steps=9).sample(small(Blur(levels=6)), Noise(0, [0], (1, 8, 8)))
    with pytest.raises(UserError, match="samples cold diffusion's restorers, not a Linear"):
        ColdAlgorithm1().sample(torch.nn.Linear(1, 1), Noise(0, [0], (1, 8, 8)))
    with pytest.raises(UserError, match="leave no pixel"):
        create("degradation", {"name": "pixelate", "levels": 5}).degrade(
            images(), torch.ones(4, dtype=torch.int64)
        )
    with pytest.raises(UserError, match="must be odd"):
        create("degradation", {"name": "blur", "kernel_size": 4})
    with pytest.raises(UserError, match="trains a Restorer, not a Linear"):
        Cold().build(Setup(torch.nn.Linear(1, 1), None, None, 1, torch.device("cpu")))


def test_loss_is_the_mean_absolute_error_and_the_start_is_fitted():
    restorer = small(Blur(levels=6), components=2)
    loss = Cold().build(Setup(restorer, None, None, 40, torch.device("cpu")))
    rng = np.random.default_rng(0)
    for step in range(40):
        dark = rng.random(64) < 0.25
        levels = np.where(dark, -0.8, 0.4) + 0.05 * rng.standard_normal(64)
        batch = torch.from_numpy(levels).float().reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        draws = Draws(0, step, 64, (0, 64), torch.device("cpu"))
        got = loss(batch.contiguous(), None, step, draws)
        loss.after_step(step)
    # The network starts at zero, so R(x) = x, and a constant image is its own blur.
    torch.testing.assert_close(got, torch.zeros(64), atol=1e-5, rtol=0)
    order = restorer.start_means[:, 0].argsort()
    assert restorer.start_means[order, 0].tolist() == pytest.approx([-0.8, 0.4], abs=0.02)
    assert restorer.start_weights[order].tolist() == pytest.approx([0.25, 0.75], abs=0.03)
    assert restorer.start_factors[:, 0, 0].tolist() == pytest.approx([0.05, 0.05], abs=0.01)
    drawn = restorer.start(Noise(0, range(2000), (1, 8, 8)))
    assert bool((drawn == drawn[:, :, :1, :1]).all())
    assert float((drawn[:, 0, 0, 0] < -0.2).float().mean()) == pytest.approx(0.25, abs=0.04)


def test_without_noise_the_symmetry_stays():
    """From a constant under circular blur, with a restorer that commutes with shifts, nothing."""
    restorer = Perfect((1, 8, 8), Blur(levels=6, routine="Constant"))
    restorer.truth = torch.zeros(2, 1, 8, 8)
    noise = ReplayNoise([torch.full((2, 1, 8, 8), 0.3), torch.randn(2, 1, 8, 8)])
    noise.uniform = lambda draw: torch.zeros(2, 1, 8, 8)
    flat = ColdAlgorithm2().sample(restorer, noise)
    torch.testing.assert_close(flat, flat[:, :, :1, :1].expand_as(flat), atol=1e-6, rtol=0)
    rough = ColdAlgorithm2(noise_level=0.1).sample(restorer, noise)
    torch.testing.assert_close(rough - flat, 0.1 * noise.normal(1), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_trained_on_digits_algorithm_2_wins_and_beats_its_start(tmp_path):
    """docs/families-cold.md has the figures of the full recipe."""
    recipe = Recipe.model_validate(
        {
            "recipe": "cold/test",
            "model": {
                "name": "cold",
                "shape": [1, 8, 8],
                "network": {"name": "compact_unet", "channels": [32, 32], "unshuffle": 2},
                "degradation": {
                    "name": "blur",
                    "levels": 20,
                    "routine": "Incremental",
                    "kernel_size": 7,
                    "kernel_std": 0.08,
                    "discrete": True,
                },
                "time": "unit",
                "residual": True,
            },
            "dataset": {"name": "digits"},
            "objective": {"name": "cold"},
            "optimiser": {"name": "adam", "lr": 2e-3, "decay_images": 30000},
            "ema": {"half_life_images": 5000},
            "batch": 128,
            "images": 80000,
        }
    )
    data = create("dataset", "digits").open()
    result = train(recipe, dataset_images=data, folder=tmp_path, device=torch.device("cpu"))
    model = create("model", recipe.model)
    restorer = model.build()
    model.load(restorer, result.weights)
    test = create("dataset", {"name": "digits", "split": "test"}).open()
    truth = to_images(torch.from_numpy(test.pixels(range(len(test)))))

    noise = Noise(0, range(500), (1, 8, 8))
    start = frechet(restorer.start(noise), truth)
    made = {
        sampler.name: frechet(BoundGenerator(restorer, sampler).generate(noise), truth)
        for sampler in (ColdAlgorithm1(noise_level=0.002), ColdAlgorithm2(noise_level=0.002))
    }
    smooth = frechet(BoundGenerator(restorer, ColdAlgorithm2()).generate(noise), truth)
    assert made["cold_algorithm2"] < 0.6 * made["cold_algorithm1"]
    assert made["cold_algorithm2"] < 0.4 * start
    assert made["cold_algorithm2"] < 0.6 * smooth


def frechet(ours, theirs):
    """Frechet distance of pixels, by scipy-free eigenvalues of the symmetric product."""
    (m1, c1), (m2, c2) = (
        (v.mean(0), np.cov(v.T)) for v in (x.flatten(1).double().numpy() for x in (ours, theirs))
    )
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(0)).sum()
    return float(((m1 - m2) ** 2).sum() + np.trace(c1 + c2) - 2 * cross)
