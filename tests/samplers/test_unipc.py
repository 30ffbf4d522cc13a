"""UniPC against diffusers' scheduler on the same noise levels, known answers, and its orders."""

import numpy as np
import pytest
import torch

from cmbench.core.random import ReplayNoise
from cmbench.samplers.dpmpp_2m import DPMpp2M
from cmbench.samplers.unipc import UniPC
from cmbench.testing.oracles import GaussianDenoiser, PointsDenoiser

SHAPE = (1, 2, 2)


KNOWN = {
    (2, "bh2", True): [5.3e-3, 7.5e-4, 9.6e-5, 1.2e-5],
    (2, "bh1", True): [1.3e-2, 1.5e-3, 1.8e-4, 2.2e-5],
    (2, "bh2", False): [7.8e-3, 2.1e-3, 5.5e-4, 1.4e-4],
    (3, "bh2", False): [2.1e-3, 1.3e-4, 7.8e-6, 4.5e-7],
    (3, "bh2", True): [3.6e-4, -4.3e-5, -4.8e-6, -3.6e-7],
}
"""Errors at 0.002 over 20, 40, 80, 160 intervals even in ln sigma, from 80: computed elsewhere
from the paper's formulas, at full order to the end."""


@pytest.mark.parametrize("kind", KNOWN, ids=str)
def test_errors_on_gaussian_data_are_those_computed_elsewhere(kind, monkeypatch):
    order, variant, corrector = kind
    denoiser = GaussianDenoiser(SHAPE, spread=0.5)
    first = torch.ones(1, *SHAPE, dtype=torch.float64)
    exact = denoiser.carried(first * 80.0, 80.0, 0.002)
    found = []
    for intervals in (20, 40, 80, 160):
        # One level more below sigma_min keeps the order full up to sigma_min.
        sampler = UniPC(
            steps=intervals + 2, solver_order=order, variant=variant, corrector=corrector,
            spacing="log_snr",
        )  # fmt: skip
        ratio = (0.002 / 80.0) ** (1 / intervals)
        longer = [80.0 * ratio**i for i in range(intervals + 2)]
        monkeypatch.setattr(UniPC, "_levels", lambda self, d, levels=longer: [*levels, 0.0])
        found.append(float((state_at(sampler, denoiser, first, 0.002) - exact).mean()))
    signs = np.sign(found)
    assert np.abs(found) == pytest.approx(np.abs(KNOWN[kind]), rel=0.06)
    assert (signs == signs[0]).all() or order == 3


def state_at(sampler, denoiser, first, sigma):
    states = {}
    handle = denoiser.net.register_forward_pre_hook(
        lambda m, args: states.__setitem__(round(float(args[1][0]), 9), args[0])
    )
    sampler.sample(denoiser, ReplayNoise([first], torch.float64))
    handle.remove()
    return states[round(sigma, 9)]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_diffusers_takes_the_same_steps(order, variant, steps):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the peer of this test")
    points = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1)).double()
    denoiser = PointsDenoiser(points, sigma_min=0.05, sigma_max=20.0)
    sampler = UniPC(steps=steps, solver_order=order, variant=variant)
    first = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(2)).double()
    found = sampler.sample(denoiser, ReplayNoise([first], torch.float64))

    scheduler = diffusers.UniPCMultistepScheduler(
        solver_order=order, solver_type=variant, final_sigmas_type="zero", lower_order_final=True
    )
    scheduler.set_timesteps(steps)
    sigmas = torch.tensor(sampler._levels(denoiser), dtype=torch.float64)
    # At zero itself theirs multiplies infinity by zero with bh1.
    scheduler.sigmas = sigmas.clamp(min=1e-30)
    x = first * sigmas[0] / (1 + sigmas[0] ** 2).sqrt()
    for sigma, t in zip(sigmas, scheduler.timesteps, strict=False):
        wide = x * (1 + sigma**2).sqrt()
        clean = denoiser(wide, sigma.expand(4))
        x = scheduler.step((wide - clean) / sigma, t, x).prev_sample
    assert torch.allclose(found, x, atol=1e-9)


def test_the_predictor_alone_of_order_two_is_dpm_solver_on_even_levels(monkeypatch):
    points = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1)).double()
    denoiser = PointsDenoiser(points, sigma_min=0.05, sigma_max=20.0)
    levels = [20.0 * 0.4**i for i in range(6)]
    monkeypatch.setattr(UniPC, "_levels", lambda self, d: [*levels, 0.0])
    # The grid is even in ln sigma here alone, where the two are one method.
    monkeypatch.setitem(DPMpp2M.sample.__globals__, "sigma_steps", lambda *a: [*levels, 0.0])
    noise = ReplayNoise([torch.ones(1, *SHAPE, dtype=torch.float64)], torch.float64)
    ours = UniPC(steps=6, solver_order=2, variant="bh2", corrector=False).sample(denoiser, noise)
    assert torch.allclose(ours, DPMpp2M(steps=6).sample(denoiser, noise), atol=1e-10)
