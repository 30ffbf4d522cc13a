"""OpenAI's consistency_models against the authors' code at random weights."""

import copy

import pytest
import torch
from authors_vectors import Recorded, Vectors
from torch.nn import functional as nnf

from cmbench.core.errors import UserError
from cmbench.core.loader import create, load
from cmbench.core.random import ReplayNoise
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.released.torch_state import read_torch
from cmbench.samplers._editing import colourise, edit, super_resolve
from cmbench.samplers.multistep import MultiStep
from cmbench.samplers.onestep import OneStep
from cmbench.samplers.openai_karras import OpenAIKarras
from cmbench.train.objectives._consistency import adaptive_points, adaptive_rate
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.cd import ConsistencyDistillation
from cmbench.train.objectives.ct import ConsistencyTraining
from cmbench.train.objectives.progressive import ProgressiveDistillation

pytestmark = pytest.mark.parity

MODES = {"consistency": "D_consistency", "edm": "D_edm"}


@pytest.fixture(scope="module")
def z():
    return Vectors("openai_cm")


def loaded(z, scalings):
    model = load("model", "consistency_official").of_unet(
        z.meta["constructor"],
        scalings=scalings,
        **{k: z.meta["diffusion"][k] for k in ("sigma_data", "sigma_min", "sigma_max")},
    )
    denoiser = model.build()
    model.load(denoiser, z.folder / z.meta["weights"]["file"])
    return denoiser.eval()


@torch.no_grad()
def test_network_and_its_time(z):
    denoiser = loaded(z, "consistency")
    z.agree("F", denoiser.net(z["xin"], z["t_model"], z["y"]))
    seen = []
    denoiser.net.register_forward_pre_hook(lambda net, args: seen.append(args))
    denoiser(z["x"], z["sigma"], z["y"])
    z.agree("xin", seen[0][0])
    z.agree("t_model", seen[0][1])


def test_tensors_of_another_shape_are_refused_with_the_file(z, tmp_path):
    model = load("model", "consistency_official").of_unet(z.meta["constructor"])
    denoiser, state = model.build(), read_torch(z.folder / z.meta["weights"]["file"])
    reshaped = [torch.flatten, lambda t: t[None], lambda t: t[:-1], lambda t: t.sum(), "text", 3]
    for name in [n for n in state if "qkv" in n or "label_emb" in n or "proj_out.weight" in n][:6]:
        for i, change in enumerate(reshaped):
            value = change(state[name]) if callable(change) else change
            if isinstance(value, torch.Tensor) and value.shape == state[name].shape:
                continue
            file = tmp_path / f"{i}.pt"
            torch.save({**state, name: value}, file)
            with pytest.raises(UserError, match=rf"{i}\.pt"):
                model.load(denoiser, file)


@pytest.mark.parametrize("scalings", MODES)
@torch.no_grad()
def test_denoiser(z, scalings):
    denoiser = loaded(z, scalings)
    z.agree(MODES[scalings], denoiser(z["x"], z["sigma"], z["y"]))
    probe = torch.tensor(z.meta["sig_probe"], dtype=torch.float64)
    c_skip, c_out = denoiser.scalings(probe)
    z.agree(f"scal_{scalings}/c_skip", c_skip)
    z.agree(f"scal_{scalings}/c_out", c_out)
    z.agree(f"scal_{scalings}/c_in", (probe**2 + denoiser.sigma_data**2).rsqrt())
    z.agree("scal/t_model", 250 * probe.log())


def test_a_conditional_network_without_labels_is_an_error(z):
    with pytest.raises(UserError, match="10 classes"):
        loaded(z, "edm")(z["x"], z["sigma"], None)


def sampler_of(run):
    told = {k: v for k, v in run.items() if not k.startswith(("mode", "n"))}
    method, steps, clip = told["sampler"], told["steps"], told.get("clip_denoised", True)
    if method == "onestep":
        return OneStep()
    if method == "multistep" and clip:
        return MultiStep(indices=tuple(told["ts"]), grid=steps)
    return OpenAIKarras(
        method=method,
        steps=steps,
        clip=clip,
        indices=tuple(told["ts"]) if "ts" in told else None,
        churn=told.get("s_churn", 0.0),
        noise_from=told.get("s_tmin", 0.0),
        noise_to=told.get("s_tmax"),
        noise_scale=told.get("s_noise", 1.0),
    )


RUNS = [
    "onestep", "multistep_2", "multistep_3_noclip", "heun", "heun_churn", "euler", "dpm",
    "ancestral", "progdist_4",
]  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_trajectories(z, name):
    run = z.meta["runs"][name]
    denoiser, sampler = loaded(z, run["mode"]), sampler_of(run)
    calls = Recorded(denoiser)
    final = sampler.sample(denoiser, ReplayNoise(list(z["sample_noise"])), z["y"])
    z.agree(f"{name}/sigma_calls", calls.sigmas)
    assert len(calls.sigmas) == run["network_calls"] == sampler.nfe()
    z.agree(f"{name}/final", final)


