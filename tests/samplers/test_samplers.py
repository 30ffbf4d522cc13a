"""Samplers against closed forms: known answers, order, counted evaluations, independence."""

import math
import re

import numpy as np
import pytest
import torch

from cmbench.core.errors import UserError
from cmbench.core.loader import available, create
from cmbench.core.nfe import EvaluationCounter
from cmbench.core.random import Noise, ReplayNoise
from cmbench.samplers.base import BoundGenerator, ImpossibleNFEError
from cmbench.testing.oracles import GaussianConsistency, GaussianDenoiser

SHAPE = (1, 4, 4)
GAUSSIAN_SAMPLERS = [
    item.name
    for item in available("sampler")
    if create("sampler", item.name).accepts == "denoiser"
]

NEED_TWO_POINTS = {"edm_ablation"}
"""Samplers whose grids divide by steps - 1: they refuse one step rather than give NaN."""


def oracle_for(name):
    kind = GaussianConsistency if name in ("multistep", "onestep") else GaussianDenoiser
    return kind(SHAPE, spread=0.5)


def from_eighty(sampler, denoiser):
    """Where the sampler carries the single value 80 from sigma 80."""
    noise = ReplayNoise([torch.ones(1, *SHAPE, dtype=torch.float64)], torch.float64)
    return float(sampler.sample(denoiser, noise).mean())


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("euler", {5: 0.23362893, 10: 0.36521307, 18: 0.42303144}),
        ("ddim", {5: 0.23362893, 10: 0.36521307, 18: 0.42303144}),
        ("heun", {5: 1.25788631, 10: 0.60979800, 18: 0.52762464}),
        ("dpmpp_2m", {5: 0.43265207, 10: 0.57938666, 18: 0.53114007}),
    ],
)
def test_known_answers_on_gaussian_data(name, answers):
    for steps, want in answers.items():
        got = from_eighty(create("sampler", {"name": name, "steps": steps}), oracle_for(name))
        assert got == pytest.approx(want, abs=2e-8)


@pytest.mark.parametrize("name", [n for n in GAUSSIAN_SAMPLERS if create("sampler", n).order])
def test_order_of_convergence(name):
    """Slope of log error against log steps, to the ODE's exact end at sigma_min = 0.5: on a short
    smooth stretch, where the asymptotic order shows."""
    denoiser = GaussianDenoiser(SHAPE, spread=0.5, sigma_min=0.5, sigma_max=5.0)
    sampler = create("sampler", name)
    errors, counts = [], (20, 40, 80)
    for steps in counts:
        made = create("sampler", {"name": name, "steps": steps})
        got = _before_last_step(made, denoiser)
        exact = float(denoiser.carried(torch.ones(1).double() * 5.0, 5.0, 0.5))
        errors.append(abs(got - exact))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(sampler.order, abs=0.3)


def _before_last_step(sampler, denoiser):
    """The state at sigma_min: the last call's input, before the step to zero."""
    seen = []
    handle = denoiser.net.register_forward_pre_hook(lambda m, a: seen.append(a))
    noise = ReplayNoise([torch.ones(1, *SHAPE, dtype=torch.float64)], torch.float64)
    sampler.sample(denoiser, noise)
    handle.remove()
    last_x, last_sigma = seen[-1]
    assert float(last_sigma[0]) == pytest.approx(denoiser.sigma_min)
    return float(last_x.mean())


@pytest.mark.parametrize("name", GAUSSIAN_SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_counted_evaluations_are_what_it_says_and_finite(name, steps):
    sampler = create("sampler", name)
    if "steps" in type(sampler).model_fields:
        spec = {"name": name, "steps": steps}
        if steps == 1 and name in NEED_TWO_POINTS:
            with pytest.raises(UserError, match="greater than or equal to 2"):
                create("sampler", spec)
            return
        sampler = create("sampler", spec)
    generator = BoundGenerator(oracle_for(name), sampler)
    with EvaluationCounter(generator.networks()) as counter:
        images = generator.generate(Noise(0, range(3), SHAPE))
    assert torch.isfinite(images).all()
    assert sampler.nfe() is None or counter.per_image(3) == sampler.nfe()


@pytest.mark.parametrize("name", GAUSSIAN_SAMPLERS)
def test_an_image_does_not_depend_on_its_batch(name):
    sampler, denoiser = create("sampler", name), oracle_for(name)
    whole = sampler.sample(denoiser, Noise(3, range(5), SHAPE))
    for i in (0, 4):
        assert torch.equal(sampler.sample(denoiser, Noise(3, [i], SHAPE))[0], whole[i])


@pytest.mark.parametrize(
    "spec",
    [{"name": "ddim", "eta": 1.0, "steps": 400}, {"name": "ddim", "eta": 0.5, "steps": 400},
     {"name": "heun_stochastic", "steps": 60}, {"name": "heun", "steps": 60}, "onestep",
     {"name": "multistep", "steps": 4}],
    ids=str,
)  # fmt: skip
def test_samples_have_the_datas_distribution(spec):
    sampler = create("sampler", spec)
    denoiser = oracle_for(sampler.name)
    images = sampler.sample(denoiser, Noise(0, range(600), SHAPE)).flatten()
    # 9,600 values of N(0, 0.25), clipped at +-1 where the sampler clips; z = 4.
    clips = sampler.name in ("onestep", "multistep")
    reference = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0)).double() * 0.5
    reference = reference.clamp(-1, 1) if clips else reference
    spread = float(reference.std())
    assert abs(float(images.mean())) < 4 * spread / math.sqrt(len(images))
    assert float(images.std()) == pytest.approx(spread, rel=4 / math.sqrt(2 * len(images)) + 0.01)


def test_an_impossible_nfe_is_refused_naming_the_nearest():
    with pytest.raises(ImpossibleNFEError, match=r"(?s)'heun' can't spend exactly 4.*3 or 5"):
        create("sampler", "heun").with_nfe(4)
    assert create("sampler", "heun").with_nfe(35).steps == 18
    assert create("sampler", "multistep").with_nfe(1).nfe() == 1
    with pytest.raises(ImpossibleNFEError):
        create("sampler", "onestep").with_nfe(2)


@pytest.mark.parametrize("name", GAUSSIAN_SAMPLERS)
def test_each_count_is_spent_or_refused_with_counts_that_can_be(name):
    sampler = create("sampler", name)
    can = {n for asked in range(1, 13) for n in sampler.possible_nfe(asked)}
    for asked in range(1, 13):
        if asked in can:
            assert sampler.with_nfe(asked).nfe() == asked
            continue
        with pytest.raises(
            ImpossibleNFEError, match=f"'{name}' can't spend exactly {asked}"
        ) as no:
            sampler.with_nfe(asked)
        named = {int(word) for word in re.findall(r"\d+", no.value.expected)}
        assert named <= can
        assert named or "no free number of steps" in no.value.expected


def test_multistep_time_points_as_the_authors_write_them():
    sampler = create("sampler", {"name": "multistep", "indices": [0, 22, 39], "grid": 40})
    assert sampler.points(0.002, 80.0) == pytest.approx([80.0, 1.3824], abs=1e-4)
    assert sampler.nfe() == 2
    with pytest.raises(UserError, match="rise from 0 to grid - 1 = 39"):
        create("sampler", {"name": "multistep", "indices": [0, 22], "grid": 40})


def test_longer_multistep_runs_keep_the_shorter_ones_points():
    points = [set(create("sampler", {"name": "multistep", "steps": n}).points(0.002, 80.0))
              for n in (1, 2, 3, 4)]  # fmt: skip
    assert points[0] < points[1] < points[2] < points[3]
