"""EDM's networks, wrappers and samplers against the authors' code at random weights."""

import math

import pytest
import torch
from authors_vectors import Recorded, Vectors

from cmbench.core.images import to_pixels
from cmbench.core.loader import load
from cmbench.core.random import ReplayNoise
from cmbench.samplers.edm_ablation import EDMAblation
from cmbench.samplers.heun import Heun
from cmbench.samplers.heun_stochastic import HeunStochastic

pytestmark = pytest.mark.parity

SETS = {
    "edm_ddpmpp": ("EDMPrecond", "VPPrecond"),
    "edm_ncsnpp": ("EDMPrecond", "VEPrecond"),
    "edm_adm": ("EDMPrecond",),
    "edm_adm_heads": ("EDMPrecond",),
    "edm_adm_iddpm": ("iDDPMPrecond",),
}
CASES = [(name, precond) for name, preconds in SETS.items() for precond in preconds]


def loaded(vectors, precond, **more):
    model = load("model", "edm_official")(
        precond=precond, **vectors.meta["constructor"][precond], **more
    )
    denoiser = model.build()
    model.load(denoiser, vectors.folder / "weights.safetensors")
    return denoiser.eval()


def labels(vectors):
    return vectors.maybe("class_idx")


@pytest.mark.parametrize(("name", "precond"), CASES)
@torch.no_grad()
def test_network_and_wrapper(name, precond):
    z = Vectors(name)
    denoiser = loaded(z, precond)
    told = labels(z)
    z.agree(f"F_{precond}", denoiser.net(z[f"xin_{precond}"], z[f"c_noise_{precond}"], told))
    seen = []
    handle = denoiser.net.register_forward_pre_hook(lambda net, args: seen.append(args))
    z.agree(f"D_{precond}", denoiser(z["x"], z["sigma"], told))
    handle.remove()
    z.agree(f"xin_{precond}", seen[0][0])
    z.agree(f"c_noise_{precond}", seen[0][1])
    z.agree(f"D_{precond}_scalar", denoiser(z["x"], torch.tensor(0.7), told))
    if f"D_{precond}_nolabel" in z:
        z.agree(f"D_{precond}_nolabel", denoiser(z["x"], z["sigma"], None))


@pytest.mark.parametrize(("name", "precond"), [c for c in CASES if "adm" not in c[0]])
@torch.no_grad()
def test_augmentation_labels_reach_the_network(name, precond):
    z = Vectors(name)
    denoiser = loaded(z, precond)
    given = z["augment_labels"]
    denoiser.net.register_forward_pre_hook(
        lambda net, args, kwargs: (args, {**kwargs, "augment": given}), with_kwargs=True
    )
    z.agree(f"D_{precond}_aug", denoiser(z["x"], z["sigma"], labels(z)))


def test_iddpm_levels_and_rounding():
    z = Vectors("edm_adm_iddpm")
    denoiser = loaded(z, "iDDPMPrecond")
    z.agree("u", denoiser.levels)
    z.agree("round_sigma", denoiser.round_sigma(z["sigma_probe"]))
    z.agree("round_sigma_index", denoiser.index(z["sigma_probe"]))


def sampler_of(run):
    """Our sampler, and the range of the denoiser, for a recorded run."""
    told = dict(run["kwargs"])
    steps = told.pop("num_steps")
    ends = {
        "sampling_min": told.pop("sigma_min", None),
        "sampling_max": told.pop("sigma_max", None),
    }
    if run["sampler"] == "ablation_sampler":
        return EDMAblation(steps=steps, **told), ends
    if "S_churn" in told:
        churn = {
            "churn": told.pop("S_churn"),
            "noise_from": told.pop("S_min"),
            "noise_to": told.pop("S_max"),
            "noise_scale": told.pop("S_noise"),
        }
        return HeunStochastic(steps=steps, **churn, **told), ends
    return Heun(steps=steps, **told), ends


RUNS = [
    "heun", "churn", "heun_range", "heun_ve_clamped", "abl_vp_euler", "abl_vp_heun",
    "abl_ve_euler", "abl_ve_heun", "abl_iddpm_heun", "abl_edm_midpoint",
]  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_trajectories(name):
    z = Vectors("edm_sampler")
    run = z.meta["runs"][name]
    sampler, ends = sampler_of(run)
    denoiser = loaded(z, run["precond"], **ends)
    calls = Recorded(denoiser)
    noise = ReplayNoise([z["latents"], *z["noise"]])
    final = sampler.sample(denoiser, noise, z["class_idx"])
    z.agree(f"{name}/sigma_calls", calls.sigmas)
    assert len(calls.sigmas) == run["network_calls"] == sampler.nfe()
    if f"{name}/x_calls" in z:
        z.agree(f"{name}/x_calls", torch.stack(calls.states))
        z.agree(f"{name}/D_calls", torch.stack(calls.outputs))
    z.agree(f"{name}/final", final)


@pytest.mark.parametrize("name", ["heun", "heun_range", "churn"])
@torch.no_grad()
def test_the_ablation_sampler_at_edms_choices_is_edms_sampler(name):
    z = Vectors("edm_sampler")
    told = dict(z.meta["runs"][name]["kwargs"])
    fields = {
        "num_steps": "steps", "S_churn": "churn", "S_min": "noise_from", "S_max": "noise_to",
        "S_noise": "noise_scale",
    }  # fmt: skip
    sampler = EDMAblation(**{fields.get(k, k): v for k, v in told.items()})
    noise = ReplayNoise([z["latents"], *z["noise"]])
    z.agree(f"{name}/final", sampler.sample(loaded(z, "EDMPrecond"), noise, z["class_idx"]))


def test_pixels_to_within_one_grey_level_on_an_edge():
    z = Vectors("edm_sampler")
    pixels = to_pixels(z["heun/final"], "round")
    apart = (pixels.int() - z["heun/uint8"].int()).abs()
    assert int(apart.max()) <= 1
    edge = (z["heun/final"] * 127.5 + 128) % 1
    assert bool(((edge < 1e-3) | (edge > 1 - 1e-3))[apart > 0].all())


def test_stacked_generators_draw_latents_then_labels_or_noise():
    """What the authors' seeded batches hold, for those who replay them by `ReplayNoise`."""
    z = Vectors("edm_sampler")
    drawn = {"latents": [], "noise": [], "labels": []}
    for seed in z["srg_seeds"].tolist():
        generator = torch.Generator().manual_seed(seed % (1 << 32))
        shape = z["srg/latents"].shape[1:]
        drawn["latents"].append(torch.randn(shape, generator=generator))
        state = generator.get_state()
        drawn["noise"].append(torch.randn(shape, generator=generator, dtype=torch.float64))
        generator.set_state(state)
        drawn["labels"].append(torch.randint(10, (), generator=generator))
    z.agree("srg/latents", torch.stack(drawn["latents"]))
    z.agree("srg/first_randn_like_float64", torch.stack(drawn["noise"]))
    z.agree("srg/labels_after_latents", torch.stack(drawn["labels"]))


def test_the_trained_range_bounds_what_is_sampled():
    z = Vectors("edm_sampler")
    ve = loaded(z, "VEPrecond")
    assert (ve.sigma_min, ve.sigma_max) == (0.02, 80.0)
    vp = loaded(z, "VPPrecond")
    assert vp.sigma_min == 0.002
    assert math.isclose(vp.trained_range[1], 152.16697, rel_tol=1e-6)