@torch.no_grad()
def test_both_multistep_samplers_are_one(z):
    told = {"indices": (0, 22, 39)}
    draws = ReplayNoise(list(z["sample_noise"]))
    denoiser = loaded(z, "consistency")
    ours = MultiStep(grid=40, **told).sample(denoiser, draws, z["y"])
    theirs = OpenAIKarras(method="multistep", steps=40, **told).sample(denoiser, draws, z["y"])
    # Up to the noise that the authors add at sigma_min: none, but for rounding.
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("task", ["colorization", "superres"])
@torch.no_grad()
def test_editing(z, task):
    denoiser, images = loaded(z, "consistency"), z["x_start"]
    if task == "colorization":
        known, replace = colourise(images)
    else:
        known, replace = super_resolve(images, _patch(z))
    z.agree(f"edit_{task}/condition", known)
    grid = karras_grid(40, denoiser.sigma_min, denoiser.sigma_max).tolist()
    points = [grid[i] for i in (0, 20, 39)]
    start = (z["sample_noise"][0] * denoiser.sigma_max).double()
    found = edit(denoiser, start, points, ReplayNoise(list(z["sample_noise"])), replace, z["y"])
    z.agree(f"edit_{task}/result", found)


def _patch(z):
    """The side of the patches that the authors' run averaged over."""
    known = z["edit_superres/condition"]
    runs = (known[0, 0, 0, 1:] - known[0, 0, 0, :-1]).abs() > 1e-5
    return int(runs.nonzero()[0]) + 1


class Resized(torch.nn.Module):
    """The authors' l2-32: l2 after a bilinear resize to 32 pixels."""

    def __init__(self, distance):
        super().__init__()
        self.distance = distance

    def forward(self, x, y):
        small = [nnf.interpolate(v, size=32, mode="bilinear") for v in (x, y)]
        return self.distance(*small)


def distance_of(name):
    built = create("distance", name.split("-")[0]).build(torch.device("cpu"))
    return Resized(built) if name == "l2-32" else built


def scaled(module, factor):
    """A copy with every parameter times `factor`, as the authors' run had its other networks."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(factor)
    return other


def pair(z, scales):
    """Both levels of the pair, in float32 as the authors compute them."""
    index = z[f"loss_idx/n{scales}"]
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    t, u = ((high + i / (scales - 1) * (low - high)) ** 7 for i in (index, index + 1))
    ours = karras_grid(scales, 0.002, 80.0)
    assert torch.allclose(t.double(), ours[index], rtol=3e-6)
    assert torch.allclose(u.double(), ours[index + 1], rtol=3e-6)
    return t, u


@pytest.mark.parametrize("distance", ["l1", "l2", "l2-32"])
@pytest.mark.parametrize("scales", [18, 40])
@torch.no_grad()
def test_distillation_and_training_losses(z, scales, distance):
    online, teacher = loaded(z, "consistency"), scaled(loaded(z, "edm"), 1.03)
    setup = Setup(online, teacher, distance_of(distance), 1, torch.device("cpu"))
    t, u = pair(z, scales)
    noise, images = z["loss_noise"], z["x_start"]
    x_t = images + t[:, None, None, None] * noise
    cd = ConsistencyDistillation(points=scales, mu=0.95).build(setup)
    cd.target = scaled(online, 0.98)
    loss = cd.pair_loss(x_t, t, cd.solve(x_t, t, u, z["y"]), u, z["y"])
    z.agree(f"loss_cd/n{scales}/{distance}", loss)
    ct = ConsistencyTraining().build(setup)
    ct.target = scaled(online, 0.98)
    x_u = images + u[:, None, None, None] * noise
    z.agree(f"loss_ct/n{scales}/{distance}", ct.pair_loss(x_t, t, x_u, u, z["y"]))


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("scales", [18, 40])
@torch.no_grad()
def test_progressive_distillation_losses(z, scales, distance):
    # The recorded run left the student at the scalings of a consistency function.
    student, teacher = loaded(z, "consistency"), scaled(loaded(z, "edm"), 1.03)
    setup = Setup(student, teacher, distance_of(distance), 1, torch.device("cpu"))
    loss = ProgressiveDistillation(intervals=scales, weighting="uniform").build(setup)
    index = z[f"loss_idx/n{scales}"]
    found = loss.loss(z["x_start"], index, scales, z["loss_noise"], z["y"])
    z.agree(f"loss_pd/n{scales}/{distance}", found)


@torch.no_grad()
def test_edm_loss(z):
    denoiser = loaded(z, "edm")
    sigma = z["sigma"]
    noisy = z["x_start"] + sigma[:, None, None, None] * z["loss_noise"]
    error = (denoiser(noisy, sigma, z["y"]) - z["x_start"]).square().flatten(1).mean(1)
    z.agree("loss_edm/xs_mse", error)
    sd = denoiser.sigma_data
    z.agree("loss_edm/mse", error * (sigma**2 + sd**2) / (sigma * sd) ** 2)


SCHEDULES = {
    "cd_fixed": ("fixed", 0.95, "fixed", 40, 40, 600_000),
    "ct_imagenet64": ("adaptive", 0.95, "progressive", 2, 200, 800_000),
    "ct_lsun": ("adaptive", 0.95, "progressive", 2, 150, 1_000_000),
    "ct_fixed_ema": ("fixed", 0.9, "progressive", 2, 150, 400_000),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_points_and_target_average(z, name):
    ema_mode, mu0, scale_mode, s0, s1, total = SCHEDULES[name]
    steps = z[f"schedule/{name}/step"].tolist()
    progressive = scale_mode == "progressive"
    points = [adaptive_points(k, total, s0, s1) if progressive else s0 for k in steps]
    adaptive = ema_mode == "adaptive"
    rates = [adaptive_rate(n, s0, mu0) if adaptive else mu0 for n in points]
    z.agree(f"schedule/{name}/scales", points)
    z.agree(f"schedule/{name}/ema", rates)
