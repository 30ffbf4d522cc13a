"""improved-diffusion against the authors' code at random weights."""

import pytest
import torch
from authors_vectors import Vectors

from cmbench.core.errors import UserError
from cmbench.core.loader import load
from cmbench.core.random import ReplayNoise
from cmbench.samplers._respacing import Process, kept_steps
from cmbench.samplers.iddpm_ancestral import IDDPMAncestral
from cmbench.samplers.iddpm_ddim import IDDPMDDIM
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.iddpm import IDDPM

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def z():
    return Vectors("iddpm")


def loaded(z, **more):
    side = z["x_start"].shape[-1]
    diffusion = {**z.meta["diffusion"], **more}
    model = load("model", "iddpm_official").of_unet(z.meta["constructor"], side, diffusion)
    denoiser = model.build()
    model.load(denoiser, z.folder / "model.pt")
    return denoiser.eval()


@torch.no_grad()
def test_network_schedule_and_time(z):
    denoiser = loaded(z)
    z.agree("model_output", denoiser.net(z["x_t"], z["t_model"], z["y"]))
    t = z["t"]
    process = Process.of(denoiser.abar)
    z.agree("schedule/alphas_cumprod", denoiser.abar[t])
    z.agree("schedule/betas", process.betas[t])
    z.agree("schedule/sigma", denoiser.levels[t])
    z.agree("t_model", denoiser.c_noise(denoiser.levels[t]))
    abar = denoiser.abar[t][:, None, None, None]
    z.agree("x_t", abar.sqrt() * z["x_start"] + (1 - abar).sqrt() * z["noise"])


def first_half():
    """The network without its learned variance, as the authors' run cut its outputs."""
    return lambda net, args, output: output[:, : output.shape[1] // 2]


KINDS = {
    "clip": ({}, "learned", True),
    "noclip": ({}, "learned", False),
    "fixed_large": ({}, "large", True),
    "fixed_small": ({}, "small", True),
    "xstart_fixed_small": ({"predict_xstart": True}, "small", True),
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_p_mean_variance(z, kind):
    more, variance, clip = KINDS[kind]
    denoiser = loaded(z, **more)
    if variance != "learned":
        denoiser.net.register_forward_hook(first_half())
    process = Process.of(denoiser.abar)
    found = process.posterior(
        denoiser, z["x_t"].double(), z["t"], z["y"], variance=variance, clip=clip
    )
    spread = found.log_variance.exp()
    if variance == "small":
        # Small variance is 0 at the last step; its logarithm alone is that of the step before.
        spread = process.variance[z["t"]][:, None, None, None].expand_as(spread)
    parts = {
        "mean": found.mean,
        "log_variance": found.log_variance,
        "variance": spread,
        "pred_xstart": found.clean,
    }
    for name, value in parts.items():
        if f"p_mean_variance/{kind}/{name}" in z:
            z.agree(f"p_mean_variance/{kind}/{name}", value)


@torch.no_grad()
def test_a_network_without_learned_variance_says_so(z):
    denoiser = loaded(z)
    denoiser.net.register_forward_hook(first_half())
    with pytest.raises(UserError, match="no learned variance"):
        IDDPMAncestral(steps=2).sample(denoiser, ReplayNoise([z["x_T"]] * 3), z["y"][:2])


@pytest.mark.parametrize("respacing", ["8", "6,3", "ddim8"])
def test_respacing(z, respacing):
    abar = loaded(z).abar
    kept = kept_steps(len(abar), respacing)
    z.agree(f"respace/{respacing}/timestep_map", kept)
    z.agree(f"respace/{respacing}/betas", Process.of(abar[kept]).betas)


RUNS = ["p_sample/8", "ddim/8", "p_sample/6,3", "ddim/6,3", "ddim/ddim8", "ddim_eta/ddim8"]


@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_loops(z, name):
    run, denoiser = z.meta["runs"][name], loaded(z)
    clip = run["clip_denoised"]
    if run["eta"] is None:
        sampler = IDDPMAncestral(respacing=run["respacing"], clip=clip)
    else:
        sampler = IDDPMDDIM(respacing=run["respacing"], eta=run["eta"], clip=clip)
    inputs, outputs = [], []
    denoiser.net.register_forward_pre_hook(lambda net, args: inputs.append(args[0]))
    denoiser.net.register_forward_hook(lambda net, args, output: outputs.append(output))
    noise = ReplayNoise([z["x_T"], *z["step_noise"]])
    final = sampler.sample(denoiser, noise, z["y"][: len(z["x_T"])])
    assert len(inputs) == run["steps"] == sampler.nfe()
    # The network's input is the VP state: each step's is the state after the one before.
    states = torch.stack([*inputs[1:], final.float()])
    z.agree(f"{name}/samples", states)
    levels = denoiser.abar[kept_steps(len(denoiser.abar), run["respacing"])]
    eps = outputs[-1][:, :3].double()
    clean = (inputs[-1].double() - (1 - levels[0]).sqrt() * eps) / levels[0].sqrt()
    z.agree(f"{name}/pred_xstart_last", clean.clamp(-1, 1))


@torch.no_grad()
def test_inversion(z):
    denoiser, rows = loaded(z), len(z["x_T"])
    sampler = IDDPMDDIM(respacing="ddim8")
    found = sampler.invert(denoiser, z["x_start"][:rows], z["y"][:rows])
    z.agree("ddim_reverse/ddim8", found)


@torch.no_grad()
def test_losses(z):
    denoiser = loaded(z)
    loss = IDDPM().build(Setup(denoiser, None, None, 1, torch.device("cpu")))
    found = loss.terms(z["x_start"], z["t"], z["noise"], z["y"])
    z.agree("loss/mse", found.mse)
    z.agree("loss/vb", found.vb)
    z.agree("loss/loss", found.mse + found.vb)
