"""DDPM pipelines of diffusers: the folder alone decides network, noise levels and sampling."""

import json
import shutil

import pytest
import torch
from authors_vectors import Vectors

from cmbench.core.loader import load
from cmbench.core.random import ReplayNoise
from cmbench.denoise.base import expand
from cmbench.samplers.ddim import DDIM
from cmbench.samplers.ddpm_ancestral import DDPMAncestral

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def z():
    return Vectors("diffusers_ddpm")


def opened(folder):
    """The denoiser of a pipeline folder, by the way that suites go."""
    kind = load("model", "ddpm")
    weights, told = kind.opened(folder)
    model = kind(**told)
    denoiser = model.build()
    model.load(denoiser, weights)
    return denoiser


@pytest.fixture(scope="module")
def denoiser(z):
    return opened(z.folder)


LAYOUTS = ["", "legacy_root_layout", "unet/diffusion_pytorch_model.safetensors"]


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_network(z, layout):
    denoiser = opened(z.folder / layout)
    z.agree("eps", denoiser.net(z["x_t"], z["t"].float()))
    assert sum(p.numel() for p in denoiser.net.parameters()) == z.meta["weights"]["n_parameters"]


@torch.no_grad()
def test_a_pickled_state_dict_is_read_too(z, denoiser, tmp_path):
    from safetensors.torch import load_file

    for name in ("config.json", "scheduler_config.json"):
        shutil.copy(z.folder / "legacy_root_layout" / name, tmp_path / name)
    state = load_file(z.folder / "legacy_root_layout" / "diffusion_pytorch_model.safetensors")
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    z.agree("eps", opened(tmp_path).net(z["x_t"], z["t"].float()))


@torch.no_grad()
def test_schedule_and_denoiser(z, denoiser):
    t = z["t"]
    z.agree("schedule/alphas_cumprod", denoiser.abar[t])
    z.agree("sigma", denoiser.levels[t])
    abar = denoiser.abar[t][:, None, None, None]
    noisy = abar.sqrt() * z["x_start"] + (1 - abar).sqrt() * z["noise"]
    z.agree("x_t", noisy)
    z.agree("x_sigma", noisy / abar.sqrt())
    z.agree("D", denoiser(z["x_sigma"].double(), denoiser.levels[t]))


def sampler_of(name, run, scheduler):
    """Ours for a run of theirs: what the run changes of the folder's scheduler."""
    changed = {**scheduler, **run.get("over", {})}
    grid, clip = changed.get("timestep_spacing", "leading"), changed["clip_sample"]
    if name.startswith("ddpm"):
        variance = changed["variance_type"].removeprefix("fixed_")
        if not run.get("over"):
            # As the folder says it: nothing is told to the sampler but the number of steps.
            return DDPMAncestral(steps=run["steps"])
        return DDPMAncestral(steps=run["steps"], variance=variance, clip=clip, grid=grid)
    rederive = bool(run.get("clipped"))
    return DDIM(steps=run["steps"], eta=run["eta"], clip=clip, rederive=rederive, grid=grid)


RUNS = [
    "ddpm/8", "ddpm/8_small", "ddpm/8_noclip", "ddim/8", "ddim/8_eta1", "ddim/8_trailing",
    "ddim/7_clipped",
]  # fmt: skip


def test_every_run_of_the_set_is_tried(z):
    assert set(z.meta["runs"]) == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_loops(z, denoiser, name):
    run = z.meta["runs"][name]
    told = json.loads((z.folder / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    sampler = sampler_of(name, run, told)
    states, times, cleans = [], [], []

    def note(net, args):
        states.append(args[0])
        times.append(args[1][0])

    hooks = [
        denoiser.net.register_forward_pre_hook(note),
        denoiser.register_forward_hook(lambda module, args, found: cleans.append(found)),
    ]
    # Theirs are drawn only where they are needed: in order, from the first on.
    noise = ReplayNoise([z["x_T"], *z["step_noise"]])
    final = sampler.sample(denoiser, noise)
    for hook in hooks:
        hook.remove()
    z.agree(f"{name}/timesteps", torch.stack(times).long())
    # The network's input is the VP state: each step's is the state after the one before.
    z.agree(f"{name}/samples", torch.stack([*states[1:], final.float()]))
    assert torch.allclose(states[0], z["x_T"], atol=1e-6)
    assert sampler.nfe() == len(states)
    if f"{name}/pred_x0_last" in z:
        bound = 1.0 if sampler.clip or (sampler.clip is None and told["clip_sample"]) else 1e9
        z.agree(f"{name}/pred_x0_last", cleans[-1].clamp(-bound, bound))


@torch.no_grad()
def test_v_prediction_and_x0_prediction_are_the_same_denoiser(z):
    """A network whose outputs are turned from noise to x0 or v gives the same D."""
    folder, kind = z.folder, load("model", "ddpm")
    weights, told = kind.opened(folder)
    x, sigma = z["x_sigma"][:3].double(), opened(folder).levels[z["t"][:3]]
    model = kind(**told)
    eps = model.build().double()
    model.load(eps, weights)
    eps.double()
    want = eps(x, sigma)
    kept = expand((1 + sigma**2).rsqrt(), x)
    made = {
        "sample": lambda n, a, raw: want,
        "v_prediction": lambda n, a, raw: kept * raw - expand(sigma, x) * kept * want,
    }
    for prediction, turn in made.items():
        other = kind(**{**told, "prediction": prediction}).build().double()
        model.load(other, weights)
        other.double().net.register_forward_hook(turn)
        assert torch.allclose(other(x, sigma), want, atol=1e-10)
